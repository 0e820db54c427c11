"""Where results go: terminal, JSON, page; refused before anything is measured where they could not be written."""

from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bitline import manifest
from bitline.errors import BitlineError, DataError, ExportError
from bitline.files import AFTER, CONFIG, RUN_MANIFEST, json_text, probe, write_json
from bitline.lock import locked

if TYPE_CHECKING:
    from bitline.evaluation import Evaluation


Json = Annotated[
    str | None, typer.Option("--json", metavar="FILE|-", help="Write it here as JSON; - prints it and nothing else.")
]
"""the same option of every command"""


def give(content: Mapping[str, Any], json_file: str | None, what: str) -> bool:
    """Write the JSON of a command, or print it.

    Args:
        content: of it.
        json_file: as given on the command line.
        what: it is.

    Returns:
        Whether it was printed, so that nothing else is.
    """
    if json_file == "-":
        typer.echo(json_text(content))
        return True
    if json_file is not None:
        write(json_file, content)
        typer.echo(f"{what}: {json_file}")
    return False


def check_outputs(*files: Path | str | None) -> None:
    """Refuse files that could not be written, and those that would take the place of a part of a run.

    Args:
        files: None and - are no files.

    Raises:
        ExportError: one is refused.
    """
    for file in (Path(each) for each in files if each not in (None, "-")):
        if file.name in manifest.PARTS and file.name != AFTER and _run_of(file) is not None:
            raise ExportError(f"cannot write {file}: it is part of the run {file.parent}; choose another place")
        probe(file)


@contextmanager
def outputs(*files: Path | str | None) -> Generator[None]:
    """Check where results go, and hold the run directories that they go to.

    Raises:
        ExportError: a file could not be written.
        DataError: another process uses a run directory.
    """
    check_outputs(*files)
    runs = {_run_of(Path(each)) for each in files if each not in (None, "-")}
    with ExitStack() as stack:
        for run in sorted(run for run in runs if run is not None):
            stack.enter_context(locked(run))
        yield


def _run_of(file: Path) -> Path | None:
    """The run directory that a file is to lie in."""
    folder = file.resolve().parent
    return folder if any((folder / name).is_file() for name in (CONFIG, RUN_MANIFEST)) else None


def write(file: str, content: Mapping[str, Any]) -> None:
    """Write a JSON file; an evaluation of a run is part of it from then on."""
    path = Path(file)
    write_json(path, content)
    if _run_of(path) is not None:
        manifest.update(path.parent, path.name)


def _leave(evaluation: "Evaluation", file: Path) -> str:
    """Leave an evaluation in its run, unless another process is at work there; say which."""
    try:
        with locked(file.parent):
            write(str(file), evaluation.to_json())
    except DataError as error:
        return f"not left in the run: {error}"
    return f"left in the run, for bitline compare and report: {file}"


def emit(evaluation: "Evaluation", *, json_file: str | None, html: Path | None, kept: Path | None = None) -> None:
    """Show an evaluation: tables unless JSON goes to the terminal, and the files asked for.

    Files come first, since whoever reads the terminal may stop reading; tables come even where a file fails.
    """
    told: list[str] = []
    failed: BitlineError | None = None
    try:
        if json_file not in (None, "-"):
            write(json_file, evaluation.to_json())
            told.append(f"evaluation: {json_file}")
        if kept is not None:
            told.append(_leave(evaluation, kept))
        if html is not None:
            from bitline.report import html as page

            told.append(f"page: {page.write(evaluation, html)}")
    except BitlineError as error:
        failed = error
    if json_file == "-":
        typer.echo(json_text(evaluation.to_json()))
    else:
        from bitline.report import terminal

        terminal.print_evaluation(evaluation)
    for line in told:
        typer.echo(line, err=json_file == "-")
    if failed is not None:
        raise failed
