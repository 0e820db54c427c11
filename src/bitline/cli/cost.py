"""``bitline cost``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from bitline.cli.given import SPECS, Given, takes
from bitline.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from bitline.chip import Chip
    from bitline.cli.subject import Bare
    from bitline.cost.computing import ComputingCost
    from bitline.cost.model import Cost
    from bitline.mapping.place import Placement
    from bitline.network.digital import DigitalOperation

EXAMPLES = """
[bold]Examples[/]

bitline cost vgg8 --chip rram-22nm

bitline cost resnet20 --chip isaac-32nm --set adc.model=survey --json cost.json

bitline cost nets/mine.py:Net --in-channels 1 --image-size 28 --chip my-chip.toml --mapping depthwise=packed
"""


@takes(Given)
def command(
    given: Given,
    name: Annotated[
        str | None, typer.Argument(metavar="[MODEL]", help=f"A run directory, or what --model takes: {SPECS}.")
    ] = None,
    chip: Annotated[
        str | None,
        typer.Option(
            help="A preset (see bitline chips) or a TOML file; default: that of a recipe's run, or rram-22nm."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key; repeatable.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(help="LAYER or KIND=STRATEGY, for example depthwise=strip, repeatable; or auto[=OBJECTIVE]."),
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(help="Channels of an image; default: 3, or those of the run or --data.")
    ] = None,
    classes: Annotated[
        int | None, typer.Option(help="Outputs of a model that is told; default: 10, or those of --data.")
    ] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="All wordlines driven, instead of half of the bits.")] = False,
    computing: Annotated[
        bool, typer.Option("--computing", help="Also power and area of crossbars, tables and multipliers alone.")
    ] = False,
    json_file: Json = None,
) -> None:
    """Price one image of a network on a chip: energy, latency, area; no training, no data needed.

    Images are 32 px unless --image-size or --data says else. Weights are random unless there are some: only crossbars
    that are all zero depend on them.
    """
    from dataclasses import asdict, replace

    from bitline.cli.output import check_outputs, give
    from bitline.cli.subject import bare, is_run
    from bitline.cli.target import target
    from bitline.cost.computing import computing as compute
    from bitline.cost.computing import multiplies
    from bitline.cost.model import price
    from bitline.errors import ConversionError

    check_outputs(json_file)
    on = target(None if name is None else Path(name), chip, overrides, mapping)
    of = bare(name, given, in_channels=in_channels, classes=classes)
    try:
        placed = placed_network(of, on.chip, on.mapping, on.ranges)
    except ConversionError as error:
        known = given.data is not None or None not in (given.image_size, in_channels)
        if known or (name is not None and is_run(name)):
            raise
        raise ConversionError(f"{error}; --in-channels and --image-size say what an image is") from error
    where, digital = placed.placement, placed.digital
    cost = price(where, fixed=fixed, poolings=placed.poolings)
    if of.assumed:
        cost = replace(cost, notes=(*cost.notes, of.assumed))
    alone = compute(where, fp_multipliers=multiplies(on.chip)) if computing else None
    content = {"model": of.name, **cost.to_json(), "digital": [asdict(each) for each in digital]} | (
        {} if alone is None else {"computing": alone.to_json()}
    )
    if give(content, json_file, "cost"):
        return
    show(of.name, cost)
    _show_digital(placed)
    if alone is not None:
        _show_computing(alone)


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"


class Placed(NamedTuple):
    """A network on a chip.

    Args:
        placement: of its layers.
        poolings: activations that pooling units read, by layer.
        digital: operations with weights, and products, that stay off the crossbars.
    """

    placement: Placement
    poolings: dict[str, int]
    digital: tuple[DigitalOperation, ...]


def placed_network(of: Bare, chip: Chip, mapping: Sequence[str] = (), ranges: Path | None = None) -> Placed:
    """Place a network as `bitline.evaluation` does, without its data.

    Args:
        of: the network; of one that was trained, crossbars that are all zero are left out.
        chip: to place it on.
        mapping: as on the command line.
        ranges: that were trained; what was digital then stays so.

    Raises:
        ConversionError: no layer that a crossbar can hold, or an image that the network does not take.
    """
    import torch

    from bitline.cost.choose_mapping import resolve
    from bitline.evaluation.on_chip import mapped_as_trained
    from bitline.network.trace import MAPPED, matmuls, poolings
    from bitline.nn import placement

    layout = resolve(mapping, lambda: matmuls(of.model, of.image), chip)
    example = torch.zeros(1, *of.image)
    if not of.trained:  # a weight that begins at zero will not stay there
        for layer in of.model.modules():
            if isinstance(layer, MAPPED):
                layer.weight.data[layer.weight == 0] = 1.0
    model, report = mapped_as_trained(of.model, chip, example, layout, ranges)
    layers = [layer.matmul.name for layer in report.layers]
    return Placed(placement(model), poolings(of.model, example, layers), report.digital)


def _show_digital(placed: Placed) -> None:
    """Say what the numbers are without."""
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    for each in placed.digital:
        macs = f", {each.macs:,} MACs" if each.macs else ""
        line = f"{each.name}: {each.op} stays digital{macs}: {each.why}"
        console.print(f"[dim]- {escape(line)}[/]", soft_wrap=True)


def _show_computing(alone: ComputingCost) -> None:
    from rich.console import Console

    parts = ", ".join(
        f"{name} {1e3 * part.power_W:.4g} mW, {1e6 * part.area_m2:.4g} mm2" for name, part in alone.parts.items()
    )
    Console().print(
        f"\n  computing   [bold]{1e3 * alone.power_W:.4g} mW[/], [bold]{1e6 * alone.area_m2:.4g} mm2[/] ({parts})",
        soft_wrap=True,
        highlight=False,
    )


def show(model: str, cost: Cost) -> None:
    """Print totals, breakdowns and layers."""
    from rich.columns import Columns
    from rich.console import Console
    from rich.markup import escape

    from bitline.cost.adc import MEANINGS
    from bitline.report.text import quantity

    console = Console()
    spread = sorted(cost.adc_range, key=lambda name: cost.adc_range[name].energy_J)
    models = [f"{quantity(cost.adc_range[name].energy_J, 'J')} {name} ({MEANINGS[name]})" for name in spread]
    energy, latency, interval = (
        quantity(cost.energy_J, "J"),
        quantity(cost.latency_s, "s"),
        quantity(cost.interval_s, "s"),
    )
    for line in (
        f"\n[bold]{escape(model)}[/] on [bold]{escape(cost.chip)}[/], one image",
        f"  energy      [bold]{energy}[/] with ADC model {cost.adc_model} ({MEANINGS[cost.adc_model]}); among all",
        f"              {', '.join(models)}",
        f"  latency     [bold]{latency}[/]; pipelined, one image every {interval}",
        f"  area        [bold]{quantity(cost.area_m2, 'm2')}[/]; {cost.crossbars} crossbars in use, "
        f"{cost.crossbars_built} built, in {cost.tiles} tiles",
        f"  efficiency  [bold]{cost.tops_per_watt:.3g} TOPS/W[/]; pipelined, {cost.tops:.3g} TOPS",
        f"  work        {cost.macs:,} MACs of two operations, {cost.conversions:,} conversions\n",
    ):
        console.print(line, soft_wrap=True)
    parts = (("energy", "J", cost.energy_parts), ("area", "m2", cost.area_parts), ("latency", "s", cost.latency_parts))
    console.print(Columns([_shares(*part) for part in parts], padding=(0, 4)))
    Console(width=max(console.width, 112)).print(_layers(cost))  # names stay whole in narrow terminals
    for note in cost.notes:
        console.print(f"[dim]- {escape(note)}[/]", highlight=False, soft_wrap=True)


def _shares(title: str, unit: str, parts: Mapping[str, float]) -> Table:
    """Lay out a breakdown, largest part first; parts of zero are left out."""
    from rich.markup import escape
    from rich.table import Table

    from bitline.report.text import column

    total = sum(parts.values())
    scale = column([total], unit)
    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column(escape(f"{title} [{scale.unit}]"), justify="right")
    table.add_column("%", justify="right")
    for part, value in sorted(parts.items(), key=lambda item: -item[1]):
        if value:
            table.add_row(part, f"{value / scale.factor:.4g}", f"{100 * value / total:.1f}")
    table.add_row("[bold]total[/]", f"[bold]{total / scale.factor:.4g}[/]", "")
    return table


def _layers(cost: Cost) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from bitline.report.text import column

    # under the prefixes of the totals, so that all figures compare
    totals = ((cost.energy_J, "J"), (cost.latency_s, "s"), (cost.area_m2, "m2"))
    energy, latency, area = (column([total], unit) for total, unit in totals)
    heads = (
        "row\ntiles",
        "cross-\nbars",
        "used\n%",
        "conversions\n[1000]",
        f"energy\n[{energy.unit}]",
        f"latency\n[{latency.unit}]",
        f"area\n[{area.unit}]",
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("\nlayer", no_wrap=True)
    table.add_column("rows x cols\n(x groups)", no_wrap=True)
    grouped = any(layer.groups > 1 or layer.strategy != "dense" for layer in cost.layers)
    if grouped:
        table.add_column("\nmapping", no_wrap=True)
    for head in heads:
        table.add_column(escape(head), justify="right", no_wrap=True)
    for layer in cost.layers:
        groups = f" x {layer.groups}" if layer.groups > 1 else ""
        mapped = [layer.strategy] if grouped else []
        table.add_row(
            layer.name,
            f"{layer.rows} x {layer.cols}{groups}",
            *mapped,
            str(layer.row_tiles),
            str(layer.crossbars),
            f"{100 * layer.utilization:.0f}",
            f"{layer.conversions / 1000:,.0f}",
            f"{layer.energy_J / energy.factor:.4g}",
            f"{layer.latency_s / latency.factor:.4g}",
            f"{layer.area_m2 / area.factor:.4g}",
        )
    return table
