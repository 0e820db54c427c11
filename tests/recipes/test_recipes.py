import json
import shutil
from pathlib import Path

import pytest
import torch

from bitline import data as datasets
from bitline.errors import ChipError, DataError
from bitline.evaluation import Settings, assess
from bitline.models.files import load_run
from bitline.nn import crossbar_layers, to_crossbar
from bitline.nn.range_training import load_ranges
from bitline.recipes import RECORDS, checked
from bitline.recipes.files import Deployment
from bitline.recipes.run import optimize
from bitline.recipes.stages import Stages
from evaluation_files import check_file
from run_samples import trained

CHIP = ("crossbar.rows=64", "crossbar.active_rows=64", "adc.bits=4", "adc.granularity=layer")
SMALL = {
    "chip": "example-128",
    "overrides": CHIP,
    "epochs": 2,
    "chip_epochs": 2,
    "chips": 2,
    "images": 100,
    "calibration_images": 64,
    "structure_images": 128,
    "batch_size": 32,
    "test_images": 50,
    "threads": 1,
}

LONGER = {"psum-aware": {"chip_epochs": 6}}


def small(recipe, **changes):
    """Settings of a short run: those that the recipe has."""
    given = {**SMALL, **LONGER.get(recipe, {}), **changes}
    return {key: value for key, value in given.items() if key in RECORDS[recipe].model_fields}


def read(folder, name):
    return json.loads((folder / name).read_text())


@pytest.fixture(scope="module")
def results(made):
    class Results(dict):
        def __missing__(self, recipe):
            return made(recipe, recipe=recipe, **small(recipe))

    return Results()


@pytest.mark.parametrize("recipe", ["psum-aware", "group", "separable", "quantization-aware", "conventional"])
def test_every_recipe_leaves_a_run_directory_that_loads_and_evaluates(results, recipe):
    folder = results[recipe]
    run = load_run(folder)
    digits = datasets.load("digits")
    before, after = (check_file(folder / name) for name in ("evaluation_before.json", "evaluation.json"))

    assert read(folder, "recipe.json")["recipe"] == recipe
    assert before["seeds"] == after["seeds"] == [0, 1]
    assert before["data"] == after["data"]
    with torch.no_grad():
        right = sum(int((run.model(x).argmax(1) == y).sum()) for x, y in digits.batches("test"))
    assert right / len(digits.test_labels) == run.metrics["test_accuracy"]


def test_training_with_the_tiles_in_the_forward_path_wins_back_what_partial_sums_cost(results):
    before, after = (
        read(results["psum-aware"], name)["accuracy"] for name in ("evaluation_before.json", "evaluation.json")
    )

    assert before["mean"] < before["float"] - 5
    assert after["mean"] > before["mean"] + 5


def test_an_evaluation_with_the_ranges_of_a_run_is_the_one_that_the_recipe_wrote(results):
    folder = results["psum-aware"]
    deployment = Deployment.of(folder)
    settings = Settings(chips=2, images=100, calibration_images=64, cause_chips=1)

    digits, ranges = datasets.load("digits"), deployment.ranges
    again = assess(load_run(folder).model, digits, deployment.chip, settings, ranges=ranges)

    assert list(again.accuracy.chips) == read(folder, "evaluation.json")["accuracy"]["chips"]


def test_group_convolutions_need_no_partial_sums_and_cost_less(results):
    before, after = (read(results["group"], name) for name in ("evaluation_before.json", "evaluation.json"))

    assert max(layer["row_tiles"] for layer in before["layers"] if layer["kind"] == "conv2d") > 1
    assert all(layer["row_tiles"] == 1 for layer in after["layers"] if layer["kind"] == "conv2d")
    assert after["cost"]["energy_J"] < before["cost"]["energy_J"]


def test_a_new_structure_is_measured_before_any_training_too(results):
    untrained = read(results["separable"], "evaluation_untrained.json")

    assert untrained["seeds"] == [0, 1]
    assert not (results["psum-aware"] / "evaluation_untrained.json").exists()


def test_the_same_seed_gives_the_same_network_twice_and_after_a_kill(network, results, tmp_path, monkeypatch):
    config = checked(run=network, recipe="psum-aware", **small("psum-aware"), out=tmp_path / "again")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "keep", killed)
        with pytest.raises(KeyboardInterrupt):
            optimize(config)
    with pytest.raises(DataError, match=r"unfinished recipe.*--resume"):
        optimize(config)
    optimize(config, if_exists="resume")

    first = read(results["psum-aware"], "evaluation.json")["accuracy"]
    assert read(tmp_path / "again", "evaluation.json")["accuracy"] == first
    a, b = (load_run(folder).model.state_dict() for folder in (results["psum-aware"], tmp_path / "again"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_finished_recipe_is_left_as_it_is_and_other_settings_are_refused(network, results):
    folder = results["conventional"]
    stamp = (folder / "evaluation.json").stat().st_mtime_ns

    optimize(checked(run=network, recipe="conventional", **small("conventional"), out=folder), if_exists="resume")

    assert (folder / "evaluation.json").stat().st_mtime_ns == stamp
    with pytest.raises(DataError, match="a finished recipe"):
        optimize(checked(run=network, recipe="conventional", **small("conventional"), out=folder))
    other = checked(run=network, recipe="conventional", **small("conventional", lr=0.5), out=folder)
    with pytest.raises(DataError, match=r"lr 0\.5 \(was 0\.02\)"):
        optimize(other, if_exists="resume")


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"recipe": "grup"}, "recipe is 'grup'.*did you mean 'group'"),
        ({"recipe": "group", "epoch": 3}, "unknown key 'epoch'.*did you mean 'epochs'"),
        ({"recipe": "group", "distill": 2.0}, "distill is 2.0"),
        ({"recipe": "group", "aware": "tiles"}, "aware is 'tiles'"),
        ({"recipe": "psum-aware", "mix": True}, "mix is True, which recipe psum-aware does not use: it is of group"),
        ({"recipe": "group", "trials": 7}, "trials is 7, which recipe group does not use: it is of auto"),
        ({"recipe": "mixed"}, "recipe mixed needs layers"),
    ],
)
def test_nonsense_is_refused_with_the_value_and_those_allowed(tmp_path, values, said):
    with pytest.raises(DataError, match=said):
        checked(run=tmp_path, **values)


