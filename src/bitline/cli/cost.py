"""``bitline cost``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from bitline.chip import Chip
    from bitline.cost.computing import ComputingCost
    from bitline.cost.model import Cost
    from bitline.mapping.place import Placement

EXAMPLES = """
[bold]Examples[/]

bitline cost vgg8 --chip rram-22nm

bitline cost resnet20 --chip isaac-32nm --set adc.model=survey --json cost.json

bitline cost nets/mine.py:Net --in-channels 1 --image-size 28 --chip my-chip.toml --mapping depthwise=packed
"""


def command(
    model: Annotated[
        str, typer.Argument(help="vgg8, vgg16, resnet20, resnet56, lenet5, FILE.py:NAME, or a run directory.")
    ],
    file: Annotated[Path | None, typer.Argument(help="With --json: write there instead of printing.")] = None,
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
    width: Annotated[
        float | None, typer.Option(help="Multiplies the hidden channels of a named model; default: 1.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Height and width of an image, px; default: 32, or the run's.")
    ] = None,
    in_channels: Annotated[int | None, typer.Option(help="Channels of an image; default: 3, or the run's.")] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs of a named model; default: 10.")] = None,
    fixed: Annotated[bool, typer.Option("--fixed", help="All wordlines driven, instead of half of the bits.")] = False,
    computing: Annotated[
        bool, typer.Option("--computing", help="Also power and area of crossbars, tables and multipliers alone.")
    ] = False,
    trust_code: Annotated[bool, typer.Option(help="Run the Python file that the run directory names.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Price one image of a network on a chip: energy, latency, area; no training, no data."""
    from bitline.cli.output import check_outputs
    from bitline.cli.target import refuse_beside_run, target
    from bitline.cost.computing import computing as compute
    from bitline.cost.computing import multiplies
    from bitline.cost.model import price
    from bitline.errors import ConversionError, DataError
    from bitline.models.files import is_file_spec

    if file is not None and not as_json:
        raise DataError(f"{file}: a file is written with --json only")
    check_outputs(file)
    on = target(Path(model), chip, overrides, mapping)
    if _is_run(model):
        given = {"--width": width, "--image-size": image_size, "--in-channels": in_channels, "--classes": classes}
        refuse_beside_run(Path(model), given)
    elif is_file_spec(model) and (width is not None or classes is not None):
        raise DataError(f"{model} takes no --width and no --classes; these are for named models")
    size = 32 if image_size is None else image_size
    image = (3 if in_channels is None else in_channels, size, size)
    width, classes = 1.0 if width is None else width, 10 if classes is None else classes
    try:
        where, pooled = placed_network(
            model, on.chip, image, width=width, classes=classes, mapping=on.mapping, trust_code=trust_code
        )
    except ConversionError as error:
        if _is_run(model) or None not in (image_size, in_channels):
            raise
        raise ConversionError(f"{error}; --in-channels and --image-size say what an image is") from error
    cost = price(where, fixed=fixed, poolings=pooled)
    alone = compute(where, fp_multipliers=multiplies(on.chip)) if computing else None
    content = {"model": model, **cost.to_json()} | ({} if alone is None else {"computing": alone.to_json()})
    if file is not None:
        from bitline.files import write_json

        write_json(file, content)
        typer.echo(f"cost: {file}")
    elif as_json:
        from bitline.files import json_text

        typer.echo(json_text(content))
    else:
        show(model, cost)
        if alone is not None:
            _show_computing(alone)


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"


def _is_run(model: str) -> bool:
    """Whether a run directory is meant, be it damaged, rather than a name or a file."""
    from bitline.files import RECORD
    from bitline.models import names

    return (Path(model) / RECORD).is_file() or (model not in names() and Path(model).is_dir())


