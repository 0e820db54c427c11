"""The ``bitline`` command: one file a subcommand; heavy imports stay inside them."""

import logging
import sys

import typer

from bitline.cli import (
    accept,
    chips,
    compare,
    cost,
    demo,
    doctor,
    evaluate,
    export,
    import_,
    optimize,
    report,
    study,
    sweep,
    train,
)
from bitline.cli.stop import terminable
from bitline.errors import BitlineError

app = typer.Typer(
    name="bitline",
    help="Co-optimize neural networks and the crossbars that run them.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        from bitline import __version__

        typer.echo(f"bitline {__version__}")
        raise typer.Exit


@app.callback()
def _options(  # pyright: ignore[reportUnusedFunction]
    version: bool = typer.Option(False, "--version", "-V", is_eager=True, callback=_version, help="Print it, and end."),
    debug: bool = typer.Option(False, "--debug", help="Show the traceback of an error."),
) -> None:
    """Co-optimize neural networks and the crossbars that run them."""


app.command(name="train")(train.command)
app.command(name="import")(import_.command)
app.command(name="evaluate")(evaluate.command)
app.command(name="cost")(cost.command)
app.add_typer(optimize.app, name="optimize")
app.command(name="sweep")(sweep.command)
app.command(name="compare")(compare.command)
app.command(name="report")(report.command)
app.command(name="demo")(demo.command)
app.command(name="export")(export.command)
app.command(name="accept")(accept.command)
app.command(name="doctor")(doctor.command)
app.add_typer(chips.app, name="chips")
app.add_typer(study.app, name="study")


def main() -> None:
    """Run the command line; an error is one line on stderr and exit status 1, SIGTERM ends as Ctrl-C does, with 143."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments  # wherever it stands
    logging.basicConfig(format="%(message)s")
    logging.getLogger("bitline").setLevel(logging.INFO)
    try:
        with terminable():
            app(args=[argument for argument in arguments if argument != "--debug"])
    except (BitlineError, OSError) as error:
        if debug:
            raise
        from rich.console import Console

        text = _of_system(error) if isinstance(error, OSError) else str(error)
        Console(stderr=True).print(f"[bold red]error:[/] {_escaped(text)}", highlight=False, soft_wrap=True)
        raise SystemExit(1) from None


def _of_system(error: OSError) -> str:
    """Say what the operating system refused, and where: a full disk, a folder that may not be read ..."""
    return ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
