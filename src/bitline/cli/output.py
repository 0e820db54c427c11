"""Where results go: terminal, JSON, page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from bitline.files import json_text, write_json

if TYPE_CHECKING:
    from bitline.evaluate import Evaluation


def emit(evaluation: Evaluation, *, json_file: str | None, html: Path | None) -> None:
    """Show an evaluation: tables unless JSON goes to the terminal, and the files asked for."""
    told: list[str] = []
    if json_file not in (None, "-"):  # files first: whoever reads the terminal may stop reading
        write_json(Path(json_file), evaluation.to_json())
        told.append(f"evaluation: {json_file}")
    if html is not None:
        from bitline.report import html as page

        told.append(f"page: {page.write(evaluation, html)}")
    if json_file == "-":
        typer.echo(json_text(evaluation.to_json()))
    else:
        from bitline.report import terminal

        terminal.print_evaluation(evaluation)
    for line in told:
        typer.echo(line, err=json_file == "-")
