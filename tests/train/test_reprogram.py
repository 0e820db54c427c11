"""Training on programmed chips whose reads are noisy: killed and resumed, it ends where it would have."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from bitline import data as datasets
from bitline import load_chip
from bitline.data import DataSet
from bitline.models.record import ModelRecord
from bitline.nn import IDEAL, calibrate, crossbar_layers, program, to_crossbar
from bitline.nn.range_training import train_ranges
from bitline.train import TrainConfig, checked
from bitline.train.module import Classifier
from bitline.train.reprogram import Reprogram
from bitline.train.run import train_network


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return datasets.load("digits")


def config(out: Path, **other: object) -> TrainConfig:
    settings = {"model": "lenet5", "data": "digits", "epochs": 2, "batch_size": 64, "threads": 1, "lr": 0.01}
    return checked(**{**settings, "precision": "32-true", "checkpoint_every": 3, "out": out, **other})


def train(config: TrainConfig, data: DataSet, *, resumed: bool = False) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 10))
    images = next(data.batches("train", batch_size=32, limit=32))[0]
    network = to_crossbar(plain, load_chip("example-128", ["adc.policy=trained"]), example=images).model
    calibrate(network, [images])
    train_ranges(network)
    record = ModelRecord(
        model="lenet5", kwargs={}, data="digits", title="", classes=data.classes, channels=1, image_size=8,
        mean=data.mean, std=data.std,
    )  # fmt: skip
    reprogram = Reprogram(network, every=8, seed=config.seed)
    train_network(
        network, record, config, data, resumed=resumed, callbacks=[reprogram], rates={"log2_lsb": 1e-2},
        test_images=50, finish=lambda trained: trained,
    )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(once, digits) -> Path:
    return once("noisy", lambda folder: train(config(folder), digits))


@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("training_step", 9),
        ("training_step", 21),
        ("training_step", 36),
        ("validation_step", 1),
        ("validation_step", 2),
    ],
)
def test_training_with_read_noise_resumes_to_the_same_network(tmp_path, monkeypatch, digits, undisturbed, hook, call):
    calls, original = 0, getattr(Classifier, hook)

    def dying(self, *args):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KilledError
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, hook, dying)
        with pytest.raises(KilledError):
            train(config(tmp_path), digits)
    train(config(tmp_path), digits, resumed=True)

    resumed, expected = (load_file(run / "model.safetensors") for run in (tmp_path, undisturbed))
    assert resumed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name
    assert int(expected["1.reads"][1, 0]) > 0


def test_tests_on_ideal_cells_change_no_bit_of_training(tmp_path, digits, undisturbed):
    train(config(tmp_path, test_every=0), digits)

    untested, tested = (load_file(run / "model.safetensors") for run in (tmp_path, undisturbed))
    for name, tensor in tested.items():
        assert torch.equal(untested[name], tensor), name


def test_a_chip_is_programmed_once_for_its_steps_and_a_test_leaves_it_as_it_was():
    network = to_crossbar(nn.Sequential(nn.Linear(8, 4)), load_chip("example-128")).model
    calibrate(network, [torch.rand(4, 8)])
    (layer,) = crossbar_layers(network).values()
    callback = Reprogram(network, every=2, seed=1)
    seen = []
    for step in range(5):
        callback.on_train_batch_start(SimpleNamespace(global_step=step), None, None, 0)  # pyright: ignore
        network(torch.rand(3, 8))
        seen.append((int(layer.chip_seed), layer.reads.counts[True, 0]))
        callback.on_validation_start(None, None)  # pyright: ignore
        assert int(layer.chip_seed) == IDEAL
        callback.on_validation_end(None, None)  # pyright: ignore
    assert [reads for _, reads in seen] == [3, 6, 3, 6, 3]
    assert len({seed for seed, _ in seen}) == 3
    program(network, IDEAL)
    callback.on_train_batch_start(SimpleNamespace(global_step=4), None, None, 0)  # pyright: ignore
    assert int(layer.chip_seed) == seen[-1][0]
