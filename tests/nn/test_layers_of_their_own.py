"""Layers that are more than their class keep it, or stay digital."""

import copy
import pickle
import types

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from bitline.nn import calibrate
from bitline.nn.layer import CrossbarLayer
from network_samples import IMAGE, ROWS, Code, agrees


def test_a_forward_that_was_put_on_a_layer_is_not_dropped(make_chip):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 4))
    model[0].forward = types.MethodType(lambda s, x: 3 * F.linear(x, s.weight, s.bias) + 1, model[0])
    _, report = agrees(model, make_chip, ROWS)
    assert [(d.name, d.op, d.why) for d in report.digital] == [
        ("0", "Linear", "its forward was replaced on this very layer")
    ]
    assert report.digital[0].macs == 64


class Mine(nn.Linear):
    """A linear layer with a class and attributes of its own, and no forward."""

    gain = 2.0


@pytest.mark.parametrize(
    "read",
    [
        lambda layer: float(isinstance(layer, Mine)),
        lambda layer: getattr(layer, "gain", 1.0),
        lambda layer: layer.offset,
    ],
)
def test_a_layer_keeps_its_class_and_attributes(make_chip, read):
    model = Code(lambda s, x: s.a(x) * read(s.a), a=Mine(8, 4))
    model.a.offset = 0.5
    converted, report = agrees(model, make_chip, ROWS)
    assert [p.matmul.name for p in report.layers] == ["a"]
    calibrate(converted, [ROWS])
    for again in (copy.deepcopy(converted.a), pickle.loads(pickle.dumps(converted.a))):
        assert isinstance(again, Mine)
        assert isinstance(again, CrossbarLayer)
        assert (again.offset, type(again).__name__) == (0.5, "Mine")
        torch.testing.assert_close(again(ROWS), converted.a(ROWS), rtol=0, atol=0)


def test_a_layer_whose_very_class_is_asked_for_stays_digital(make_chip):
    model = Code(lambda s, x: s.b(s.a(x) * (2 if type(s.a) is nn.Linear else 1)), a=nn.Linear(8, 8), b=nn.Linear(8, 4))
    _, report = agrees(model, make_chip, ROWS)
    assert [p.matmul.name for p in report.layers] == ["b"]
    assert [(d.name, d.why) for d in report.digital] == [
        ("a", "the network answers otherwise with another class in its place, which its code looks at")
    ]


@pytest.mark.parametrize(("layer", "x"), [(nn.Linear(8, 4), ROWS[0]), (nn.Conv2d(3, 4, 3), IMAGE[0])])
def test_a_layer_takes_an_input_without_a_batch(make_chip, layer, x):
    model = Code(lambda s, xs: torch.stack([s.f(x) for x in xs]), f=layer)
    converted, _ = agrees(model, make_chip, torch.stack([x, -x, 2 * x]))
    calibrate(converted, [torch.stack([x])])
    for module in converted.modules():
        if isinstance(module, CrossbarLayer):
            module.mode = "chip"
    with torch.no_grad():
        assert converted.f(x).shape == model.f(x).shape
        torch.testing.assert_close(converted.f(x), converted.f(x[None])[0], rtol=0, atol=0)
