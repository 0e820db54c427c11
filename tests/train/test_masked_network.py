"""A network of one's own with a mask of minus infinity is trained, resumed and evaluated as any other."""

import json
from pathlib import Path

import pytest
import torch

from bitline.files import METRICS, WEIGHTS, read_json
from bitline.models.files import load_run
from bitline.train.checkpoint import AtomicCheckpointIO, load
from bitline.train.module import Classifier
from bitline.train.run import train
from run_samples import bitline, settings

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.last = nn.Linear(8, 10)
        self.register_buffer("mask", torch.triu(torch.full((4, 4), -torch.inf), 1))

    def forward(self, x):
        x = nn.functional.avg_pool2d(self.first(x).relu(), 4).flatten(2).transpose(1, 2)
        shares = (x @ x.transpose(1, 2) + self.mask).softmax(-1)
        return self.last((shares @ x).mean(1))
"""


class KilledError(Exception):
    pass


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("own") / "net.py"
    path.write_text(NET)
    return f"{path}:Net"


def killed(run: Path, model: str, monkeypatch) -> None:
    """Train for 17 steps, with a checkpoint at the 15th."""
    original, calls = Classifier.training_step, 0

    def dying(self, *args):
        nonlocal calls
        calls += 1
        if calls > 17:
            raise KilledError
        return original(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", dying)
        with pytest.raises(KilledError):
            train(settings(run, model=model))


def test_a_mask_of_minus_infinity_loses_no_training(tmp_path, model, monkeypatch):
    whole: Path = train(settings(tmp_path / "whole", model=model))
    assert torch.isneginf(load_run(whole, trust_code=True).model.mask).sum() == 6
    killed(tmp_path / "run", model, monkeypatch)

    run = train(settings(tmp_path / "run", model=model), if_exists="resume")

    assert (run / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    small = ("--chips", 1, "--images", 32, "--threads", 1, "--trust-code")
    evaluation = json.loads(bitline("evaluate", run, *small, "--json", "-")[0])
    assert evaluation["accuracy"]["float"] > 0
    assert read_json(run / METRICS)["epochs"] == 1


@pytest.mark.parametrize("name", ["network.first.weight", "network.last.bias"])
def test_a_checkpoint_with_a_weight_that_is_not_finite_is_refused(tmp_path, model, monkeypatch, name):
    killed(tmp_path / "run", model, monkeypatch)
    last = tmp_path / "run" / "checkpoints" / "last.ckpt"
    content = load(last)
    content["state_dict"][name].view(-1)[0] = torch.inf
    AtomicCheckpointIO().save_checkpoint(content, last)

    _, error = bitline(
        "train", model, "--data=digits", "--epochs=1", "--batch-size=62", "--threads=1", "--precision=32-true",
        "--checkpoint-every=5", f"--out={tmp_path / 'run'}", "--resume", status=1,
    )  # fmt: skip
    assert f"last.ckpt: {name} has 1 of " in error
    assert "NaN or infinite" in error
