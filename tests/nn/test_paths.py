"""One network on one programmed chip gives the same logits, bit for bit, on every path of this machine."""

import pytest
import torch

from bitline import load_chip
from bitline.data import load
from bitline.models import build
from bitline.mvm import native
from bitline.nn import calibrate, program, to_crossbar

PATHS = [*native.paths(), native.TENSOR]


@pytest.mark.parametrize("chip", ["rram-22nm", "example-128", "strip-22nm", "crimp-32nm"])
def test_a_seed_is_the_same_chip_with_the_same_answers_on_every_path(monkeypatch, chip):
    images = load("digits").train_images[:96] / 255
    torch.manual_seed(0)
    model, _ = to_crossbar(build("lenet5", in_channels=1, image_size=8).eval(), load_chip(chip), example=images[:2])
    monkeypatch.setenv(native.VARIABLE, native.TENSOR)
    calibrate(model, [images[:32]])
    answers: dict[str, torch.Tensor] = {}
    for path in PATHS:
        monkeypatch.setenv(native.VARIABLE, path)
        program(model, 3)
        with torch.no_grad():
            answers[path] = model(images[32:])
    for path in PATHS:
        assert torch.equal(answers[path], answers[native.TENSOR]), path
    assert len(answers[native.TENSOR].unique()) > 100