def test_a_chip_that_does_not_exist_is_refused_before_anything_is_written(network, tmp_path):
    with pytest.raises(ChipError, match="rram-23nm"):
        optimize(checked(run=network, recipe="group", chip="rram-23nm", out=tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_threads_may_change_at_a_resume_in_the_middle_of_a_stage(network, tmp_path, monkeypatch):
    config = checked(run=network, recipe="conventional", **small("conventional", epochs=1), out=tmp_path / "out")

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("bitline.train.run._finish", killed)
        with pytest.raises(KeyboardInterrupt):
            optimize(config)
    folder = optimize(config.model_copy(update={"threads": 2, "checkpoint_every": 5}), if_exists="resume")

    assert (folder / "evaluation.json").is_file()


def test_a_recipe_is_not_written_over_the_network_that_it_begins_with(results):
    folder = results["conventional"]

    for run in (folder, folder / "float"):
        with pytest.raises(DataError, match="holds the network that the recipe begins with"):
            optimize(checked(run=run, recipe="group", **small("group"), out=folder), if_exists="overwrite")
    assert (folder / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ({"teacher": Path("nowhere")}, "nowhere"),
        ({"epoch_images": 10**6}, "epoch_images is 1000000; allowed: 1 to 1442 training images"),
        ({"batch_size": 10**6}, "batch_size is 1000000; allowed: 1 to 1442 training images"),
        ({"images": 10**6}, "images is 1000000; allowed: 1 to 355, the test images"),
    ],
)
def test_a_mistake_overwrites_nothing_and_leaves_nothing_behind(results, network, tmp_path, mistake, message):
    folder = tmp_path / "recipe"
    shutil.copytree(results["conventional"], folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    wrong = {"run": network, "recipe": "conventional", **small("conventional"), **mistake}

    with pytest.raises(DataError, match=message):
        optimize(checked(**wrong, out=folder), if_exists="overwrite")
    with pytest.raises(DataError, match=message):
        optimize(checked(**wrong, out=tmp_path / "new"))

    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "new").exists()


def test_a_recipe_on_the_result_of_another_starts_from_what_that_one_reached(results, tmp_path):
    settings = small("psum-aware", epochs=0, chip_epochs=0)
    origin = results["psum-aware"]

    chained = optimize(checked(run=origin, recipe="psum-aware", **settings, out=tmp_path / "chained"))

    reached, before, after = (
        read(folder, name)["accuracy"]["chips"]
        for folder, name in (
            (origin, "evaluation.json"),
            (chained, "evaluation_before.json"),
            (chained, "evaluation.json"),
        )
    )
    assert before == reached
    assert not (chained / "ranges.safetensors").exists()  # nothing was trained: ranges are calibrated
    assert len(after) == len(before)


def test_the_row_tiles_of_a_step_are_those_asked_for(network, tmp_path, monkeypatch):
    seen = {}

    def train(model, *args, **kwargs):
        seen.update({name: layer.tiles_a_step for name, layer in crossbar_layers(model).items()})
        raise KeyboardInterrupt

    monkeypatch.setattr("bitline.recipes.on_chip.train_network", train)
    for asked in (None, 1):
        settings = small("psum-aware", epochs=0, tiles_a_step=asked)
        config = checked(run=network, recipe="psum-aware", **settings, out=tmp_path / str(asked))
        with pytest.raises(KeyboardInterrupt):
            optimize(config)
        assert set(seen.values()) == {asked}


def test_row_tiles_that_no_layer_has_more_of_are_refused_before_anything_is_done(network, tmp_path):
    settings = small("psum-aware", epochs=0, tiles_a_step=64)
    config = checked(run=network, recipe="psum-aware", **settings, out=tmp_path / "out")
    with pytest.raises(DataError, match=r"tiles_a_step is 64; no layer has more than \d+ row tiles on .*: "):
        optimize(config)
    assert not (tmp_path / "out" / "evaluation_before.json").exists()


def test_ranges_that_no_epoch_trains_have_the_granularity_asked_for_and_are_said_to_be_untrained(tmp_path):
    run = trained(tmp_path / "run", model="lenet5")
    told: list[str] = []
    given = small("psum-aware", chip_epochs=1, simulation="surrogate", exact_epochs=0, granularity="column", epochs=0)
    out = optimize(checked(recipe="psum-aware", run=run, out=tmp_path / "out", **given), say=told.append)

    chip = Deployment.of(out).chip
    assert (chip.adc.policy, chip.adc.granularity) == ("trained", "column")
    model = to_crossbar(load_run(out).model, chip).model
    load_ranges(model, out / "ranges.safetensors")
    for layer in crossbar_layers(model).values():
        assert layer.ranges.adc_lsb.numel() >= layer.placement.matmul.cols
    assert any("none exactly, so that ADC ranges stay as calibrated before" in line for line in told)
