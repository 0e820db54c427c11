"""``bitline optimize``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bitline.evaluate import Evaluation

EXAMPLES = """
[bold]Examples[/]

bitline optimize runs/vgg8-cifar10 --recipe group --chip rram-22nm --set adc.bits=4

bitline optimize runs/vgg8-cifar10 --recipe separable --mapping depthwise=strip --chip strip-22nm

bitline optimize runs/vgg8-cifar10 --recipe psum-aware --set adc.bits=4 --granularity column --chip-epochs 3

bitline optimize runs/vgg8-cifar10 --recipe mixed --layer features.conv6.0=group:2 --layer features.conv5.0=separable:1

bitline optimize runs/vgg8-cifar10 --recipe auto --objective accuracy --objective energy --trials 60 --front 5

bitline optimize runs/vgg8-cifar10 --recipe auto --vary structure --vary encoding --vary weight_bits

bitline optimize runs/resnet20-cifar10 --recipe crimp --chip crimp-32nm --sparsity 0.5 --epochs 40

bitline optimize runs/vgg8-cifar10 --recipe psum-aware --resume   [dim]# the same command after a kill[/]
"""


def command(
    ctx: typer.Context,
    run: Annotated[Path, typer.Argument(help="Run directory of the trained network.")],
    recipe: Annotated[
        str, typer.Option(help="conventional, quantization-aware, psum-aware, group, separable, mixed, auto or crimp.")
    ],
    chip: Annotated[str, typer.Option(help="A preset (see bitline chips) or a TOML file.")] = "rram-22nm",
    overrides: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE for any chip key; repeatable.")
    ] = None,
    aware: Annotated[
        str | None,
        typer.Option(help="What training on the chip sees: none, quantization or psum; default: the recipe's."),
    ] = None,
    granularity: Annotated[
        str | None, typer.Option(help="Of trained ADC ranges: layer, slice, slice_digit, column; default: the chip's.")
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(help="Of float training; default: 10 for a new structure and conventional, 20 for crimp, else 0."),
    ] = None,
    chip_epochs: Annotated[
        int | None, typer.Option(help="Of training on the chip; default: 2, conventional 0.")
    ] = None,
    settle_epochs: Annotated[
        int, typer.Option(help="Of crimp, between pruning and the epochs on the chip, zeros kept.")
    ] = 0,
    epoch_images: Annotated[
        int | None, typer.Option(help="Training images in an epoch, others in every one; default: all.")
    ] = None,
    lr: Annotated[float, typer.Option(help="Largest learning rate of float training.")] = 0.02,
    schedule: Annotated[
        str, typer.Option(help="Of float training's learning rate: linear, cosine, onecycle, steps.")
    ] = "cosine",
    momentum: Annotated[float, typer.Option(help="Of float training.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="Of float training.")] = 5e-4,
    chip_lr: Annotated[float, typer.Option(help="The same of weights on the chip, under Adam.")] = 5e-5,
    range_lr: Annotated[float, typer.Option(help="The same of the logarithm of ADC steps.")] = 3e-3,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    teacher: Annotated[Path | None, typer.Option(help="Run directory to distill from; default: RUN.")] = None,
    distill: Annotated[float, typer.Option(help="Share of the loss that follows the teacher.")] = 0.7,
    temperature: Annotated[float, typer.Option(help="That softens the scores of teacher and student.")] = 4.0,
    reprogram_every: Annotated[
        int, typer.Option(help="Steps between programmed chips in training; 0: ideal cells.")
    ] = 1,
    row_tiles: Annotated[int, typer.Option(help="Partial sums that a group may need.")] = 1,
    assignment: Annotated[str, typer.Option(help="Of channels to groups: best, diagonal or shuffle.")] = "best",
    refit: Annotated[bool, typer.Option(help="Start from weights fitted to what the dense layers answer.")] = True,
    mix: Annotated[bool, typer.Option(help="A 1x1 convolution behind each group convolution.")] = False,
    split_linear: Annotated[bool, typer.Option(help="Split the inputs of hidden linear layers too.")] = False,
    multiplier: Annotated[int, typer.Option(help="Maps for each output channel of separable.")] = 1,
    layers: Annotated[
        list[str] | None,
        typer.Option(
            "--layer", help="Of mixed: LAYER=dense, separable:1, separable:2, group:1, group:2 or group:1+mix."
        ),
    ] = None,
    sparsity: Annotated[float, typer.Option(help="Share of the weights that crimp removes.")] = 0.5,
    kernel_share: Annotated[
        float, typer.Option(help="How much of that kernels take: they leave (1 - sparsity)^share of the weights.")
    ] = 0.5,
    rank: Annotated[
        str, typer.Option(help="Which kernels and crossbars crimp prunes: those of least loss or of least factor.")
    ] = "loss",
    l1: Annotated[float, typer.Option(help="Weight of the L1 norm of crimp's factors in the loss.")] = 1e-4,
    zero_start: Annotated[float, typer.Option(help="Share of a phase before its first zero epoch.")] = 0.5,
    zero_interval: Annotated[int, typer.Option(help="Epochs from one zero epoch to the next.")] = 2,
    kernel_groups: Annotated[
        bool, typer.Option(help="Let crimp prune kernels; with neither, it adapts a network to the chip as it is.")
    ] = True,
    crossbar_blocks: Annotated[bool, typer.Option(help="Let crimp prune crossbars.")] = True,
    zerorize: Annotated[bool, typer.Option(help="Zero and recover; else prune once, in a phase's last epoch.")] = True,
    integer: Annotated[bool, typer.Option(help="Scales that are shifts and integer biases, in crimp.")] = True,
    rounding: Annotated[
        str, typer.Option(help="Of crimp: scales of weights to the nearest power of two, or up, so that none clips.")
    ] = "nearest",
    compensate: Annotated[bool, typer.Option(help="Let crimp make up for errors of cells.")] = True,
    readback: Annotated[
        bool, typer.Option(help="Let crimp write the cells of a weight in turn and read each back (compensate).")
    ] = True,
    rewrites: Annotated[
        int | None, typer.Option(help="How often crimp may write a cell again where that pays (readback); default: 2.")
    ] = None,
    simulation: Annotated[
        str, typer.Option(help="Of the chip in crimp's training: linear (errors of cells alone) or direct.")
    ] = "linear",
    objectives: Annotated[
        list[str] | None,
        typer.Option("--objective", help="Of auto: accuracy, energy, area, latency; default: the first three."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option(
            help="What trials of auto choose: structure, height, adc_bits, columns_per_adc, encoding, input_bits, "
            "weight_bits; repeatable; default: all but the last two."
        ),
    ] = None,
    trials: Annotated[int, typer.Option(help="Of auto.")] = 40,
    front: Annotated[int, typer.Option(help="Points of the front that auto trains.")] = 4,
    proxy_steps: Annotated[int, typer.Option(help="Steps of distillation before auto measures a trial.")] = 30,
    proxy_images: Annotated[int, typer.Option(help="Training images that auto measures a trial on.")] = 256,
    mapping: Annotated[
        list[str] | None, typer.Option(help="LAYER or KIND=STRATEGY, for example depthwise=strip; repeatable.")
    ] = None,
    structure_images: Annotated[int, typer.Option(help="Training images that new structures are fitted on.")] = 512,
    test_images: Annotated[int, typer.Option(help="Test images after each epoch on the chip.")] = 500,
    chips: Annotated[int, typer.Option(help="Programmed chips to evaluate; training sees others.")] = 20,
    chips_before: Annotated[
        int | None, typer.Option(help="How many of these for the network before; default: all.")
    ] = None,
    images: Annotated[int | None, typer.Option(help="Test images to evaluate, from the first; default: all.")] = None,
    calibration_images: Annotated[int, typer.Option(help="Training images that set the ranges.")] = 256,
    seed: Annotated[int, typer.Option(help="Of shuffle, augmentation and chips in training.")] = 0,
    precision: Annotated[
        str | None, typer.Option(help="bf16-mixed or 32-true; default: bf16 where the hardware has it.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints, beside the one after each epoch.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where cifar10 lies.")] = None,
    settings: Annotated[
        Path | None, typer.Option(help="TOML file of options, by the names in recipe.json; the command line wins.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/RECIPE-NAME.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the recipe in the run directory.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again in the run directory.")] = False,
    json_file: Annotated[str | None, typer.Option("--json", help="Write what came of it here; - prints it.")] = None,
) -> None:
    """Change a trained network until it suits its crossbars, and measure it before and after on the same chips."""
    import json
    import sys

    from bitline.errors import DataError
    from bitline.evaluate import load
    from bitline.files import AFTER, BEFORE, UNTRAINED, write_json
    from bitline.nn.mapping import parse
    from bitline.recipes import checked
    from bitline.recipes.run import optimize

    if resume and overwrite:
        raise DataError("--resume and --overwrite exclude each other")
    quiet = json_file == "-"
    values = dict(
        run=run,
        recipe=recipe,
        teacher=teacher,
        chip=chip,
        overrides=tuple(overrides or ()),
        aware=aware,
        granularity=granularity,
        epochs=epochs,
        chip_epochs=chip_epochs,
        settle_epochs=settle_epochs,
        epoch_images=epoch_images,
        lr=lr,
        schedule=schedule,
        momentum=momentum,
        weight_decay=weight_decay,
        chip_lr=chip_lr,
        range_lr=range_lr,
        batch_size=batch_size,
        distill=distill,
        temperature=temperature,
        reprogram_every=reprogram_every,
        row_tiles=row_tiles,
        assignment=assignment,
        refit=refit,
        mix=mix,
        split_linear=split_linear,
        multiplier=multiplier,
        mapping=parse(mapping or ()),
        layers=_layers(layers or ()),
        trials=trials,
        front=front,
        sparsity=sparsity,
        kernel_share=kernel_share,
        rank=rank,
        l1=l1,
        zero_start=zero_start,
        zero_interval=zero_interval,
        kernel_groups=kernel_groups,
        crossbar_blocks=crossbar_blocks,
        zerorize=zerorize,
        integer=integer,
        rounding=rounding,
        compensate=compensate,
        readback=readback,
        rewrites=rewrites,
        simulation=simulation,
        proxy_steps=proxy_steps,
        proxy_images=proxy_images,
        **({"objectives": tuple(objectives)} if objectives else {}),
        **({"vary": tuple(vary)} if vary else {}),
        structure_images=structure_images,
        test_images=test_images,
        chips=chips,
        chips_before=chips_before,
        images=images,
        calibration_images=calibration_images,
        seed=seed,
        precision=precision,
        threads=threads,
        checkpoint_every=checkpoint_every,
        data_dir=data_dir,
        out=out,
    )
    config = checked(**values) if settings is None else checked(**{**values, **_untold(ctx, settings)})
    if config.threads is not None:
        import torch

        torch.set_num_threads(config.threads)
    try:
        folder = optimize(
            config,
            if_exists="resume" if resume else "overwrite" if overwrite else "refuse",
            say=lambda line: typer.echo(line, err=True),
            progress=not quiet and sys.stderr.isatty(),
        )
    except KeyboardInterrupt:
        typer.echo("stopped; the same command with --resume goes on from the last checkpoint", err=True)
        raise typer.Exit(130) from None
    evaluations = {
        name.removesuffix(".json"): load(folder / name)
        for name in (BEFORE, UNTRAINED, AFTER)
        if (folder / name).is_file()
    }
    content = {name: evaluation.to_json() for name, evaluation in evaluations.items()}
    if quiet:
        json.dump(content, sys.stdout, indent=1)
        sys.stdout.write("\n")
    else:
        _show(evaluations, recipe)
        typer.echo(f"network, chip, evaluations: {folder}")
        if json_file is not None:
            write_json(Path(json_file), content)


def _untold(ctx: typer.Context, file: Path) -> dict[str, object]:
    """Read the options of a file that the command line does not give."""
    import tomllib

    from bitline.errors import DataError

    try:
        found = tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read --settings {file}: {' '.join(str(error).split())}") from error
    told = {key for key in found if (source := ctx.get_parameter_source(key)) and source.name == "COMMANDLINE"}
    return {key: value for key, value in found.items() if key not in told}


def _layers(texts: Sequence[str]) -> dict[str, str]:
    from bitline.errors import DataError

    pairs = [text.rpartition("=") for text in texts]
    for text, (name, equals, _) in zip(texts, pairs, strict=True):
        if not (name and equals):
            raise DataError(f"layer {text!r} is not LAYER=STRUCTURE, for example features.conv6.0=group:2")
    return {name: structure for name, _, structure in pairs}


def _show(evaluations: Mapping[str, Evaluation], recipe: str) -> None:
    from rich.console import Console
    from rich.table import Table

    words = {"evaluation_before": "before", "evaluation_untrained": f"{recipe}, untrained", "evaluation": recipe}
    table = Table(box=None, pad_edge=False)
    for head in ("", "float\n[%]", "on the chip\n[%]", "worst\n[%]", "conversions", "energy\n[uJ]", "TOPS/W"):
        table.add_column(head, justify="left" if not head else "right", no_wrap=True)
    for name, evaluation in evaluations.items():
        accuracy, cost = evaluation.accuracy, evaluation.cost
        table.add_row(
            words[name],
            f"{accuracy.float:.2f}",
            f"{accuracy.mean:.2f} ± {accuracy.std:.2f}",
            f"{accuracy.worst:.2f}",
            f"{cost.conversions:,}",
            f"{cost.energy_J * 1e6:.3g}",
            f"{cost.tops_per_watt:.3g}",
        )
    Console(highlight=False).print(table)


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"
