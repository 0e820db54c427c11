"""``bitline accept``."""

from pathlib import Path
from typing import Annotated

import typer

EXAMPLES = """
[bold]Examples[/]

bitline accept runs/vgg8-cifar10   [dim]# after an edit on purpose, for example of model.json[/]
"""


def command(run: Annotated[Path, typer.Argument(help="Run directory of bitline train or of a recipe.")]) -> None:
    """Take the files of a run directory as they are now: write its manifest (run.json) anew."""
    from bitline.errors import DataError
    from bitline.lock import locked
    from bitline.models.files import accept

    if not run.is_dir():
        raise DataError(f"no such run directory: {run}")
    with locked(run):
        found = accept(run)
    for name, what in found.items():
        typer.echo(f"{name} {what}")
    typer.echo(f"{run}: accepted" if found else f"{run} is as it was written")


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"
