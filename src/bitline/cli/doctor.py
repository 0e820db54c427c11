"""``bitline doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitline.cli.given import Given, takes
from bitline.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import Console
    from rich.table import Table
    from torch import nn

    from bitline.chip import Chip

EXAMPLES = """
[bold]Examples[/]

bitline doctor

bitline doctor --explain vgg8 rram-22nm --set adc.bits=6

bitline doctor --explain runs/vgg8-cifar10 my-chip.toml --json paths.json

BITLINE_PATH=portable bitline doctor --explain lenet5 rram-22nm
"""
SEED = 0
IMAGES = 2


@takes(Given)
def command(
    given: Given,
    explain: Annotated[
        tuple[str, str] | None,
        typer.Option(
            "--explain",
            metavar="MODEL CHIP",
            help="Say how each layer of a network is computed on a chip. MODEL: a run directory, or what --model "
            "takes. CHIP: a preset (see bitline chips) or a TOML file.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any key of CHIP; repeatable.")
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(help="Channels of an image; default: 3, or those of the run or --data.")
    ] = None,
    classes: Annotated[int | None, typer.Option(help="Outputs of a named MODEL; default: 10.")] = None,
    json_file: Json = None,
) -> None:
    """Say which path products of crossbars take on this machine, and why no faster one."""
    from dataclasses import asdict

    from bitline import __version__
    from bitline.cli.output import check_outputs, give
    from bitline.errors import DataError
    from bitline.mvm.machine import machine

    sizes = {"--in-channels": in_channels, "--classes": classes}
    if given.model is not None:
        raise DataError(f"--model {given.model}: give it as --explain {given.model} CHIP")
    if explain is None and (overrides or given != Given() or any(each is not None for each in sizes.values())):
        raise DataError("options of a network and a chip need --explain MODEL CHIP")
    check_outputs(json_file)
    facts: dict[str, Any] = {"bitline": __version__, **asdict(machine())}
    if explain is not None:
        from bitline.chip import load
        from bitline.cli.subject import bare

        target = load(explain[1], overrides or ())
        of = bare(explain[0], given, in_channels=in_channels, classes=classes)
        facts["explain"] = {"model": explain[0], **explained(of.model, of.image, target)}
    if not give(facts, json_file, "doctor"):
        show(facts)
    if facts["choice"]["path"] is None:
        raise DataError(facts["choice"]["why"])


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"


def explained(network: nn.Module, image: tuple[int, int, int], chip: Chip) -> dict[str, Any]:
    """Put a network on a chip, with ranges from random images, and say how each layer is computed.

    Args:
        network: plain.
        image: (channels, height, width).
        chip: to put it on.
    """
    from dataclasses import asdict

    import torch

    from bitline.evaluation.explain import explain, summary
    from bitline.nn import calibrate, program, to_crossbar

    images = torch.randn(IMAGES, *image, generator=torch.Generator().manual_seed(SEED))
    model, report = to_crossbar(network.eval(), chip, example=images)
    calibrate(model, [images])
    program(model, SEED)
    layers = explain(model)
    return {
        "chip": chip.model_dump(mode="json"),
        "seed": SEED,
        "ranges": _ranges(chip, image),
        "layers": [asdict(layer) for layer in layers],
        "digital": [asdict(operation) for operation in report.digital],
        "summary": summary(layers),
    }


def _ranges(chip: Chip, image: tuple[int, int, int]) -> str:
    """Say where the ranges come from that paths were facts with."""
    what = "input and ADC ranges" if chip.adc.keeps_ranges else "input ranges"
    follow = "; ADC ranges follow each batch, here a random one" if chip.adc.policy == "batch_minmax" else ""
    shape = " x ".join(map(str, image))
    return f"{what} come from {IMAGES} random images of {shape}{follow}; with other ranges a path may be another"


def show(facts: Mapping[str, Any]) -> None:
    """Print what was facts."""
    from rich.console import Console

    console = Console(highlight=False)
    console.print(_facts(facts))
    console.print(_paths(facts))
    if "explain" in facts:
        _show_layers(facts["explain"], console)


def _facts(facts: Mapping[str, Any]) -> Table:
    from rich.markup import escape

    table = _table("", "", header=False)
    features, kernels, triton = facts["features"], facts["kernels"], facts["triton"]
    threads = f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''}"
    rows = [("bitline", facts["bitline"]), ("torch", f"{facts['torch']}, {threads}"), ("processor", facts["processor"])]
    if features is None:
        rows.append(("  features", "this system does not say"))
    else:
        rows += [
            (f"  {word}", " ".join(name for name, has in features.items() if has == here) or "nothing of note")
            for word, here in (("has", True), ("lacks", False))
        ]
    rows.append(("native kernels", "built" if kernels["built"] else kernels["why_not"]))
    if kernels["remedy"]:
        rows.append(("  remedy", kernels["remedy"]))
    rows.append(("GPU", facts["gpu"] or "none that PyTorch sees"))
    rows.append(("Triton", triton["why_not"] or "runs here"))
    for name, value in rows:
        table.add_row(f"[bold]{name}[/]", escape(value))
    return table


def _paths(facts: Mapping[str, Any]) -> Table:
    from rich.markup import escape

    table, chosen = _table("\npath", "\nfastest first"), facts["choice"]
    for path in facts["paths"]:
        taken = f"[bold]; chosen: {escape(chosen['why'])}[/]" if path["name"] == chosen["path"] else ""
        table.add_row(f"[bold]{path['name']}[/]", escape(path["why_not"] or "runs here") + taken)
    if chosen["path"] is None:
        table.add_row("[bold red]none chosen[/]", escape(chosen["why"]))
    return table


def _show_layers(explained: Mapping[str, Any], console: Console) -> None:
    from rich.console import Console as Wide
    from rich.markup import escape

    keys = ["name", "path", "sums", *["why"] * any(layer["why"] for layer in explained["layers"])]
    table = _table("\nlayer", *(f"\n{key}" for key in keys[1:]))
    for layer in explained["layers"]:
        table.add_row(*(escape(layer[key] or "") for key in keys))
    where = f"[bold]{escape(explained['model'])}[/] on [bold]{escape(explained['chip']['name'])}[/]"
    console.print(f"\n{where}, cells as programmed with seed {explained['seed']}", soft_wrap=True)
    Wide(width=max(console.width, 112), highlight=False).print(table)  # reasons stay on one line
    for operation in explained["digital"]:
        line = f"{operation['name']}: {operation['op']} stays digital: {operation['why']}"
        console.print(f"[dim]- {escape(line)}[/]", soft_wrap=True)
    console.print(f"[dim]- {escape(explained['ranges'])}[/]", soft_wrap=True)
    console.print(f"[bold]{escape(explained['summary'])}[/]", soft_wrap=True)


def _table(*heads: str, header: bool = True) -> Table:
    """Make a table whose last column alone is broken."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, show_header=header)
    for head in heads[:-1]:
        table.add_column(head, no_wrap=True)
    table.add_column(heads[-1], overflow="fold")
    return table
