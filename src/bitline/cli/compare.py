"""``bitline compare``."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitline.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bitline.report.runs import Entry

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
    json_file: Json = None,
) -> None:
    """Compare runs: accuracy on the chip, row tiles, conversions, energy at equal work, area, latency."""
    from bitline.cli.output import check_outputs, give
    from bitline.report import compare
    from bitline.report.runs import chips, conditions, read, same_network

    check_outputs(json_file, html)
    entries = read(runs)
    compared = compare.comparison(entries)
    if not give(compared, json_file, "comparison"):
        _show(entries, compared)
    for difference in conditions(entries):
        typer.echo(f"warning: not the same conditions: {difference}", err=True)
    if chips(entries) and not same_network(entries):
        typer.echo(f"warning: not the same chip: {len(chips(entries))} keys differ", err=True)
    if html is not None:
        typer.echo(f"page: {compare.write(entries, html)}", err=json_file == "-")


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"


def _show(entries: "Sequence[Entry]", compared: dict[str, object]) -> None:
    from rich.console import Console

    from bitline.report import compare, terminal
    from bitline.report.measure import Measure

    measure = Measure(entries[0].evaluation.metric)
    console = Console(highlight=False)
    console.print(compare.title(entries), style="bold", markup=False)
    for sheet in (
        compare.summary(compared, measure),
        compare.recipes(compared, measure),
        compare.chip_differences(entries),
    ):
        terminal.print_sheet(terminal.turned(sheet, console), console)
    for line in compare.lead(compared, measure):
        console.print(line, markup=False)
