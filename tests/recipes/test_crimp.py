import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from bitline import chip as chips
from bitline.cli import app
from bitline.compress.prune.sparsity import weights, weights_left
from bitline.data import load
from bitline.errors import ChipError, ConversionError, DataError
from bitline.models.files import load_run
from bitline.nn import crossbar_layers, to_crossbar
from bitline.recipes import checked, crimp
from bitline.recipes.crimp import Zerorize, chip_of
from bitline.recipes.files import Deployment
from bitline.recipes.run import optimize
from bitline.train import checked as checked_training
from bitline.train.zerorize import ZerorizeRecover

SMALL = {
    "recipe": "crimp",
    "chip": "crimp-32nm",
    "sparsity": 0.6,
    "epochs": 12,
    "chip_epochs": 3,
    "lr": 0.05,
    "chips": 2,
    "images": 100,
    "calibration_images": 64,
    "batch_size": 32,
    "test_images": 50,
    "threads": 1,
    "chip_lr": 5e-4,
    "reprogram_every": 4,
    "chips_before": 1,
    "settle_epochs": 1,
    "precision": "32-true",
    "overrides": ("crossbar.rows=32", "crossbar.cols=32", "crossbar.active_rows=32", "adc.columns_per_adc=32"),
}


@pytest.fixture(scope="module")
def folder(made):
    return made("crimp", **SMALL)


def read(folder, name):
    return json.loads((folder / name).read_text())


def test_the_network_is_as_sparse_as_asked_by_kernels_and_by_crossbars(folder):
    pruning = read(folder, "pruning.json")
    packed = read(folder / "packed", "metrics.json")

    assert pruning["sparsity"] == pytest.approx(SMALL["sparsity"], abs=0.05)
    assert pruning["crossbars_after"] < 0.6 * pruning["crossbars_before"]
    assert packed["test_accuracy"] > 0.5
    kinds = [rewrite.kind for rewrite in load_run(folder).record.rewrites]
    assert "shrink" in kinds


def test_kernels_left_are_a_multiple_of_the_weight_columns(network, folder):
    columns = chips.load("crimp-32nm", list(SMALL["overrides"])).weight_columns
    before, after = (dict(load_run(f).model.named_modules()) for f in (network, folder))
    fewer = 0
    for name, module in after.items():
        if isinstance(module, torch.nn.Conv2d) and module.out_channels < before[name].out_channels:
            assert module.out_channels % columns == 0, name
            fewer += 1
    assert fewer > 0


def test_training_on_the_chip_leaves_removed_crossbars_removed(folder):
    pruning, evaluation = read(folder, "pruning.json"), read(folder, "evaluation.json")

    assert sum(layer["crossbars"] for layer in evaluation["layers"]) == pruning["crossbars_after"]


def test_each_stage_draws_its_own_numbers(folder):
    stages = ("kernels", "crossbars", "chip")
    assert len({json.loads((folder / stage / "config.json").read_text())["seed"] for stage in stages}) == 3


def test_the_pruned_network_answers_well_on_faulty_chips(folder):
    before, after = (read(folder, name)["accuracy"] for name in ("evaluation_before.json", "evaluation.json"))

    assert after["float"] > before["float"] - 10
    assert after["mean"] > before["mean"] + 30


def test_the_network_before_may_be_measured_on_fewer_chips(folder):
    before, after = (read(folder, name) for name in ("evaluation_before.json", "evaluation.json"))
    assert len(before["accuracy"]["chips"]) == 1
    assert len(after["accuracy"]["chips"]) == SMALL["chips"]


def test_what_is_left_is_integers_only(folder):
    deployment, run = Deployment.of(folder), load_run(folder)
    assert deployment.chip.weights.scale == deployment.chip.inputs.scale == "power_of_two"
    assert deployment.chip.weights.bias_bits == 16
    model, _ = to_crossbar(run.model, deployment.chip, example=torch.zeros(2, 1, 8, 8))
    for layer in crossbar_layers(model).values():
        mantissa, _ = torch.frexp(layer.cells.weights(layer).scale(layer.chip.weights))
        assert bool((mantissa == 0.5).all())


def test_cost_prices_the_crossbars_that_are_left_on_the_chip_of_the_run(folder):
    printed = CliRunner().invoke(app, ["cost", str(folder), "--json", "-"])

    assert printed.exit_code == 0
    assert json.loads(printed.output)["chip"] == "crimp-32nm"
    assert json.loads(printed.output)["crossbars"] == read(folder, "pruning.json")["crossbars_after"]


