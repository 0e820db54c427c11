"""``bitline import``."""

from pathlib import Path
from typing import Annotated

import typer

from bitline.cli.given import LAYOUT_LINES, Given, takes

EXAMPLES = """
[bold]Examples[/]

bitline import --model nets/mine.py:Net --weights mine.safetensors --data digits --out runs/mine

bitline import --model nets/mine.py:make --model-args width=32 --weights mine.safetensors --data photos --no-normalize

bitline import --model torchvision:resnet18 --weights r18.safetensors --data photos --image-size 224 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

bitline import --model net.pt2 --data digits   [dim]# of torch.export.save, any number of images[/]
"""  # noqa: E501


@takes(Given)
def command(
    given: Given,
    out: Annotated[Path | None, typer.Option(help="Run directory; default: runs/MODEL-DATA.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Write an imported run again.")] = False,
) -> None:
    """Make a run directory of a network that was trained elsewhere, which every other command takes.

    The directory has all that it needs: the Python file with those beside it that it imports, the weights, and how
    images are normalized. It can be moved or sent. Whoever reads it runs the file only with --trust-code.
    """
    from bitline.cli.imported import import_run
    from bitline.errors import DataError
    from bitline.files import METRICS, RECORD, read_json

    if given.model is None:
        raise DataError("give --model (with --weights and --data)")
    run = import_run(given, out, overwrite=overwrite)
    metrics, record = read_json(run / METRICS), read_json(run / RECORD)
    typer.echo(
        f"{metrics['test_accuracy']:.2%} of {metrics['test_images']} test images of {metrics['data']} in floating "
        f"point  ->  {run}"
    )
    if record.get("code"):
        trust = " (--trust-code runs them)" if any(name.endswith(".py") for name in record["code"]) else ""
        typer.echo(f"copied into it: {', '.join(record['code'])}{trust}")


command.__doc__ = f"{command.__doc__}\n{LAYOUT_LINES}\n{EXAMPLES}"
