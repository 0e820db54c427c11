"""``bitline study``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bitline.cli.given import Given, takes
from bitline.cli.output import Json

if TYPE_CHECKING:
    from collections.abc import Mapping

app = typer.Typer(help="Measure a trained network under many settings.", no_args_is_help=True)

EXAMPLES = """
[bold]Examples[/]

bitline study partial-sums runs/vgg8-cifar10 --chip rram-22nm --set adc.bits=4 --images 500 --chips 3 --out runs/study

bitline study partial-sums runs/vgg8-cifar10 --out runs/study --resume   [dim]# the same command after a kill[/]

bitline study partial-sums runs/lenet5-digits --rows 64,128 --bits 3,4,5 --ranges full,slice_digit --out runs/small

bitline study partial-sums runs/vgg8-cifar10 --quantization-aware runs/aware --psum-aware runs/psum --out runs/study
"""


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Measure a trained network under many settings."""


@app.command(name="partial-sums", help=f"Measure what partial sums cost a trained network: three lessons.\n{EXAMPLES}")
@takes(Given)
def partial_sums(
    given: Given,
    out: Annotated[Path, typer.Option(help="Where study.json and study.html are written.")],
    run: Annotated[Path | None, typer.Argument(help="Run directory of bitline train, import or optimize.")] = None,
    chip: Annotated[str, typer.Option(help="A preset (see bitline chips) or a TOML file.")] = "rram-22nm",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key; repeatable.")
    ] = None,
    quantization_aware: Annotated[
        Path | None, typer.Option(help="Run directory of the network trained with the chip's integers.")
    ] = None,
    psum_aware: Annotated[
        Path | None, typer.Option(help="Run directory of the network trained with the chip's partial sums.")
    ] = None,
    chips: Annotated[int, typer.Option(help="Programmed chips.")] = 3,
    seed: Annotated[int, typer.Option(help="Seed of the first chip.")] = 0,
    images: Annotated[int | None, typer.Option(help="Test images, from the first; default: all.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 64,
    calibration_images: Annotated[int, typer.Option(help="Training images that set the ranges.")] = 256,
    layer_images: Annotated[int, typer.Option(help="Test images for the layers alone.")] = 8,
    tile_rows: Annotated[
        str, typer.Option(help="Wordlines driven at once in the experiment at one LSB; none leaves it out.")
    ] = "32,64,128,256,512",
    rows: Annotated[str, typer.Option(help="Crossbar heights of the grid.")] = "32,64,128,256",
    bits: Annotated[str, typer.Option(help="ADC bits of the grid.")] = "3,4,5,6,7,8",
    ranges: Annotated[
        str, typer.Option(help="ADC range policies of the grid: full, or calibrated for each of the others.")
    ] = "full,layer,slice,slice_digit,column",
    simulation: Annotated[
        Literal["exact", "surrogate"],
        typer.Option(
            help="exact, or surrogate: it estimates the grid, and those far below the best of their ADC stay estimates."
        ),
    ] = "exact",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in --out.")] = False,
    json_file: Json = None,
) -> None:
    """Measure what partial sums cost a trained network."""
    from bitline.chip import files
    from bitline.cli.imported import run_of
    from bitline.cli.output import check_outputs, give
    from bitline.cli.stop import stoppable
    from bitline.errors import DataError
    from bitline.report import study as page
    from bitline.study import Plan, Runs
    from bitline.study import partial_sums as measure
    from bitline.train.hardware import set_threads

    target = files.load(chip, overrides or ())
    plan = Plan(
        chips=chips,
        seed=seed,
        images=images,
        batch_size=batch_size,
        calibration_images=calibration_images,
        layer_images=layer_images,
        tile_rows=_numbers("--tile-rows", tile_rows),
        rows=_numbers("--rows", rows),
        bits=_numbers("--bits", bits),
        ranges=tuple(_words(ranges)),
        simulation=simulation,
        progress=json_file != "-",
    )
    set_threads(threads)
    check_outputs(json_file, out / "study.json", out / "study.html")
    if (out / "study.html").exists() and not (out / "study.json").exists():
        raise DataError(f"{out / 'study.html'} is the page of something else: choose another --out")
    runs = Runs(*_networks(*run_of(run, given), quantization_aware, psum_aware))
    with stoppable("the same command with --resume goes on from the last point"):
        result = measure(runs, target, plan, out / "study.json", resume=resume)
    place = page.write(result, out / "study.html")
    if not give(result, json_file, "study"):
        _show(result)
        typer.echo(f"numbers: {out / 'study.json'}\npage: {place}")


@app.command(name="adc-rounding")
def adc_rounding(
    chip: Annotated[str, typer.Option(help="A preset (see bitline chips) or a TOML file.")] = "crimp-32nm",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key; repeatable.")
    ] = None,
    columns: Annotated[int, typer.Option(help="Columns drawn for each row of the table.")] = 4000,
    seed: Annotated[int, typer.Option(help="Of the draws.")] = 0,
    json_file: Json = None,
) -> None:
    """Tell what an ADC that rounds to whole levels leaves of the errors of cells; no network, no data."""
    from bitline.chip import files
    from bitline.cli.output import check_outputs, give
    from bitline.errors import DataError
    from bitline.study.adc_rounding import adc_rounding as measure

    check_outputs(json_file)
    if columns < 2:
        raise DataError(f"--columns is {columns}; allowed: 2 or more")
    result = measure(files.load(chip, overrides or ()), columns=columns, seed=seed)
    if not give(result, json_file, "rounding"):
        _show_rounding(result)


