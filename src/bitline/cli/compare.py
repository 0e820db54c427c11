"""``bitline compare``."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
[bold]Examples[/]

bitline compare runs/vgg8-cifar10 runs/group-vgg8-cifar10 runs/separable-vgg8-cifar10 --html compare.html

bitline compare before.json after.json --json compare.json
"""


def command(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories with an evaluation.json, or such files; the first is the unit."),
    ],
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
    json_file: Annotated[str | None, typer.Option("--json", help="Write the comparison here; - prints it.")] = None,
) -> None:
    """Compare runs: accuracy on the chip, row tiles, conversions, energy at equal work, area, latency."""
    from bitline.cli.output import check_outputs
    from bitline.report import compare
    from bitline.report.runs import read

    check_outputs(json_file, html)
    entries = read(runs)
    compared = compare.comparison(entries)
    if json_file == "-":
        from bitline.files import json_text

        typer.echo(json_text(compared))
    else:
        _show(compared)
        if json_file is not None:
            from bitline.files import write_json

            write_json(Path(json_file), compared)
            typer.echo(f"comparison: {json_file}")
    for difference in compared["differences"]:
        typer.echo(f"warning: not the same conditions: {difference}", err=True)
    if html is not None:
        typer.echo(f"page: {compare.write(entries, html)}", err=json_file == "-")


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"


def _show(compared: dict[str, object]) -> None:
    from rich.console import Console

    from bitline.report import compare, terminal

    console = Console(highlight=False)
    for sheet in (compare.summary(compared), compare.recipes(compared)):
        terminal.print_sheet(sheet, console)
    for line in compare.lead(compared):
        console.print(line, markup=False)
