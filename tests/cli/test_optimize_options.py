"""The options of ``bitline optimize`` are the fields of the recipes' records."""

from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Literal, Union, get_args, get_origin

import pytest
from typer.testing import CliRunner

from bitline.cli import app
from bitline.errors import DataError
from bitline.recipes import RECORDS

IDLE = [("quantization-aware", key) for key in ("granularity", "range_lr", "reprogram_every", "tiles_a_step")]
IDLE += [("quantization-aware", key) for key in ("simulation", "exact_epochs")]
"""what a recipe has and never uses"""
FIELDS = [
    (recipe, key)
    for recipe, record in RECORDS.items()
    for key in record.model_fields
    if key != "recipe" and (recipe, key) not in IDLE
]
FOREIGN = [
    (recipe, key)
    for recipe, record in RECORDS.items()
    for key in {key: None for each in RECORDS.values() for key in each.model_fields}
    if key not in record.model_fields
]
NAMES = {"overrides": "--set", "layers": "--layer", "objectives": "--objective"}
TEXTS = {
    "overrides": (["adc.bits=4", "adc.policy=full"], ("adc.bits=4", "adc.policy=full")),
    "mapping": (["depthwise=strip"], {"depthwise": "strip"}),
    "layers": (["a=group:2", "b=dense"], {"a": "group:2", "b": "dense"}),
    "objectives": (["latency", "area"], ("latency", "area")),
    "vary": (["height", "structure"], ("structure", "height")),
    "epoch_images": (["1000"], 1000),
}
NEEDED = {
    "mixed": ["--layer", "a=dense"],
    "psum-aware": ["--epochs", 1],
    "quantization-aware": ["--epochs", 1],
    "conventional": ["--epochs", 1],
}


class CalledError(Exception):
    """Ends a command once it has its configuration."""


@pytest.fixture
def configured(monkeypatch):
    """Run the command as far as its configuration."""
    configs = []

    def optimize(config, **_):
        configs.append(config)
        raise CalledError

    monkeypatch.setattr("bitline.recipes.run.optimize", optimize)
    monkeypatch.setattr("torch.set_num_threads", lambda _: None)

    def run(*arguments):
        result = CliRunner().invoke(app, ["optimize", *map(str, arguments)])
        if not isinstance(result.exception, CalledError):
            raise result.exception or AssertionError(result.output)
        return configs[-1]

    return run


def another(field):
    """Return a value that is not the default, as text and as the record has it."""
    kind = bare(field.annotation)
    if get_origin(kind) is Literal:
        value = next(word for word in get_args(kind) if word != field.default)
        return value, value
    if kind is bool:
        return None, not field.default
    if kind is int:
        value = (field.default or 0) + 2
        return str(value), value
    if kind is float:
        value = 0.25
        return str(value), value
    return "some", Path("some") if kind is Path else "some"


def bare(annotation):
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return bare(next(each for each in get_args(annotation) if each is not NoneType))
    return annotation


def option(key, field):
    """Return arguments that give a field another value than its default, and that value."""
    name = NAMES.get(key, f"--{key.replace('_', '-')}")
    if key in TEXTS:
        texts, value = TEXTS[key]
        return [argument for text in texts for argument in (name, text)], value
    text, value = another(field)
    if text is None:
        return [name if value else f"--no-{name.removeprefix('--')}"], value
    return [name, text], value


