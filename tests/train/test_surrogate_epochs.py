"""Training by a surrogate, then exactly: what answers when, and that a killed run ends where it would have."""

from pathlib import Path
from typing import cast

import pytest
from torch import Tensor

from bitline import data as datasets
from bitline.data import DataSet
from bitline.nn import crossbar_layers
from bitline.train import TrainConfig, checked
from bitline.train.reprogram import Reprogram
from bitline.train.surrogate import SurrogateEpochs
from training_samples import assert_same_weights, on_digits, train_on_chip, until


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return datasets.load("digits")


def config(out: Path, **other: object) -> TrainConfig:
    settings = {"model": "lenet5", "data": "digits", "epochs": 3, "batch_size": 64, "threads": 1, "lr": 0.01}
    return checked(**{**settings, "precision": "32-true", "checkpoint_every": 3, "out": out, **other})


def train(config: TrainConfig, data: DataSet, *, resumed: bool = False) -> list[tuple[str, float]]:
    """Train two epochs by the surrogate and one exactly; return what answered each call, and the LSBs then."""
    network, images = on_digits(data)
    layer = crossbar_layers(network)["1"]
    seen: list[tuple[str, float]] = []
    lsb = cast("Tensor", layer.ranges.log2_lsb).detach()
    layer.register_forward_pre_hook(lambda m, x: seen.append((str(m.mode), float(lsb.sum()))))
    callbacks = [
        Reprogram(network, every=2, seed=config.seed),
        SurrogateEpochs(network, images, epochs=2, programmed=True, seed=config.seed),
    ]
    train_on_chip(network, config, data, callbacks, resumed=resumed)
    assert {layer.mode for layer in crossbar_layers(network).values()} == {"chip"}
    return seen


@pytest.fixture(scope="module")
def undisturbed(once, digits) -> Path:
    return once("surrogate epochs", lambda folder: train(config(folder), digits))


@pytest.mark.parametrize("call", [9, 26, 36, 60])
def test_training_by_a_surrogate_resumes_to_the_same_network(tmp_path, monkeypatch, digits, undisturbed, call):
    until(monkeypatch, "training_step", call, lambda: train(config(tmp_path), digits))
    train(config(tmp_path), digits, resumed=True)

    assert_same_weights(tmp_path, undisturbed)


def test_the_first_epochs_are_the_surrogates_and_leave_ranges_alone_and_tests_are_exact(tmp_path, digits):
    seen = train(config(tmp_path), digits)

    modes = [mode for mode, _ in seen]
    steps = len(digits.train_images) // 64
    assert modes.count("surrogate") == 2 * steps
    last = len(modes) - 1 - modes[::-1].index("surrogate")
    assert {lsb for _, lsb in seen[: last + 1]} == {seen[0][1]}
    assert seen[-1][1] != seen[0][1]
    assert modes.count("chip") > steps
