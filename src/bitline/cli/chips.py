"""``bitline chips``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from bitline.cli.output import Json, check_outputs, give
from bitline.errors import DataError

if TYPE_CHECKING:
    from bitline.chip import Chip

EXAMPLES = """
[bold]Examples[/]

bitline chips

bitline chips show rram-22nm > my-chip.toml

bitline chips check my-chip.toml --set adc.bits=6
"""

app = typer.Typer(help=f"List, show and check chips.\n{EXAMPLES}", rich_markup_mode="rich")

Name = Annotated[str, typer.Argument(help="A preset or a TOML file.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key; repeatable.")]


@app.callback(invoke_without_command=True)
def table(context: typer.Context, json_file: Json = None) -> None:
    """List the chips that ship with bitline."""
    if context.invoked_subcommand is not None:
        if json_file is not None:
            raise DataError(f"--json {json_file} stands behind {context.invoked_subcommand}: it is of that command")
        return
    check_outputs(json_file)
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bitline.chip import load, presets
    from bitline.cost.adc import MEANINGS
    from bitline.units import pretty

    if give({name: load(name).model_dump(mode="json") for name in presets()}, json_file, "chips"):
        return
    rows = Table(box=None, pad_edge=False)
    for head in ("chip", "crossbar", "cell", "ADC", "node"):
        rows.add_column(head, no_wrap=True)
    rows.add_column("about, DOI", overflow="fold")
    for name in presets():
        chip = load(name)
        rows.add_row(
            f"[bold]{escape(name)}[/]",
            f"{chip.crossbar.rows} x {chip.crossbar.cols}",
            f"{chip.cell.bits} bit",
            f"{chip.adc.bits} bit, {chip.adc.model}",
            pretty(chip.node, "m"),
            f"{escape(chip.about)}\n[dim]{escape(chip.doi or 'made up, not published')}[/]",
        )
    console = Console()
    console.print(rows)
    meanings = ", ".join(f"{model}: {meaning}" for model, meaning in MEANINGS.items())
    console.print(f"\n[dim]What prices the ADC (adc.model): {escape(meanings)}.[/]", soft_wrap=True, highlight=False)


@app.command()
def show(chip: Name, json_file: Json = None, overrides: Overrides = None) -> None:
    """Print a chip: its file with comments; --json: every key, with defaults filled in."""
    from bitline.chip import load
    from bitline.chip.files import source
    from bitline.errors import ChipError

    if json_file is not None:
        check_outputs(json_file)
        give(load(chip, overrides or ()).model_dump(mode="json"), json_file, "chip")
    elif overrides:
        raise ChipError("--set changes what a chip is, not its file; add --json")
    else:
        typer.echo(source(chip), nl=False)


@app.command()
def check(chip: Name, overrides: Overrides = None, json_file: Json = None) -> None:
    """Say what a chip offers and which keys do nothing, or everything that is wrong with it."""
    from bitline.chip import load

    check_outputs(json_file)
    described = load(chip, overrides or ())
    from bitline.evaluation.idle_keys import check_priced, idle_keys

    check_priced(described)
    lines, idle = offers(described), idle_keys(described)
    if give({"chip": described.model_dump(mode="json"), "offers": lines, "idle": idle}, json_file, "check"):
        return
    typer.echo("\n".join(lines))
    if idle:
        typer.echo(f"  no effect {', '.join(idle)}")
        typer.echo(
            "            (other values of one of these change neither what a small network answers nor its cost)"
        )


def offers(chip: Chip) -> list[str]:
    """Describe what a chip can hold and tell apart, a line each."""
    from bitline.cost.adc import MEANINGS
    from bitline.units import pretty

    crossbar, adc = chip.crossbar, chip.adc
    low, high = chip.sum_limits
    reference = " beside a reference column" if chip.reference_columns else ""
    tiles = f", {crossbar.row_tiles} row tiles of {crossbar.active_rows}" if crossbar.row_tiles > 1 else ""
    leak = "" if chip.cell.leak == "cancelled" else "; with the leak kept, sums lie between levels and always round"
    return [
        f"{chip.name}: {crossbar.rows} x {crossbar.cols} crossbars{tiles}, {pretty(chip.node, 'm')}",
        f"  weights   {chip.weights.bits} bits as {chip.weights.encoding.kind} in {chip.cells_per_weight} cells of "
        f"{chip.cell.bits} bits; {chip.weight_columns} weight columns a crossbar{reference}",
        f"  inputs    {chip.inputs.bits} bits, {chip.dac.bits} at a time",
        f"  sums      {low} to {high} levels",
        f"  ADC       {adc.bits} bits, {adc.policy}; lossless from {chip.lossless_bits} bits{leak}; priced by model "
        f"{adc.model} ({MEANINGS[adc.model]})",
    ]