def helped(*arguments):
    result = CliRunner().invoke(app, ["optimize", *arguments, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("recipe", RECORDS)
def test_the_help_of_a_recipe_shows_each_of_its_options_and_no_others(recipe):
    words = set(helped(recipe).replace("/", " ").replace(",", " ").split())

    record = RECORDS[recipe]
    shown = {
        NAMES.get(key, f"--{key.replace('_', '-')}") for key in record.model_fields if key not in ("recipe", "run")
    }
    others = {NAMES.get(key, f"--{key.replace('_', '-')}") for mine, key in FOREIGN if mine == recipe}
    assert shown <= words
    assert not others & words


@pytest.mark.parametrize("recipe", RECORDS)
def test_every_field_of_a_recipe_says_what_it_is(recipe):
    fields = RECORDS[recipe].model_fields
    assert [key for key, field in fields.items() if key != "recipe" and not field.description] == []


def test_the_help_lists_the_recipes_and_the_options_that_all_have():
    text = helped()

    shared = set.intersection(*(set(record.model_fields) for record in RECORDS.values())) - {"recipe", "run"}
    assert all(NAMES.get(key, f"--{key.replace('_', '-')}") in text for key in shared)
    assert "--sparsity" not in text.split("Options of every recipe")[1]
    for recipe, record in RECORDS.items():
        assert f"{recipe} " in text
        assert " ".join(record.__doc__.split()) in " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(("recipe", "key"), FIELDS)
def test_an_option_reaches_the_record(configured, recipe, key):
    if key == "run":
        assert configured(recipe, "runs/any", *NEEDED.get(recipe, [])).run == Path("runs/any")
        return
    arguments, value = option(key, RECORDS[recipe].model_fields[key])
    needed = [] if key == "layers" else NEEDED.get(recipe, [])
    if key in ("readback", "error_compensation", "integer"):
        assert value is False
    if key == "exact_epochs":
        needed = [*needed, "--simulation", "surrogate", "--chip-epochs", 5]

    config = configured(recipe, "runs/any", *needed, *arguments)

    assert type(config) is RECORDS[recipe]
    assert getattr(config, key) == value
    assert getattr(config, key) != RECORDS[recipe].model_fields[key].get_default(call_default_factory=True)


@pytest.mark.parametrize(("recipe", "key"), FOREIGN)
def test_an_option_of_another_recipe_is_refused_with_those_that_use_it(configured, recipe, key):
    users = [name for name, record in RECORDS.items() if key in record.model_fields]
    arguments, _ = option(key, RECORDS[users[0]].model_fields[key])

    with pytest.raises(
        DataError, match=rf"{key} is .*, which recipe {recipe} does not use: it is of {', '.join(users)}"
    ):
        configured(recipe, "runs/any", *arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        ("runs/any", "--recipe", "crimp", "--sparsity", 0.3),
        ("--recipe=crimp", "runs/any", "--sparsity", 0.3),
        ("runs/any", "--sparsity", 0.3, "--recipe", "crimp"),
    ],
)
def test_the_recipe_may_be_named_by_an_option_as_before(configured, arguments):
    config = configured(*arguments)
    assert (config.name(), config.run, config.sparsity) == ("crimp", Path("runs/any"), 0.3)


def test_an_unknown_recipe_is_refused_with_those_there_are():
    with pytest.raises(DataError, match=r"recipe is 'grup'; allowed: conventional, .*did you mean 'group'"):
        CliRunner().invoke(app, ["optimize", "grup", "runs/any"], catch_exceptions=False)


def test_resume_and_overwrite_exclude_each_other(configured):
    with pytest.raises(DataError, match="exclude each other"):
        configured("group", "runs/any", "--resume", "--overwrite")


@pytest.mark.parametrize(("epochs", "exact"), [(2, 1), (3, 2), (9, 2)])
def test_the_last_two_epochs_are_exact_by_default_or_one_of_two(configured, epochs, exact):
    config = configured("psum-aware", "runs/any", "--simulation", "surrogate", "--chip-epochs", epochs)
    assert config.epochs_exact == exact


@pytest.mark.parametrize("option", ["--range-lr", "--tiles-a-step"])
def test_what_trains_adc_steps_is_refused_where_no_epoch_is_exact(configured, option):
    common = ("psum-aware", "runs/any", "--simulation", "surrogate", "--exact-epochs", 0, option, 1)
    with pytest.raises(DataError, match="which does nothing here: exact_epochs is 0, and the surrogate trains no ADC"):
        configured(*common)


def test_the_surrogate_needs_an_epoch_and_an_adc_to_stand_for(configured):
    common = ("psum-aware", "runs/any", "--simulation", "surrogate")
    assert configured(*common).simulation == "surrogate"
    with pytest.raises(DataError, match="exact_epochs is 2 of 2 chip_epochs, which leaves none for simulation"):
        configured(*common, "--exact-epochs", 2)
    with pytest.raises(DataError, match=r"exact_epochs is 1 of 1 chip_epochs, .*: raise chip_epochs$"):
        configured(*common, "--chip-epochs", 1)
    with pytest.raises(DataError, match="exact_epochs is 0, which does nothing here: simulation is 'exact'"):
        configured("psum-aware", "runs/any", "--exact-epochs", 0)
    with pytest.raises(DataError, match="simulation is 'surrogate', which does nothing here: aware is 'quantization'"):
        configured("quantization-aware", "runs/any", "--simulation", "surrogate")