def _show_rounding(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    heads = ("err\n%", "mean\n[levels]", "mean |error|\n[levels]", "power, rounded\nover not")
    for key, first in (("table", ("sigma", "rule: height\nat most", "height")), ("heights", ("height",))):
        table = Table(box=None, pad_edge=False)
        for head in (*first, *heads):
            table.add_column(escape(head), justify="right")
        for row in result[key]:
            lead = (
                [f"{row['sigma']:g}", str(row["rule"]), str(row["height"])] if key == "table" else [str(row["height"])]
            )
            ratio = f"{row['power'] / row['unrounded']:.2f}" if row["unrounded"] else "-"
            table.add_row(*lead, f"{100 * row['nonzero']:.0f}", f"{row['mean']:.2f}", f"{row['mean_abs']:.2f}", ratio)
        title = f"{result['rows']} rows on {result['chip']}, by height" if key == "heights" else "half of the inputs 1"
        console.print(f"\n[bold]{escape(title)}[/]")
        console.print(table)
    console.print(f"\n{escape(result['statement'])}", soft_wrap=True)


def _networks(run: Path, given: Given, quantization_aware: Path | None, psum_aware: Path | None) -> list[Any]:
    """Load the run under study and those it is compared with, None where none is given; all on the same data.

    Raises:
        DataError: a run cannot be loaded, or was trained on other data.
    """
    from bitline.cli.subject import subject
    from bitline.errors import DataError
    from bitline.study.runs import network

    of = subject(run, given)
    networks: list[Any] = [network(run, of.data, of.name, trust_code=given.trust_code)]
    for path in (quantization_aware, psum_aware):
        if path is None:
            networks.append(None)
            continue
        other = subject(path, given)
        if (other.data.title, other.data.image_size) != (of.data.title, of.data.image_size):
            raise DataError(
                f"{path} was trained on {other.data.title} at {other.data.image_size} px; {run} on {of.data.title} at "
                f"{of.data.image_size} px: give runs of the same data"
            )
        networks.append(network(path, of.data, other.name, trust_code=given.trust_code))
    return networks


def _words(given: str) -> list[str]:
    return [] if given.strip() in ("", "none") else [word.strip() for word in given.split(",")]


def _numbers(option: str, given: str) -> tuple[int, ...]:
    from bitline.errors import DataError

    try:
        return tuple(int(word) for word in _words(given))
    except ValueError:
        raise DataError(f"{option} is {given!r}; expected whole numbers such as 64,128, or none") from None


def _show(result: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape

    console = Console(highlight=False)
    lesson = 0
    for finding in result["findings"]:
        if finding["lesson"] != lesson:
            lesson = finding["lesson"]
            console.print(f"\n[bold]lesson {lesson}[/]")
        console.print(escape(finding["text"]))
    if result["findings"]:
        console.print()
    for what in result["not_measured"]:
        console.print(f"[dim]not measured: {escape(what)}[/]")
