"""``bitline optimize``: one command a recipe, whose options are the fields of its record."""

import inspect
from collections.abc import Callable, Mapping
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from bitline.cli.given import Given
from bitline.cli.given import options as given_options
from bitline.errors import DataError

if TYPE_CHECKING:
    from bitline.evaluation import Evaluation
    from bitline.recipes import Recipe
    from bitline.train.rundir import IfExists

HELP = "Change a trained network until it suits its crossbars, and measure it before and after on the same chips."
EXAMPLES = (
    "psum-aware runs/vgg8-cifar10 --set adc.bits=4 --granularity column --chip-epochs 3",
    "psum-aware runs/vgg8-cifar10 --set adc.bits=4 --resume   [dim]# the same command after a kill[/]",
    "group runs/vgg8-cifar10 --chip rram-22nm --set adc.bits=4",
    "psum-aware --model nets/mine.py:Net --weights mine.safetensors --data photos   [dim]# imports it first[/]",
    "separable runs/vgg8-cifar10 --mapping depthwise=strip --chip strip-22nm",
    "mixed runs/vgg8-cifar10 --layer features.conv6.0=group:2 --layer features.conv5.0=separable:1",
    "auto runs/vgg8-cifar10 --objective accuracy --objective energy --trials 60 --front 5",
    "auto runs/vgg8-cifar10 --vary structure --vary encoding --vary weight_bits",
    "crimp runs/resnet20-cifar10 --chip crimp-32nm --sparsity 0.5 --epochs 40",
)
SHARED = "Options of every recipe"


