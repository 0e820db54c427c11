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
from bitline.nn import IDEAL, calibrate, crossbar_layers, program, to_crossbar
from bitline.train import TrainConfig, checked
from bitline.train.reprogram import Reprogram
from training_samples import assert_same_weights, on_digits, train_on_chip, until


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return datasets.load("digits")


def config(out: Path, **other: object) -> TrainConfig:
    settings = {"model": "lenet5", "data": "digits", "epochs": 2, "batch_size": 64, "threads": 1, "lr": 0.01}
    return checked(**{**settings, "precision": "32-true", "checkpoint_every": 3, "out": out, **other})


def train(config: TrainConfig, data: DataSet, *, resumed: bool = False) -> None:
    network, _ = on_digits(data, dropout=0.1)
    train_on_chip(network, config, data, [Reprogram(network, every=8, seed=config.seed)], resumed=resumed)


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
    until(monkeypatch, hook, call, lambda: train(config(tmp_path), digits))
    train(config(tmp_path), digits, resumed=True)

    expected = assert_same_weights(undisturbed, tmp_path)
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
