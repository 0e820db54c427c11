"""Training steps that convert a few row tiles: right on average, and what they are left out of."""

from itertools import combinations

import pytest
import torch
from torch import nn

from bitline import load_chip
from bitline.mvm import native
from bitline.nn import calibrate, crossbar_layers, program, to_crossbar

SMALL = ("crossbar.rows=16", "crossbar.active_rows=16", "adc.bits=4")


def network(kind: str, chip: str, seed: int, **mapping) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(3)
    net = nn.Conv2d(7, 6, 3, padding=1, bias=True) if kind == "conv2d" else nn.Linear(60, 9)
    x = torch.rand(2, 7, 5, 5) if kind == "conv2d" else torch.rand(4, 60)
    model = to_crossbar(nn.Sequential(net), load_chip(chip, list(SMALL)), example=x, **mapping).model
    calibrate(model, [x])
    program(model, seed)
    return model.train(), x


def answers(model: nn.Module, x: torch.Tensor, count: int, monkeypatch) -> list[torch.Tensor]:
    """What every draw of so many tiles answers."""
    (layer,) = crossbar_layers(model).values()
    tiles = layer.placement.row_tiles
    layer.tiles_a_step = count
    found = []
    for drawn in combinations(range(tiles), count):
        rest = [t for t in range(tiles) if t not in drawn]
        with monkeypatch.context() as patch:
            patch.setattr("torch.randperm", lambda n, order=(*drawn, *rest): torch.tensor(order))
            found.append(model(x).detach())
    layer.tiles_a_step = None
    return found


@pytest.mark.parametrize("seed", [-1, 0])
@pytest.mark.parametrize("chip", ["rram-22nm", "isaac-32nm"])
@pytest.mark.parametrize(("kind", "count"), [("conv2d", 1), ("conv2d", 2), ("linear", 1), ("linear", 3)])
def test_the_mean_over_all_draws_is_what_the_chip_answers(monkeypatch, kind, count, chip, seed):
    model, x = network(kind, chip, seed)
    exact = model(x).detach()
    found = torch.stack(answers(model, x, count, monkeypatch)).double()
    torch.testing.assert_close(found.mean(0).float(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))
    assert float(found.std(0).max()) > 0.01 * float(exact.std())  # one draw alone is something else


@pytest.mark.parametrize("path", native.paths())
def test_every_path_answers_a_draw_as_tensors_do(monkeypatch, path):
    model, x = network("conv2d", "rram-22nm", 0)
    monkeypatch.setenv("BITLINE_PATH", "tensor")
    expected = answers(model, x, 2, monkeypatch)
    monkeypatch.setenv("BITLINE_PATH", path)
    got = answers(model, x, 2, monkeypatch)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_a_step_that_converts_all(monkeypatch):
    model, x = network("conv2d", "rram-22nm", 0)
    (layer,) = crossbar_layers(model).values()
    pull = torch.randn(2, 6, 5, 5)
    model(x).backward(pull)
    expected, layer.weight.grad = layer.weight.grad, None
    layer.tiles_a_step = 1
    model(x).backward(pull)
    assert torch.equal(layer.weight.grad, expected)


def test_the_mean_is_right_under_autocast_too(monkeypatch):
    model, x = network("conv2d", "rram-22nm", 0)
    exact = model(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = torch.stack(answers(model, x, 1, monkeypatch)).double()
    torch.testing.assert_close(found.mean(0).float(), exact, rtol=1e-4, atol=1e-4 * float(exact.abs().max()))


def test_a_draw_follows_the_seed_of_pytorch():
    model, x = network("linear", "rram-22nm", 0)
    (layer,) = crossbar_layers(model).values()
    layer.tiles_a_step = 1

    def twice(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(seed)
        return [model(x).detach() for _ in range(2)]

    first, again, other = twice(5), twice(5), twice(6)
    assert all(map(torch.equal, first, again))
    assert not all(map(torch.equal, first, other))


def test_evaluation_and_layers_of_few_tiles_convert_all():
    model, x = network("linear", "rram-22nm", 0)
    (layer,) = crossbar_layers(model).values()
    exact = model(x).detach()
    layer.tiles_a_step = 99
    assert torch.equal(model(x).detach(), exact)
    layer.tiles_a_step = 1
    model.eval()
    assert torch.equal(model(x).detach(), exact)
