"""Where results go: terminal, JSON, page."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from bitline.files import write_json


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
            write_json(Path(json_file), evaluation)
            typer.echo(f"evaluation: {json_file}")
    if html is not None:
        from bitline.report import html as page

        typer.echo(f"page: {page.write(evaluation, html, sweep=sweep)}", err=json_file == "-")