def placed_network(
    model: str,
    chip: Chip,
    image: tuple[int, int, int],
    *,
    width: float = 1.0,
    classes: int = 10,
    mapping: Sequence[str] = (),
    trust_code: bool = False,
) -> tuple[Placement, dict[str, int]]:
    """Build a network and place it.

    Args:
        model: a name, ``FILE.py:NAME``, or a run directory, whose removed crossbars are left out.
        chip: to place it on.
        image: (channels, height, width).
        width: of a named model.
        classes: of a named model.
        mapping: as on the command line.
        trust_code: run the Python file that a run directory names.

    Returns:
        The placement, and the activations that pooling units read, by layer.
    """
    import torch

    from bitline.cost.choose_mapping import resolve
    from bitline.errors import ConversionError
    from bitline.mapping.place import place
    from bitline.mapping.strategies import choose
    from bitline.models.files import is_file_spec, load_run, make
    from bitline.network.trace import matmuls, poolings
    from bitline.programming.cells import absent_blocks

    trained = _is_run(model)
    if trained:
        run = load_run(Path(model), trust_code=trust_code)
        network, image = run.model, (run.record.channels, run.record.image_size, run.record.image_size)
    else:
        options = {"width": width, "in_channels": image[0], "image_size": image[1], "num_classes": classes}
        network = make(model, **({} if is_file_spec(model) else options)).eval()
    products = matmuls(network, image)
    if not products:
        raise ConversionError(f"{model} has no layer that a crossbar can hold")
    pooled = poolings(network, torch.zeros(1, *image), [matmul.name for matmul in products])
    layout = resolve(mapping, lambda: products, chip)
    chosen = choose(products, layout or {})
    layers = dict(network.named_modules())
    absent = {m.name: absent_blocks(layers[m.name], m, chip, chosen[m.name]) for m in products} if trained else {}  # pyright: ignore[reportArgumentType]
    return place(products, chip, layout, absent), pooled


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
    from bitline.units import pretty

    console = Console()
    spread = sorted(cost.adc_range, key=lambda name: cost.adc_range[name].energy_J)
    models = [f"{pretty(cost.adc_range[name].energy_J, 'J')} {name} ({MEANINGS[name]})" for name in spread]
    energy, latency, interval = pretty(cost.energy_J, "J"), pretty(cost.latency_s, "s"), pretty(cost.interval_s, "s")
    for line in (
        f"\n[bold]{escape(model)}[/] on [bold]{escape(cost.chip)}[/], one image",
        f"  energy      [bold]{energy}[/] with ADC model {cost.adc_model} ({MEANINGS[cost.adc_model]}); among all",
        f"              {', '.join(models)}",
        f"  latency     [bold]{latency}[/]; pipelined, one image every {interval}",
        f"  area        [bold]{cost.area_m2 * 1e6:.4g} mm2[/]; {cost.crossbars} crossbars in use, "
        f"{cost.crossbars_built} built, in {cost.tiles} tiles",
        f"  efficiency  [bold]{cost.tops_per_watt:.3g} TOPS/W[/]; pipelined, {cost.tops:.3g} TOPS",
        f"  work        {cost.macs:,} MACs of two operations, {cost.conversions:,} conversions\n",
    ):
        console.print(line, soft_wrap=True)
    parts = (
        ("energy [uJ]", 1e6, cost.energy_parts),
        ("area [mm2]", 1e6, cost.area_parts),
        ("latency [us]", 1e6, cost.latency_parts),
    )
    console.print(Columns([_shares(title, factor, values) for title, factor, values in parts], padding=(0, 4)))
    Console(width=max(console.width, 112)).print(_layers(cost))  # names stay whole in narrow terminals
    for note in cost.notes:
        console.print(f"[dim]- {escape(note)}[/]", highlight=False, soft_wrap=True)


def _shares(title: str, factor: float, parts: Mapping[str, float]) -> Table:
    """Lay out a breakdown, largest part first; parts of zero are left out."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("part")
    table.add_column(escape(title), justify="right")
    table.add_column("%", justify="right")
    total = sum(parts.values())
    for part, value in sorted(parts.items(), key=lambda item: -item[1]):
        if value:
            table.add_row(part, f"{factor * value:.4g}", f"{100 * value / total:.1f}")
    table.add_row("[bold]total[/]", f"[bold]{factor * total:.4g}[/]", "")
    return table


def _layers(cost: Cost) -> Table:
    from rich.markup import escape
    from rich.table import Table

    heads = (
        "row\ntiles",
        "cross-\nbars",
        "used\n%",
        "conversions\n[1000]",
        "energy\n[uJ]",
        "latency\n[us]",
        "area\n[mm2]",
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
            f"{1e6 * layer.energy_J:.4g}",
            f"{1e6 * layer.latency_s:.4g}",
            f"{1e6 * layer.area_m2:.4g}",
        )
    return table
