"""``bitline sweep``."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bitline.cli.given import Given, takes
from bitline.cli.output import Json
from bitline.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bitline.evaluation import Variant

EXAMPLES = """
[bold]Examples[/]

bitline sweep runs/vgg8-cifar10 --vary adc.bits=3,4,5,6 --chip rram-22nm --images 500 --html bits.html

bitline sweep runs/vgg8-cifar10 --vary adc.bits=4,5 --vary cell.programming.sigma=0,0.1,0.2 --out runs/bits

bitline sweep runs/vgg8-cifar10 --vary adc.bits=4,5 --vary cell.programming.sigma=0,0.1,0.2 --out runs/bits --resume

bitline sweep --model nets/mine.py:Net --weights mine.safetensors --data cifar10 --vary crossbar.rows=64,128 --json -
"""


@takes(Given)
def command(
    ctx: typer.Context,
    given: Given,
    run: Annotated[Path | None, typer.Argument(help="Run directory of bitline train, import or optimize.")] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(help="KEY=VALUE,VALUE ... of a chip key, repeatable: every combination is measured."),
    ] = None,
    chip: Annotated[
        str | None, typer.Option(help="A preset (see bitline chips) or a file; default: the run's, else rram-22nm.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key, at every point; repeatable.")
    ] = None,
    mapping: Annotated[
        list[str] | None, typer.Option(help="LAYER or KIND=STRATEGY, repeatable; or auto[=OBJECTIVE].")
    ] = None,
    chips: Annotated[int, typer.Option(help="Programmed chips at each point.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the first chip.")] = 0,
    images: Annotated[int | None, typer.Option(help="Test images, from the first; default: all.")] = None,
    calibration_images: Annotated[int, typer.Option(help="Training images that set the ranges.")] = 256,
    in_turn: Annotated[bool, typer.Option("--in-turn", help="Fit ADC ranges layer after layer.")] = False,
    simulation: Annotated[
        Literal["exact", "surrogate"],
        typer.Option(help="Every conversion, or one plain product with noise that stands for them."),
    ] = "exact",
    workers: Annotated[int, typer.Option(help="Processes that ask chips at once; the figures are the same.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each process.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder that keeps each finished point for good (sweep.json).")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after the points that were finished.")] = False,
    json_file: Json = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
) -> None:
    """Measure a trained network on chips that differ in a few keys: accuracy beside energy, the best ones marked."""
    from bitline.cli.idle import refuse_idle
    from bitline.cli.output import outputs
    from bitline.cli.stop import stoppable
    from bitline.cli.subject import subject
    from bitline.cli.target import target
    from bitline.cost.choose_mapping import resolve
    from bitline.evaluation.finished import FILE, Place
    from bitline.evaluation.grid import points
    from bitline.evaluation.public import sweep
    from bitline.network.trace import matmuls
    from bitline.train.hardware import set_threads

    keys = read_vary(vary or [])
    count = len(points(keys))
    Place(out, resume=resume, cached=True).check()
    on = target(run, chip, overrides, mapping)
    trained = None if on.ranges is None else f"the ranges are those that were trained, {on.ranges}"
    calibrates = simulation == "surrogate" or on.chip.weights.bias_bits is not None
    refuse_idle(ctx, {"--calibration-images": None if calibrates else trained})
    set_threads(threads)
    kept = None if out is None else out / FILE
    advice = f"points that are finished are kept{'' if kept is None else f' in {kept}'}"
    with outputs(json_file, html, kept), stoppable(f"{advice}: the same command with --resume goes on after them"):
        of = subject(run, given)
        chosen = resolve(on.mapping, lambda: matmuls(of.model, of.image), on.chip)
        with _progress(count, shown=json_file != "-") as done:
            result = sweep(
                of.model,
                on.chip,
                keys,
                of.data,
                chips=chips,
                seed=seed,
                workers=workers,
                mapping=chosen,
                simulation=simulation,
                calibration_samples=calibration_images,
                images=images,
                in_turn=in_turn,
                ranges=on.ranges,
                name=of.name,
                out=out,
                resume=resume,
                keep=True,
                done=done,
            )
        from bitline.files import json_text
        from bitline.report import notebook, terminal

        told = [] if kept is None else [f"sweep: {kept}"]
        if json_file not in (None, "-"):
            result.to_json(json_file)
            told.append(f"sweep: {json_file}")
        if html is not None:
            told.append(f"page: {notebook.page(result, html)}")
        if json_file == "-":
            typer.echo(json_text(result.to_json()))
        else:
            typer.echo("\n".join(str(result).splitlines()[:2]))
            terminal.print_sweep(result.variants)
        for line in told:
            typer.echo(line, err=json_file == "-")


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"


def read_vary(given: list[str]) -> dict[str, list[str]]:
    """Read KEY=VALUE,VALUE ...; a comma within brackets or quotes is part of a value.

    Raises:
        DataError: none is given, one has no values, or a key is given twice.
    """
    if not given:
        raise DataError("nothing varies; give --vary KEY=VALUE,VALUE, for example --vary adc.bits=4,5,6")
    keys: dict[str, list[str]] = {}
    for text in given:
        key, equals, values = text.partition("=")
        key, parts = key.strip(), [part.strip() for part in _split(values)]
        if not equals or not key or not all(parts):
            raise DataError(f"--vary {text}: expected KEY=VALUE,VALUE, for example adc.bits=4,5,6")
        if key in keys:
            raise DataError(f"--vary {key} is given twice; give all of its values at once")
        keys[key] = parts
    return keys


def _split(values: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in values:
        if letter == "," and not depth and not quote:
            parts.append("")
            continue
        parts[-1] += letter
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "\"'":
            quote = letter
        else:
            depth += (letter in "[{") - (letter in "]}")
    return parts


@contextmanager
def _progress(count: int, *, shown: bool) -> "Generator[Callable[[Variant], None]]":
    """Show how many points are finished."""
    import sys

    if not shown or not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("points"), BarColumn(30), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True, console=Console(stderr=True)) as progress:
        bar = progress.add_task("", total=count)
        yield lambda _: progress.advance(bar)