class Recipes(TyperGroup):
    """A command for each recipe, made when it is asked for: records need what other commands do without."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the recipes."""
        from bitline.recipes import RECORDS

        return list(RECORDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return the command of a recipe.

        Raises:
            DataError: an unknown recipe.
        """
        from bitline.recipes.records.union import record_of

        record = record_of(cmd_name)
        command = _build(record, f"{record.__doc__}\n\n{_examples(f'{cmd_name} ')}")
        command.name, command.rich_help_panel = cmd_name, "Recipes"
        return command

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take ``RUN --recipe RECIPE`` for ``RECIPE RUN``."""
        for place, text in enumerate(args):
            name, equals, value = text.partition("=")
            if name == "--recipe" and (equals or args[place + 1 :]):
                recipe, rest = (value, args[place + 1 :]) if equals else (args[place + 1], args[place + 2 :])
                return super().parse_args(ctx, [recipe, *args[:place], *rest])
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the recipes, with the options that all of them have."""
        from bitline.recipes import RECORDS, Recipe

        shared = copy(self)
        shared.options_metavar = ""
        shared.params = [each for each in _build(Recipe, HELP).params if each.param_type_name == "option"]
        each: Any
        for each in shared.params:
            each.rich_help_panel = None if each.name == "help" else SHARED
            if each.name in Recipe.model_fields:
                defaults = [record.model_fields[each.name].default for record in RECORDS.values()]
                each.show_default = defaults.count(defaults[0]) == len(defaults)
        TyperGroup.format_help(shared, ctx, formatter)


def _examples(start: str = "") -> str:
    lines = [f"bitline optimize {line}" for line in EXAMPLES if line.startswith(start)]
    return "\n\n".join(["[bold]Examples[/]", *lines]) if lines else ""


app = typer.Typer(
    cls=Recipes,
    help=f"{HELP}\n\nRUN is its run directory, as bitline train, import and recipes leave one.\n\n{_examples()}",
    short_help=HELP,
    no_args_is_help=True,
    subcommand_metavar="RECIPE RUN [OPTIONS]",
    rich_markup_mode="rich",
)


def _build(record: "type[Recipe]", words: str) -> Any:
    """Return the command of a recipe, or of what all recipes share."""
    single = typer.Typer(rich_markup_mode="rich", add_completion=False, pretty_exceptions_enable=False)
    single.command(help=words)(_function(record))
    return typer.main.get_command(single)


def _function(record: "type[Recipe]") -> Callable[..., None]:
    """Return what typer makes the command of: a function whose parameters are the fields of a record.

    Those that other recipes have are there too, out of sight, so that the record refuses them by name.
    """
    from bitline.cli.options import on_command_line, parameter, parts
    from bitline.recipes import RECORDS

    def command(
        ctx: typer.Context,
        settings: Annotated[
            Path | None, _option("--settings", "TOML file of options, named as in recipe.json; the command line wins.")
        ] = None,
        resume: Annotated[bool, _option("--resume", "Go on with the recipe in the run directory.")] = False,
        overwrite: Annotated[bool, _option("--overwrite", "Start again in the run directory.")] = False,
        json_file: Annotated[
            str | None, _option("--json", "Write the evaluations here; - prints them.", "FILE|-")
        ] = None,
        **fields: Any,
    ) -> None:
        if resume and overwrite:
            raise DataError("--resume and --overwrite exclude each other")
        recipe = record.name()
        said = {key: fields.pop(key) for key in subject}
        values = {**_read(settings), **on_command_line(ctx, fields), "recipe": recipe}
        if_exists = "resume" if resume else "overwrite" if overwrite else "refuse"
        trust_code = _imported(values, said)
        _run(values, if_exists, json_file, trust_code=trust_code)

    fixed = list(inspect.signature(command).parameters.values())[:-1]
    own = [
        parameter(key, record.model_fields[key], part.__dict__.get("heading") or f"Of {record.name()}")
        for part, keys in parts(record)
        for key in keys
        if key != "recipe"
    ]
    others = {
        key: parameter(key, field, "", hidden=True)
        for other in RECORDS.values()
        for key, field in other.model_fields.items()
        if key not in record.model_fields and key != "recipe"
    }
    subject = given_options(Given, without=("data", "data_dir", "device"))
    every = [*own, *subject.values(), *fixed, *others.values()]
    every = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in every]
    options: Any = command
    options.__signature__ = inspect.Signature(every)
    options.__annotations__ = {each.name: each.annotation for each in every}
    return command


def _imported(values: dict[str, Any], said: Mapping[str, Any]) -> bool:
    """Import a model that the command line gives in the place of a run; return whether the run's code may be run.

    Raises:
        DataError: both or neither of a run and a model, or a model that cannot be used.
    """
    given = Given(**said, data=values.get("data"), data_dir=values.get("data_dir"))
    if given.model is None:
        from bitline.cli.subject import of_run

        if values.get("run") is None:
            raise DataError("give a run directory, or --model (with --weights and --data)")
        of_run(Path(str(values["run"])), given)
        return given.trust_code
    from bitline.cli.imported import run_of

    values["run"], given = run_of(values.get("run"), given)
    values.pop("data", None)
    return given.trust_code


def _option(name: str, text: str, metavar: str | None = None) -> Any:
    """Return an option that is of the command, and not of a recipe."""
    from bitline.recipes.records.base import Directory

    return typer.Option(name, help=text, metavar=metavar, rich_help_panel=Directory.heading)


def _read(file: Path | None) -> dict[str, Any]:
    """Read the options of a file."""
    import tomllib

    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read --settings {file}: {' '.join(str(error).split())}") from error


def _run(values: Mapping[str, Any], if_exists: "IfExists", json_file: str | None, *, trust_code: bool) -> None:
    """Run a recipe and show what came of it."""
    import sys

    from bitline.cli.idle import refuse_idle_in_recipe
    from bitline.cli.output import check_outputs, write
    from bitline.cli.stop import stoppable
    from bitline.evaluation import load
    from bitline.extras import need
    from bitline.files import AFTER, BEFORE, UNTRAINED, json_text
    from bitline.recipes import checked

    need("bitline optimize", "train")
    from bitline.recipes.run import optimize
    from bitline.report import sentences
    from bitline.train.hardware import set_threads

    quiet = json_file == "-"
    config = checked(**values)
    refuse_idle_in_recipe(config, values)
    check_outputs(json_file)
    set_threads(config.threads)
    with stoppable("the same command with --resume goes on from the last checkpoint"):
        folder = optimize(
            config,
            if_exists=if_exists,
            say=lambda line: typer.echo(line, err=True),
            progress=not quiet and sys.stderr.isatty(),
            trust_code=trust_code,
        )
    evaluations = {
        name.removesuffix(".json"): load(folder / name)
        for name in (BEFORE, UNTRAINED, AFTER)
        if (folder / name).is_file()
    }
    content = {name: evaluation.to_json() for name, evaluation in evaluations.items()}
    if quiet:
        typer.echo(json_text(content))
    else:
        if json_file is not None:
            write(json_file, content)
        _show(evaluations, config.name())
        typer.echo(f"network, chip, evaluations: {folder}")
    before, after = (evaluations.get(name.removesuffix(".json")) for name in (BEFORE, AFTER))
    if before is not None and after is not None:
        for line in sentences.no_gain(before, after):
            typer.echo(line, err=quiet)


def _show(evaluations: "Mapping[str, Evaluation]", recipe: str) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from bitline.report.text import column

    words = {"evaluation_before": "before", "evaluation_untrained": f"{recipe}, untrained", "evaluation": recipe}
    energies = column([evaluation.cost.energy_J for evaluation in evaluations.values()], "J")
    table = Table(box=None, pad_edge=False)
    for head in (
        "",
        "float\n[%]",
        "on the chip\n[%]",
        "worst\n[%]",
        "conversions",
        f"energy\n[{energies.unit}]",
        "TOPS/W",
    ):
        table.add_column(escape(head), justify="left" if not head else "right", no_wrap=True)
    for (name, evaluation), energy in zip(evaluations.items(), energies.texts, strict=True):
        accuracy, cost = evaluation.accuracy, evaluation.cost
        table.add_row(
            words[name],
            f"{accuracy.float:.2f}",
            f"{accuracy.mean:.2f} ± {accuracy.std:.2f}",
            f"{accuracy.worst:.2f}",
            f"{cost.conversions:,}",
            energy,
            f"{cost.tops_per_watt:.3g}",
        )
    Console(highlight=False).print(table)
