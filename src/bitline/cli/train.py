"""``bitline train``."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from bitline.cli.given import LAYOUT_LINES, SPECS, arguments
from bitline.cli.output import Json

EXAMPLES = """
[bold]Examples[/]

bitline train lenet5 --data digits --epochs 20 --lr 0.1   [dim]# seconds, 98 %[/]

bitline train vgg8 --width 0.5 --data cifar10 --epochs 18

bitline train vgg8 --width 0.5 --data cifar10 --epochs 18 --resume   [dim]# the same command after a kill[/]

bitline train resnet20 --teacher runs/vgg8-cifar10 --distill 0.7   [dim]# learn from a trained network too[/]

bitline train nets/mine.py:Net --data path/to/folder --image-size 64
"""


def command(
    ctx: typer.Context,
    model: Annotated[str, typer.Argument(help=f"{SPECS}.")],
    model_args: Annotated[
        list[str] | None, typer.Option(help="Arguments of MODEL: KEY=VALUE, repeatable, or one JSON object.")
    ] = None,
    data: Annotated[str, typer.Option(help="cifar10, digits, a path, or a Hugging Face hub name.")] = "cifar10",
    data_dir: Annotated[
        Path | None, typer.Option(help="Where cifar10 lies; default: BITLINE_DATA, else the cache folder.")
    ] = None,
    image_size: Annotated[int | None, typer.Option(help="Resize images to this many px.")] = None,
    split: Annotated[
        float | None, typer.Option(help="Share of the images to test on, of --data that has no test images of its own.")
    ] = None,
    image_column: Annotated[str | None, typer.Option(help="Column of the images, of --data in tables.")] = None,
    label_column: Annotated[str | None, typer.Option(help="Column of the labels, of --data in tables.")] = None,
    width: Annotated[float, typer.Option(help="Multiplies the hidden channels.")] = 1.0,
    epochs: Annotated[int, typer.Option(help="Passes over the training images.")] = 18,
    epoch_images: Annotated[
        int | None, typer.Option(help="How many of them a pass has, others in every epoch; default: all.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images in a batch.")] = 128,
    lr: Annotated[
        float | None, typer.Option(help="Largest learning rate; default: 0.1 with batch norm, else 0.02; adam: 0.001.")
    ] = None,
    schedule: Annotated[str, typer.Option(help="linear, cosine, onecycle or steps.")] = "linear",
    optimizer: Annotated[str, typer.Option(help="sgd or adam.")] = "sgd",
    momentum: Annotated[float, typer.Option(help="Nesterov momentum of sgd.")] = 0.9,
    weight_decay: Annotated[float, typer.Option(help="On weights, not on biases and batch norm.")] = 5e-4,
    label_smoothing: Annotated[float, typer.Option(help="Share of the target spread over all classes.")] = 0.1,
    teacher: Annotated[Path | None, typer.Option(help="Run directory whose network's scores are targets too.")] = None,
    distill: Annotated[float, typer.Option(help="Share of the loss that follows the teacher.")] = 0.7,
    temperature: Annotated[float, typer.Option(help="That softens the scores of teacher and student.")] = 4.0,
    flip: Annotated[
        bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the images; default: colour images only.")
    ] = None,
    crop: Annotated[int | None, typer.Option(help="Largest random shift, px; default: a 16th of the image.")] = None,
    cutout: Annotated[int, typer.Option(help="Side of a square cut out of each training image, px.")] = 0,
    init: Annotated[Path | None, typer.Option(help="Start from the weights of this run directory.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, shuffle and augmentation.")] = 0,
    precision: Annotated[
        str | None, typer.Option(help="bf16-mixed or 32-true; default: bf16 where the hardware has it.")
    ] = None,
    device: Annotated[
        Literal["auto", "cpu", "cuda"],
        typer.Option(metavar="<str>", help="auto, cpu or cuda, where the network runs; auto: a GPU if there is one."),
    ] = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads.")] = None,
    test_every: Annotated[
        int, typer.Option(help="Epochs between looks at the test images; 0: only when the run ends.")
    ] = 1,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints, beside the one after each epoch.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/MODEL-DATA.")] = None,
    trust_code: Annotated[
        bool, typer.Option(help="Run the Python file that the run directory of the teacher has.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the run directory.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again in the run directory.")] = False,
    json_file: Json = None,
) -> None:
    """Train a network and write a run directory."""
    import contextlib
    import sys

    from bitline.cli.idle import refuse_idle
    from bitline.cli.output import check_outputs, give
    from bitline.cli.stop import stoppable
    from bitline.errors import DataError
    from bitline.extras import need
    from bitline.files import METRICS, probe, read_json
    from bitline.train import checked

    need("bitline train", "train")
    if resume and overwrite:
        raise DataError("--resume and --overwrite exclude each other")
    alone = None if teacher is not None else "there is no --teacher to learn from"
    refuse_idle(
        ctx,
        {
            "--distill": alone,
            "--temperature": alone,
            "--trust-code": alone,
            "--momentum": "--optimizer adam has momenta of its own" if optimizer == "adam" else None,
        },
    )
    config = checked(
        model=model,
        model_args=arguments(model_args),
        data=data,
        data_dir=data_dir,
        image_size=image_size,
        split=split,
        image_column=image_column,
        label_column=label_column,
        width=width,
        epochs=epochs,
        epoch_images=epoch_images,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
        optimizer=optimizer,
        momentum=momentum,
        weight_decay=weight_decay,
        label_smoothing=label_smoothing,
        teacher=teacher,
        distill=distill,
        temperature=temperature,
        flip=flip,
        crop=crop,
        cutout=cutout,
        init=init,
        seed=seed,
        precision=precision,
        device=device,
        threads=threads,
        test_every=test_every,
        checkpoint_every=checkpoint_every,
        out=out,
    )
    from bitline.train.hardware import check_threads
    from bitline.train.run import train

    check_threads(threads)
    check_outputs(json_file)
    probe(config.run_dir / METRICS)
    if_exists = "resume" if resume else "overwrite" if overwrite else "refuse"
    said = contextlib.redirect_stdout(sys.stderr if json_file == "-" else sys.stdout)
    with said, stoppable("the same command with --resume goes on from the last checkpoint"):
        run = train(config, if_exists=if_exists, trust_code=trust_code)
    metrics = read_json(run / METRICS)
    if give({"run": str(run), **metrics}, json_file, "metrics"):
        return
    typer.echo(
        f"{metrics['test_accuracy']:.2%} of {metrics['test_images']} test images of {metrics['data']}  ->  {run}"
    )


command.__doc__ = f"{command.__doc__}\n{LAYOUT_LINES}\n{EXAMPLES}"
