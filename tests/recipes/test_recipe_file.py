"""``recipe.json`` of this version and of the one before."""

import json
from pathlib import Path

import pytest

from bitline.cli.target import target
from bitline.errors import DataError
from bitline.recipes import RECORDS, checked, recipe_file
from bitline.recipes.files import Deployment

CRIMP = Path(__file__).parents[2] / "experiments" / "networks" / "resnet56-crimp"
FIRST = json.loads((CRIMP / "recipe.json").read_text())
GIVEN = {"mixed": {"layers": {"features.conv6.0": "group:2"}}}


def first(folder, recipe, **changes):
    """Write a file of the first version: all options of all recipes, at their defaults but for changes."""
    defaults = {
        **FIRST["settings"],
        "overrides": [],
        "chip": "rram-22nm",
        "epochs": None,
        "chip_epochs": None,
        "settle_epochs": 0,
        "chip_lr": 5e-5,
        "reprogram_every": 1,
        "sparsity": 0.5,
        "rounding": "nearest",
        "chips_before": None,
        "images": None,
        "threads": None,
        "checkpoint_every": None,
        "out": None,
        "run": "any",
    }
    folder.mkdir(exist_ok=True)
    content = {"recipe": recipe, "settings": {**defaults, "recipe": recipe, **changes}}
    (folder / "recipe.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("recipe", RECORDS)
def test_a_file_of_the_first_version_at_its_defaults_is_the_recipe_at_its_own(tmp_path, recipe):
    given = GIVEN.get(recipe, {})
    assert recipe_file.read(first(tmp_path, recipe, **given)) == checked(run="any", recipe=recipe, **given)


def test_a_network_of_the_first_version_has_its_options_chip_and_bias_correction():
    config, deployment = recipe_file.read(CRIMP), Deployment.of(CRIMP)

    assert (config.name(), config.sparsity, config.rounding, config.chips_before) == ("crimp", 0.5136, "up", 3)
    assert config.error_compensation
    assert deployment.chip.mitigation.readback
    assert deployment.bias_correction
    on_it = target(CRIMP, None, None, None)
    assert (on_it.chip, on_it.bias_correction) == (deployment.chip, True)


def test_options_that_had_another_name_keep_their_values(tmp_path):
    assert not recipe_file.read(first(tmp_path, "crimp", compensate=False)).error_compensation


def test_options_that_did_nothing_for_a_recipe_are_dropped(tmp_path):
    config = recipe_file.read(first(tmp_path, "conventional", chip_epochs=3, granularity="column", chip_lr=1e-3))
    assert config == checked(run="any", recipe="conventional")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sparsity": 0.3}, "sparsity is 0.3, which recipe group does not use: it is of crimp"),
        ({"proxy_batch": 32}, "unknown key 'proxy_batch'"),
        ({"lr": -1.0}, "lr is -1.0: Input should be greater than 0"),
    ],
)
def test_what_a_recipe_cannot_have_had_is_refused_with_the_file(tmp_path, changes, said):
    with pytest.raises(DataError, match=rf"recipe\.json: {said}"):
        recipe_file.read(first(tmp_path, "group", **changes))


@pytest.mark.parametrize("recipe", RECORDS)
def test_a_recipe_that_is_written_reads_as_it_was(tmp_path, recipe):
    config = checked(run="any", recipe=recipe, mapping={"depthwise": "strip"}, seed=3, **GIVEN.get(recipe, {}))
    recipe_file.write(tmp_path, config)

    content = json.loads((tmp_path / "recipe.json").read_text())
    assert recipe_file.read(tmp_path) == config
    assert content["version"] == recipe_file.VERSION
    assert set(content["settings"]) == set(type(config).model_fields) - {"recipe"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"version": 3, "recipe": "group", "settings": {"run": "any"}}, r"has version 3; allowed: 1, 2"),
        ({"recipe": "group"}, "has settings None; allowed"),
        ({"recipe": "grup", "settings": {}}, "recipe is 'grup'.*did you mean 'group'"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, said):
    (tmp_path / "recipe.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=said):
        recipe_file.read(tmp_path)


def test_training_on_the_chip_that_a_recipe_no_longer_does_is_refused(tmp_path):
    with pytest.raises(DataError, match="aware is 'psum': recipe conventional trained on the chip in version 1"):
        recipe_file.read(first(tmp_path, "conventional", aware="psum", chip_epochs=2))