def test_a_recipe_killed_twice_goes_on_to_the_same_network(network, folder, tmp_path, monkeypatch):
    def stop(line):
        if "training, crossbars" in line:
            raise KeyboardInterrupt

    def stop_while_a_chip_is_in_use(self, trainer, *_):
        if self.factors is None and trainer.global_step == 51:
            raise InterruptedError

    config = checked(run=network, **SMALL, checkpoint_every=5, out=tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        optimize(config, say=stop)
    with monkeypatch.context() as patch:
        patch.setattr(ZerorizeRecover, "on_before_zero_grad", stop_while_a_chip_is_in_use)
        with pytest.raises(InterruptedError):
            optimize(config, if_exists="resume")
    again = optimize(config, if_exists="resume")

    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert read(again, "evaluation.json")["accuracy"]["chips"] == read(folder, "evaluation.json")["accuracy"]["chips"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 1}, "epochs is 1; crimp has 2 phases of an epoch or more each"),
        ({"kernel_groups": False, "crossbar_blocks": False}, "both off"),
    ],
)
def test_what_leaves_a_phase_without_an_epoch_or_no_phase_is_refused(network, options, said):
    with pytest.raises(DataError, match=said):
        checked(run=network, **{**SMALL, **options})


def test_an_adc_that_is_not_linear_is_refused_before_anything_is_written(network, tmp_path):
    overrides = (*SMALL["overrides"], "adc.policy=calibrated")
    config = checked(run=network, **{**SMALL, "overrides": overrides}, out=tmp_path / "run")
    with pytest.raises(DataError, match="simulation is 'linear', which chip crimp-32nm with adc"):
        optimize(config)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("option", "value"), [("sparsity", 0.3), ("zerorize", False), ("rank", "factor")])
def test_other_recipes_refuse_what_is_of_crimp(network, option, value):
    with pytest.raises(DataError, match=f"{option} is .*, which recipe group does not use: it is of crimp"):
        checked(run=network, recipe="group", **{option: value})


def test_a_network_settles_in_floating_point_before_it_learns_on_the_chip(network, monkeypatch):
    config = checked(run=network, recipe="crimp", chip="crimp-32nm", settle_epochs=2, calibration_images=8)
    run, data = load_run(network), load("digits")
    stage = Zerorize("chip", run.model, run.record, config.load_chip(), config, data, 0.0)
    found = []
    monkeypatch.setattr(crimp, "train_network", lambda *_, callbacks, **__: found.extend(callbacks))

    stage.run(checked_training(model="vgg8", data="digits", epochs=5), resumed=False)

    (leader,) = found
    assert [leader.schedule.zeroes(epoch) for epoch in range(5)] == [False, False, True, True, True]


def test_a_pruned_network_is_adapted_to_another_chip_without_pruning(network, folder, tmp_path):
    changes = {
        "kernel_groups": False,
        "crossbar_blocks": False,
        "settle_epochs": 0,
        "readback": False,
        "chip_lr": 2e-3,
        "chips": 4,
        "images": 200,
        "overrides": (*SMALL["overrides"], "cell.programming.sigma=0.5", "cell.faults={stuck_off=0.0, stuck_on=0.0}"),
    }

    def trained(epochs):
        kept = {key: value for key, value in SMALL.items() if key != "epochs"}
        options = {**kept, **changes, "chip_epochs": epochs}
        return optimize(checked(run=folder, **options, teacher=network, out=tmp_path / str(epochs)))

    again, untrained = trained(4), trained(0)

    assert not (again / "crossbars").exists()
    assert read(again / "chip", "config.json")["teacher"] == str(network)
    assert Deployment.of(again).chip.cell.programming.sigma == 0.5
    assert read(again, "pruning.json")["crossbars_after"] == read(folder, "pruning.json")["crossbars_after"]
    after, before = (read(run, "evaluation.json")["accuracy"]["mean"] for run in (again, untrained))
    assert after > before + 4


def test_a_pruned_network_is_pruned_further_to_the_share_of_its_weights_that_is_asked(network, folder, tmp_path):
    options = {**SMALL, "sparsity": 0.7, "epochs": 2, "settle_epochs": 0, "chip_epochs": 0, "chips": 1, "images": 20}
    again = optimize(checked(run=folder, **options, teacher=network, out=tmp_path / "run"))

    before, after = (load_run(run).model for run in (folder, again))
    assert weights_left(before) < 0.95 * weights(before)  # crossbars that are zero already
    assert 1 - weights_left(after) / weights(before) == pytest.approx(0.7, abs=0.05)
    assert read(again, "pruning.json")["sparsity"] == pytest.approx(0.7, abs=0.05)


@pytest.mark.slow
def test_epochs_of_all_stages_have_as_many_images_as_asked(network, tmp_path):
    options = {**SMALL, "epochs": 2, "epoch_images": 400, "batch_size": 100, "chips": 1, "images": 20}
    run = optimize(checked(run=network, **options, out=tmp_path / "run"))

    for stage, epochs in (("kernels", 1), ("crossbars", 1), ("chip", 1 + options["chip_epochs"])):
        state = torch.load(run / stage / "checkpoints" / "last.ckpt", weights_only=True)
        assert state["global_step"] == 4 * epochs


