"""Training by a surrogate, then exactly: what answers when, and that a killed run ends where it would have."""

from pathlib import Path
from typing import cast

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from bitline import data as datasets
from bitline import load_chip
from bitline.data import DataSet
from bitline.models.record import ModelRecord
from bitline.nn import calibrate, crossbar_layers, to_crossbar
from bitline.nn.range_training import train_ranges
from bitline.train import TrainConfig, checked
from bitline.train.module import Classifier
from bitline.train.reprogram import Reprogram
from bitline.train.run import train_network
from bitline.train.surrogate import SurrogateEpochs


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def digits() -> DataSet:
    return datasets.load("digits")


def config(out: Path, **other: object) -> TrainConfig:
    settings = {"model": "lenet5", "data": "digits", "epochs": 3, "batch_size": 64, "threads": 1, "lr": 0.01}
    return checked(**{**settings, "precision": "32-true", "checkpoint_every": 3, "out": out, **other})


def train(config: TrainConfig, data: DataSet, *, resumed: bool = False) -> list[tuple[str, float]]:
    """Train two epochs by the surrogate and one exactly; return what answered each call, and the LSBs then."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))
    images = next(data.batches("train", batch_size=32, limit=32))[0]
    network = to_crossbar(plain, load_chip("example-128", ["adc.policy=trained"]), example=images).model
    calibrate(network, [images])
    train_ranges(network)
    record = ModelRecord(
        model="lenet5", kwargs={}, data="digits", title="", classes=data.classes, channels=1, image_size=8,
        mean=data.mean, std=data.std,
    )  # fmt: skip
    layer = crossbar_layers(network)["1"]
    seen: list[tuple[str, float]] = []
    lsb = cast("Tensor", layer.ranges.log2_lsb).detach()
    layer.register_forward_pre_hook(lambda m, x: seen.append((str(m.mode), float(lsb.sum()))))
    callbacks = [
        Reprogram(network, every=2, seed=config.seed),
        SurrogateEpochs(network, images, epochs=2, programmed=True, seed=config.seed),
    ]
    train_network(
        network, record, config, data, resumed=resumed, callbacks=callbacks, rates={"log2_lsb": 1e-2},
        test_images=50, finish=lambda trained: trained,
    )  # fmt: skip
    assert {layer.mode for layer in crossbar_layers(network).values()} == {"chip"}
    return seen


@pytest.fixture(scope="module")
def undisturbed(once, digits) -> Path:
    return once("surrogate epochs", lambda folder: train(config(folder), digits))


@pytest.mark.parametrize("call", [9, 26, 36, 60])
def test_training_by_a_surrogate_resumes_to_the_same_network(tmp_path, monkeypatch, digits, undisturbed, call):
    calls, original = 0, Classifier.training_step

    def dying(self, *args):
        nonlocal calls
        calls += 1
        if calls == call:
            raise KilledError
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", dying)
        with pytest.raises(KilledError):
            train(config(tmp_path), digits)
    train(config(tmp_path), digits, resumed=True)

    resumed, expected = (load_file(run / "model.safetensors") for run in (tmp_path, undisturbed))
    assert resumed.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(resumed[name], tensor), name


def test_the_first_epochs_are_the_surrogates_and_leave_ranges_alone_and_tests_are_exact(tmp_path, digits):
    seen = train(config(tmp_path), digits)

    modes = [mode for mode, _ in seen]
    steps = len(digits.train_images) // 64
    assert modes.count("surrogate") == 2 * steps
    last = len(modes) - 1 - modes[::-1].index("surrogate")
    assert {lsb for _, lsb in seen[: last + 1]} == {seen[0][1]}
    assert seen[-1][1] != seen[0][1]
    assert modes.count("chip") > steps
