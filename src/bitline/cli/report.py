"""``bitline report``."""

from pathlib import Path
from typing import Annotated

import typer

from bitline.cli.output import Json

EXAMPLES = """
[bold]Examples[/]

bitline report runs/group-vgg8-cifar10

bitline report runs/group-vgg8-cifar10 --html group.html

bitline report vgg8.json --html vgg8.html   [dim]# of bitline evaluate --json vgg8.json[/]

bitline report --schema > evaluation.schema.json
"""


def _schema(wanted: bool) -> None:
    if not wanted:
        return
    from bitline.evaluation import Evaluation
    from bitline.files import json_text

    typer.echo(json_text(Evaluation.model_json_schema()))
    raise typer.Exit


def command(
    evaluation: Annotated[
        Path, typer.Argument(metavar="RUN|FILE", help="A run directory with an evaluation.json, or such a file.")
    ],
    html: Annotated[Path | None, typer.Option(help="Write a page here instead.")] = None,
    json_file: Json = None,
    schema: Annotated[
        bool,
        typer.Option(
            "--schema", callback=_schema, is_eager=True, help="Print the JSON schema of evaluations, and end."
        ),
    ] = False,
) -> None:
    """Show an evaluation that was made before: tables, or a page; nothing is measured again."""
    from bitline.cli.output import check_outputs, give
    from bitline.evaluation import load
    from bitline.report.runs import evaluation_of

    check_outputs(html, json_file)
    content = load(evaluation_of(evaluation))
    printed = give(content.to_json(), json_file, "evaluation")
    if html is None and not printed:
        from bitline.report import terminal

        terminal.print_evaluation(content)
    elif html is not None:
        from bitline.report import html as page

        typer.echo(f"page: {page.write(content, html)}", err=printed)


command.__doc__ = f"{command.__doc__}\n{EXAMPLES}"
