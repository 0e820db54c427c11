"""Biases set anew on one programmed chip: less error, and a way back."""

import pytest
import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.nn import IDEAL, calibrate, correct_biases, crossbar_layers, program, to_crossbar

SIGMA = {"programming": {"kind": "lognormal", "sigma": 0.3}, "faults": {"stuck_off": 0.05, "stuck_on": 0.02}}


def network(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, bias=bias),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, bias=bias),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 3, bias=bias),
    ).eval()


def on_chip(make_chip, bias: bool = True, **cell) -> tuple[nn.Module, list[Tensor]]:
    batches = list(torch.rand(48, 2, 6, 6, generator=torch.Generator().manual_seed(1)).split(16))
    chip = make_chip(
        cell={"bits": 2, **SIGMA, **cell},
        adc={"policy": "lossless"},
        crossbar={"rows": 32, "cols": 64},
        weights={"bits": 8},
        inputs={"bits": 8},
    )
    model = to_crossbar(network(bias), chip, example=batches[0]).model
    calibrate(model, batches)
    program(model, 3)
    return model, batches


@torch.no_grad()
def outputs(model: nn.Module, batches: list[Tensor], seed: int) -> Tensor:
    program(model, seed)
    return torch.cat([model(x) for x in batches])


@pytest.mark.parametrize("bias", [True, False])
def test_channel_means_are_those_of_ideal_cells_and_the_error_is_less(make_chip, bias):
    model, batches = on_chip(make_chip, bias)
    ideal, before = outputs(model, batches, IDEAL), outputs(model, batches, 3)
    correct_biases(model, batches)
    after = outputs(model, batches, 3)
    shift = (after.mean(0) - ideal.mean(0)).abs().max()
    assert float(shift) < 0.1 * float((before.mean(0) - ideal.mean(0)).abs().max())
    assert float((after - ideal).square().mean()) < 0.3 * float((before - ideal).square().mean())


@pytest.mark.parametrize("bias", [True, False])
def test_what_was_moved_comes_back_bit_for_bit(make_chip, bias):
    model, batches = on_chip(make_chip, bias)
    before, state = outputs(model, batches, 3), {k: v.clone() for k, v in model.state_dict().items()}
    correct_biases(model, batches).restore()
    assert state.keys() == model.state_dict().keys()
    assert torch.equal(outputs(model, batches, 3), before)


def test_ideal_cells_move_no_bias(make_chip):
    model, batches = on_chip(make_chip)
    program(model, IDEAL)
    before = [layer.bias.detach().clone() for layer in crossbar_layers(model).values()]
    correct_biases(model, batches)
    assert all(map(torch.equal, before, (layer.bias for layer in crossbar_layers(model).values())))


def test_the_chip_and_the_reads_counted_stay(make_chip):
    model, batches = on_chip(make_chip, read_noise={"kind": "absolute", "sigma": "1 uS"})
    model.train()
    model(batches[0])
    correct_biases(model, batches)
    assert model.training
    for layer in crossbar_layers(model).values():
        assert int(layer.chip_seed) == 3
        assert layer.reads.counts == {(True, 0): 16}


def test_data_are_needed(make_chip):
    model, _ = on_chip(make_chip)
    with pytest.raises(ConversionError, match="no data"):
        correct_biases(model, [])
