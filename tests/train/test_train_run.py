import csv
import json
import logging
import math
import random
import shutil

import pytest
import torch
from torch import nn

from bitline.data import load
from bitline.errors import DataError
from bitline.models.files import load_run
from bitline.train import TrainConfig, checked
from bitline.train import run as run_module
from bitline.train.module import Classifier
from bitline.train.run import train

TINY = {"model": "lenet5", "data": "digits", "epochs": 2, "batch_size": 64, "threads": 1, "precision": "32-true"}


@pytest.fixture(scope="module")
def finished(once):
    return once("lenet5", lambda folder: train(checked(**{**TINY, "epochs": 8, "batch_size": 32}, out=folder)))


def test_a_run_leaves_weights_record_configuration_metrics_checkpoint_and_logs(finished):
    config = json.loads((finished / "config.json").read_text())
    metrics = json.loads((finished / "metrics.json").read_text())

    assert config["lr"] == 0.02
    assert (config["flip"], config["crop"], config["precision"]) == (False, 0, "32-true")
    assert config["version"]
    assert [point["epoch"] for point in metrics["curve"]] == list(range(1, 9))
    assert metrics["data"] == "digits 8x8"
    assert metrics["test_accuracy"] == metrics["curve"][-1]["test_accuracy"]
    assert metrics["hardware"]["threads"] == 1
    assert (finished / "checkpoints" / "last.ckpt").is_file()
    with (finished / "logs" / "csv" / "part_0" / "metrics.csv").open() as file:
        assert any(row["test_accuracy"] for row in csv.DictReader(file))
    assert list((finished / "logs" / "tensorboard").glob("events*"))
    assert not list(finished.rglob("*.tmp"))


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_steps_are_those_of_nesterovs_momentum(momentum):
    network = nn.Linear(1, 1, bias=False)
    config = checked(model="lenet5", data="digits", lr=0.5, momentum=momentum, weight_decay=0.0)
    optimizer = Classifier(network, config, steps=10).configure_optimizers()["optimizer"]
    velocity, wanted, rate = 0.0, float(network.weight.detach()), optimizer.param_groups[0]["lr"]

    for slope in (1.0, -2.0, 0.5):
        network.weight.grad = torch.full((1, 1), slope)
        optimizer.step()
        velocity = momentum * velocity + slope
        wanted -= rate * (slope + momentum * velocity)
        assert float(network.weight.detach()) == pytest.approx(wanted, rel=1e-5)


def test_lenet5_learns_the_digits(finished):
    assert json.loads((finished / "metrics.json").read_text())["test_accuracy"] > 0.95


def test_a_run_loads_as_the_network_that_was_measured(finished):
    run = load_run(finished)
    data = load(run.record.data)

    correct = sum(int((run.model(x).argmax(1) == y).sum()) for x, y in data.batches("test"))

    assert correct / len(data.test_labels) == run.metrics["test_accuracy"]
    assert (run.record.mean, run.record.std, run.record.classes) == (data.mean, data.std, data.classes)
    assert not run.model.training


def test_two_seeds_give_two_networks_and_one_seed_the_same_twice(tmp_path):
    runs = [train(checked(**TINY, seed=seed, out=tmp_path / str(i))) for i, seed in enumerate((3, 3, 4))]

    first, again, other = (load_run(run).model.state_dict() for run in runs)

    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["features.0.weight"], other["features.0.weight"])


def test_training_leaves_the_callers_random_numbers_threads_and_loggers_alone(tmp_path):
    torch.manual_seed(7)
    random.seed(7)
    before = (torch.get_rng_state().clone(), random.getstate(), torch.get_num_threads())
    levels = [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")]

    train(checked(**{**TINY, "epochs": 1}, out=tmp_path / "run"))

    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), torch.get_num_threads()) == before[1:]
    assert [logging.getLogger(name).level for name in ("lightning.pytorch", "lightning.fabric")] == levels


@pytest.mark.parametrize("schedule", ["cosine", "onecycle"])
def test_every_schedule_trains(tmp_path, schedule):
    run = train(checked(**TINY, schedule=schedule, out=tmp_path / "run"))

    losses = [point["train_loss"] for point in json.loads((run / "metrics.json").read_text())["curve"]]

    assert losses[1] < losses[0]


def test_bf16_and_batch_norm_train(tmp_path):
    run = train(checked(**{**TINY, "model": "vgg8", "precision": "bf16-mixed"}, width=0.05, out=tmp_path / "run"))

    assert json.loads((run / "config.json").read_text())["lr"] == 0.1
    assert all(weight.dtype == torch.float32 for weight in load_run(run).model.parameters())


