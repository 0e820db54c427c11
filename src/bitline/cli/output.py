"""Where results go: terminal, JSON, page."""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from bitline.errors import ExportError


def write_json(content: object, path: Path) -> None:
    """Write JSON whole or not at all.

    Raises:
        ExportError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        os.replace(part, path)
    except OSError as error:
        raise ExportError(f"cannot write {path}: {error}") from error


def emit(
    evaluation: Mapping[str, Any],
    *,
    json_file: str | None,
    html: Path | None,
    sweep: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Show an evaluation: tables unless JSON goes to the terminal, and the files asked for."""
    if json_file == "-":
        json.dump(evaluation, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        from bitline.report import tables

        tables.print_evaluation(evaluation)
        if sweep:
            tables.print_sweep(sweep)
        if json_file is not None:
            write_json(evaluation, Path(json_file))
            typer.echo(f"evaluation: {json_file}")
    if html is not None:
        from bitline.report import html as page

        typer.echo(f"page: {page.write(evaluation, html, sweep=sweep)}", err=json_file == "-")
