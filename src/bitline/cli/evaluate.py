"""``bitline evaluate``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bitline.cli.given import Given, takes
from bitline.cli.output import Json

EXAMPLES = """
[bold]Examples[/]

bitline evaluate runs/vgg8-cifar10 --chip rram-22nm --chips 5 --images 1000 --html vgg8.html

bitline evaluate runs/vgg8-cifar10 --chip rram-22nm --set adc.bits=6 --set cell.programming.sigma=0.1 --json out.json

bitline evaluate runs/separable --chip strip-22nm --mapping depthwise=strip

bitline evaluate runs/psum-aware-vgg8-cifar10   [dim]# what a recipe left: its chip, mapping and trained ranges[/]

bitline evaluate --model nets/mine.py:Net --weights mine.safetensors --data cifar10 --chip my-chip.toml
"""


@takes(Given)
def command(
    ctx: typer.Context,
    given: Given,
    run: Annotated[Path | None, typer.Argument(help="Run directory of bitline train, import or optimize.")] = None,
    chip: Annotated[
        str | None, typer.Option(help="A preset (see bitline chips) or a file; default: the run's, else rram-22nm.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key; repeatable.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(help="LAYER or KIND=STRATEGY, for example depthwise=strip, repeatable; or auto[=OBJECTIVE]."),
    ] = None,
    chips: Annotated[int, typer.Option(help="Programmed chips.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of the first chip.")] = 0,
    images: Annotated[int | None, typer.Option(help="Test images, from the first; default: all.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images at once.")] = 64,
    calibration_images: Annotated[int, typer.Option(help="Training images that set the ranges.")] = 256,
    in_turn: Annotated[
        bool, typer.Option("--in-turn", help="Fit ADC ranges layer after layer, on what the chip gives so far.")
    ] = False,
    bias_correction: Annotated[
        bool | None,
        typer.Option(help="Set biases anew on each programmed chip, on the same images; default: as the recipe says."),
    ] = None,
    simulation: Annotated[
        Literal["exact", "surrogate"],
        typer.Option(help="Of accuracies: every conversion, or one plain product with noise that stands for them."),
    ] = "exact",
    cause_chips: Annotated[int, typer.Option(help="Chips on which the loss is split by cause.")] = 5,
    workers: Annotated[int, typer.Option(help="Processes that ask chips at once; the figures are the same.")] = 1,
    threads: Annotated[int | None, typer.Option(help="CPU threads of each process.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on after the chips that were finished when the same was stopped.")
    ] = False,
    json_file: Json = None,
    html: Annotated[Path | None, typer.Option(help="Write a page here.")] = None,
) -> None:
    """Put a trained network on programmed chips: accuracy with spread, losses by cause, cost."""
    from bitline.cli.idle import refuse_idle
    from bitline.cli.output import emit, outputs
    from bitline.cli.stop import stoppable
    from bitline.cli.subject import subject
    from bitline.cli.target import target
    from bitline.cost.choose_mapping import resolve
    from bitline.evaluation import Settings, assess
    from bitline.network.trace import matmuls
    from bitline.train.hardware import set_threads

    on = target(run, chip, overrides, mapping)
    trained = None if on.ranges is None else f"the ranges are those that were trained, {on.ranges}"
    corrects = on.bias_correction if bias_correction is None else bias_correction
    used = simulation == "surrogate" or corrects or on.chip.weights.bias_bits is not None
    refuse_idle(
        ctx,
        {
            "--cause-chips": f"there are only {chips} chips" if cause_chips > chips else None,
            "--in-turn": trained
            or (None if on.chip.adc.keeps_ranges else f"adc.policy is {on.chip.adc.policy!r}, which fits no ADC range"),
            "--calibration-images": None if used else trained,
        },
    )
    settings = Settings(
        chips=chips,
        seed=seed,
        images=images,
        batch_size=batch_size,
        calibration_images=calibration_images,
        in_turn=in_turn,
        bias_correction=corrects,
        cause_chips=cause_chips,
        simulation=simulation,
        workers=workers,
        progress=json_file != "-",
    )
    set_threads(threads)
    kept = None if run is None else _kept(run, json_file)
    advice = "chips that are finished are kept: the same command with --resume goes on after them"
    if simulation == "surrogate":
        advice = "nothing was written; run the same command again"
    with outputs(json_file, html), stoppable(advice):
        of = subject(run, given)
        chosen = resolve(on.mapping, lambda: matmuls(of.model, of.image), on.chip)
        evaluation = assess(
            of.model,
            of.data,
            on.chip,
            settings,
            name=of.name,
            mapping=chosen,
            ranges=on.ranges,
            keep="resume" if resume else "new",
        )
        emit(evaluation, json_file=json_file, html=html, kept=kept)


def _kept(run: Path, json_file: str | None) -> Path | None:
    """Where in a run its evaluation is left for `bitline compare` and `report`, unless --json says where it goes.

    What a recipe left stays.
    """
    from bitline.errors import ExportError
    from bitline.files import AFTER, RECIPE, probe

    file = run / AFTER
    if json_file not in (None, "-") or not run.is_dir() or (run / RECIPE).is_file():
        return None
    try:
        probe(file)
    except ExportError:  # a run that may only be read keeps none
        return None
    return file


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"
