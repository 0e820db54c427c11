"""Trainings that tests share: a small network on a chip, and one that dies as a killed process does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch import nn

from bitline import load_chip
from bitline.data import DataSet
from bitline.models.record import ModelRecord
from bitline.nn import calibrate, to_crossbar
from bitline.nn.range_training import train_ranges
from bitline.train import TrainConfig
from bitline.train.module import Classifier
from bitline.train.run import train_network


class KilledError(Exception):
    pass


def until(monkeypatch: pytest.MonkeyPatch, hook: str, call: int, train: Callable[[], object]) -> None:
    """Train, and die at the given call of a hook."""
    calls = 0
    original = getattr(Classifier, hook)

    def dying(self: Any, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise KilledError
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, hook, dying)
        with pytest.raises(KilledError):
            train()


def assert_same_weights(run: Path, other: Path) -> dict[str, torch.Tensor]:
    """Compare weights bit for bit, and return them."""
    weights, expected = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, expected[name]), name
    return weights


def on_digits(data: DataSet, *, dropout: float = 0.0) -> tuple[nn.Module, torch.Tensor]:
    """A small network on a chip whose ranges train, and the images that it is calibrated on."""
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 10))
    images = next(data.batches("train", batch_size=32, limit=32))[0]
    network = to_crossbar(plain, load_chip("example-128", ["adc.policy=trained"]), example=images).model
    calibrate(network, [images])
    train_ranges(network)
    return network, images


def train_on_chip(
    network: nn.Module, config: TrainConfig, data: DataSet, callbacks: list[Callback], *, resumed: bool = False
) -> None:
    """Train the network of `on_digits`."""
    record = ModelRecord(
        model="lenet5", kwargs={}, data="digits", title="", classes=data.classes, channels=1, image_size=8,
        mean=data.mean, std=data.std,
    )  # fmt: skip
    train_network(
        network, record, config, data, resumed=resumed, callbacks=callbacks, rates={"log2_lsb": 1e-2},
        test_images=50, finish=lambda trained: trained,
    )  # fmt: skip