def test_a_run_starts_from_the_weights_of_another(finished, tmp_path):
    run = train(checked(**{**TINY, "epochs": 1, "lr": 1e-9}, init=finished, out=tmp_path / "run"))

    before, after = (load_run(place).model.state_dict() for place in (finished, run))

    for key in before:
        torch.testing.assert_close(after[key], before[key], rtol=0, atol=1e-5)


@pytest.mark.parametrize(("every", "looked"), [(0, []), (2, [2])])
def test_the_test_images_are_looked_at_as_often_as_asked(tmp_path, every, looked):
    run = train(checked(**{**TINY, "epochs": 3}, test_every=every, out=tmp_path / "run"))

    metrics = json.loads((run / "metrics.json").read_text())
    assert [point["epoch"] for point in metrics["curve"] if "test_accuracy" in point] == looked
    assert 0 <= metrics["test_accuracy"] <= 1


def test_overwrite_starts_again_and_leaves_foreign_files(tmp_path):
    run = train(checked(**TINY, out=tmp_path / "run"))
    (run / "notes.txt").write_text("mine")

    train(checked(**{**TINY, "epochs": 1}, out=run), if_exists="overwrite")

    assert len(load_run(run).metrics["curve"]) == 1
    assert (run / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize(
    "mistake",
    [
        {"model": "lenet"},
        {"data": "cifar"},
        {"epoch_images": 10**6},
        {"batch_size": 10**6},
        {"crop": 8},
        {"teacher": "nowhere"},
        {"init": "nowhere"},
    ],
)
def test_a_mistake_overwrites_nothing(tmp_path, finished, mistake):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    if "init" in mistake or "teacher" in mistake:
        mistake = {key: tmp_path / place for key, place in mistake.items()}
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    with pytest.raises(DataError):
        train(checked(**{**TINY, **mistake}, out=run), if_exists="overwrite")

    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_a_network_from_a_file_trains_and_loads_only_when_its_code_is_trusted(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nclass Net(nn.Sequential):\n"
        "    def __init__(self):\n        super().__init__(nn.Flatten(), nn.Dropout(0.1), nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)

    run = train(checked(**{**TINY, "model": "mine.py:Net"}))

    assert run.as_posix() == "runs/Net-digits"
    with pytest.raises(DataError, match=r"mine\.py:Net; loading it runs that file: add --trust-code"):
        load_run(run)
    monkeypatch.chdir("/")
    assert isinstance(load_run(tmp_path / run, trust_code=True).model[2], nn.Linear)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"model": "lenet"}, "model is 'lenet'; allowed: vgg8, .*; did you mean 'lenet5'?"),
        ({"model": "vgg16"}, "image_size 8: 5 poolings by two need at least 32 px"),
        ({"batch_size": 2000}, "batch_size is 2000; allowed: 1 to 1442"),
        ({"epoch_images": 2000}, "epoch_images is 2000; allowed: 1 to 1442"),
        ({"epoch_images": 50, "batch_size": 60}, "epoch_images is 50; allowed: 60, which batch_size is, or more"),
        ({"crop": 8}, "crop is 8; allowed: 0 to 7 px"),
        ({"lr": 1e9}, "the loss is .* in epoch 1: lower lr"),
    ],
)
def test_what_cannot_be_trained_is_an_error_that_says_why(tmp_path, given, message):
    with pytest.raises(DataError, match=message):
        train(checked(**{**TINY, **given}, out=tmp_path / "run"))


def test_a_network_with_another_number_of_outputs_is_refused(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef net(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 7))\n"
    )

    with pytest.raises(DataError, match=r"answers \(2, 7\) to 2 images of digits 8x8; expected \(2, 10\)"):
        train(checked(**{**TINY, "model": f"{tmp_path}/mine.py:net"}, out=tmp_path / "run"))


def test_an_unknown_key_is_refused_with_the_nearest_known_one():
    with pytest.raises(DataError, match=r"unknown key 'epcohs'; allowed: model, .*did you mean 'epochs'"):
        TrainConfig(model="vgg8", epcohs=3)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epochs", 0),
        ("lr", -1.0),
        ("lr", math.inf),
        ("width", 0.0),
        ("schedule", "step"),
        ("precision", "16"),
        ("seed", -1),
    ],
)
def test_an_impossible_value_is_refused_and_named(key, value):
    with pytest.raises(DataError, match=f"{key} is {value!r}: "):
        checked(model="vgg8", **{key: value})


def test_ctrl_c_is_a_keyboard_interrupt_and_leaves_the_signal_as_it_was(tmp_path, monkeypatch):
    import signal

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(run_module.Classifier, "training_step", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))

    with pytest.raises(KeyboardInterrupt):
        train(checked(**TINY, out=tmp_path / "run"))
    assert signal.getsignal(signal.SIGINT) is before