class _Full:
    def target(self, sparsity):
        raise ConversionError(f"sparsity is {sparsity}; allowed: up to 0.4")


@pytest.mark.parametrize("rounding", ["nearest", "up"])
def test_scales_are_powers_of_two_and_biases_as_wide_as_the_chip_says(network, rounding):
    config = checked(run=network, recipe="crimp", chip="crimp-32nm", rounding=rounding)

    powers = ("weights.scale=power_of_two", "inputs.scale=power_of_two")
    for overrides, bits in (((), 16), ((*powers, "weights.bias_bits=8"), 8)):
        chip = chip_of(chips.load("crimp-32nm", overrides), config)
        assert (chip.weights.scale, chip.weights.rounding, chip.weights.bias_bits) == ("power_of_two", rounding, bits)
        assert (chip.inputs.scale, chip.inputs.rounding) == ("power_of_two", "up")


@pytest.mark.slow
def test_what_a_phase_cannot_prune_is_said_and_written(network, tmp_path):
    said = []
    options = {**SMALL, "epochs": 2, "chip_epochs": 0, "settle_epochs": 0, "chips": 1, "images": 20}
    run = optimize(checked(run=network, **options, out=tmp_path / "run"), say=said.append)

    left = read(run, "pruning.json")["left"]["kernels"]
    names = {name for name, _ in load_run(network).model.named_modules()}
    assert left
    assert {each["name"] for each in left} <= names
    assert [line for line in said if line.startswith("kernels: left as they are, ")]


@pytest.mark.parametrize("rank", ["loss", "factor"])
def test_removed_crossbars_learn_nothing_when_a_network_is_pruned_further(network, folder, tmp_path, rank):
    options = {
        **SMALL,
        "sparsity": 0.65,
        "epochs": 2,
        "settle_epochs": 0,
        "chip_epochs": 0,
        "chips": 1,
        "images": 20,
        "rank": rank,
    }
    again = optimize(checked(run=folder, **options, kernel_groups=False, zero_start=0.0, out=tmp_path / "run"))

    before, after = (dict(load_run(run).model.named_parameters()) for run in (folder, again))
    zeros = {name: value == 0 for name, value in before.items() if name.endswith("weight") and (value == 0).any()}
    assert zeros
    for name, zero in zeros.items():
        assert not after[name][zero].any()
        assert after[name].any()
    assert read(again, "pruning.json")["sparsity"] == pytest.approx(0.65, abs=0.05)


def test_what_cannot_be_removed_is_refused_at_the_start_and_capped_once_there_is_training_to_lose(network):
    config = checked(run=network, recipe="crimp", chip="crimp-32nm")
    stage = Zerorize("crossbars", nn.Identity(), None, config.load_chip(), config, None, 0.9)
    with pytest.raises(ConversionError, match=r"up to 0\.4"):
        stage._ratio(_Full(), capped=False)
    assert stage._ratio(_Full(), capped=True) == 1.0


def test_a_chip_that_cannot_be_read_back_is_refused_with_the_switch_that_helps(network, tmp_path):
    overrides = (*SMALL["overrides"], "mitigation.verify=0.5")
    config = checked(run=network, **{**SMALL, "overrides": overrides}, out=tmp_path / "run")
    with pytest.raises(ChipError, match=r"mitigation\.verify = 0\.5 with readback = true.*--no-readback"):
        optimize(config)
    without = chip_of(config.load_chip(), config.model_copy(update={"readback": False})).mitigation
    assert without.nearest
    assert not without.readback
    assert without.rewrites == 0


@pytest.mark.parametrize(("asked", "on_chip", "found"), [(None, 0, 2), (None, 3, 3), (0, 3, 0), (1, 0, 1)])
def test_cells_are_written_again_as_often_as_the_recipe_or_the_chip_says(network, asked, on_chip, found):
    own = (f"mitigation={{readback=true, rewrites={on_chip}}}",)
    config = checked(run=network, **{**SMALL, "overrides": (*SMALL["overrides"], *own)}, rewrites=asked)
    assert chip_of(config.load_chip(), config).mitigation.rewrites == found
    without = config.model_copy(update={"readback": False})
    assert chip_of(config.load_chip(), without).mitigation.rewrites == on_chip


@pytest.mark.parametrize("off", ["readback", "error_compensation"])
def test_rewrites_without_a_read_are_refused(network, off):
    with pytest.raises(DataError, match=r"rewrites is 1, which needs readback and error_compensation"):
        checked(run=network, recipe="crimp", chip="crimp-32nm", rewrites=1, **{off: False})
