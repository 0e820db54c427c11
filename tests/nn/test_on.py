"""A network on another chip for a while."""

import pytest
import torch
from torch import nn

from bitline.chip import replace
from bitline.chip.variants import ideal, with_cells
from bitline.errors import ConversionError
from bitline.nn import IDEAL, calibrate, crossbar_layers, on, placement, program, set_chip, to_crossbar


@pytest.fixture
def network(make_chip):
    torch.manual_seed(0)
    chip = make_chip(
        cell={"programming": {"kind": "lognormal", "sigma": 0.2}, "read_noise": {"kind": "absolute", "sigma": "1 uS"}},
        adc={"bits": 4, "policy": "calibrated"},
    )
    x = torch.rand(6, 12)
    model = to_crossbar(nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4)), chip, example=x).model
    calibrate(model, [x])
    program(model, 3)
    return model, x


def state(model: nn.Module) -> list[object]:
    return [(layer.chip, int(layer.chip_seed), dict(layer.reads.counts)) for layer in crossbar_layers(model).values()]


@torch.no_grad()
def test_afterwards_chip_seed_and_reads_are_what_they_were(network):
    model, x = network
    model(x)
    before = state(model)
    assert before[0][2] == {(True, 0): 6}
    with on(model, ideal(placement(model).chip)):
        assert state(model)[0][1:] == (IDEAL, {})
        model(x)
    assert state(model) == before


@torch.no_grad()
def test_an_error_within_leaves_the_network_as_it_was(network):
    model, _ = network
    before = state(model)
    with pytest.raises(RuntimeError, match="mine"), on(model, seed=7):
        raise RuntimeError("mine")
    assert state(model) == before


@torch.no_grad()
def test_without_a_chip_the_network_stays_on_its_own_and_answers_as_programmed(network):
    model, x = network
    program(model, 5)
    wanted = model(x)
    program(model, 3)
    with on(model, seed=5):
        assert torch.equal(model(x), wanted)


@torch.no_grad()
def test_one_layer_may_be_on_a_chip_of_its_own(network):
    model, x = network
    chip = placement(model).chip
    first, second = crossbar_layers(model).values()
    with on(model, ideal(chip)), on(second, with_cells(chip)):
        assert (first.chip, second.chip) == (ideal(chip), with_cells(chip))
        mixed = model(x)
    with on(model, ideal(chip)):
        hidden = model[:2](x)
    with on(model, with_cells(chip)):
        assert torch.equal(model[2](hidden), mixed)


@pytest.mark.parametrize(
    ("override", "what"),
    [
        ("weights.bits=3", r"differs in weights \(bits=4"),
        ("inputs.bits=3", "differs in inputs"),
        ("crossbar.rows=16", "differs in crossbar"),
        ("adc.bits=3", r"differs in adc \(.*bits=4.* there, .*bits=3.* here\)"),
    ],
)
def test_a_chip_that_asks_for_other_ranges_or_integers_is_refused_before_anything_moves(network, override, what):
    model, _ = network
    before = state(model)
    with pytest.raises(ConversionError, match=what), on(model, replace(placement(model).chip, override)):
        pass
    assert state(model) == before


@torch.no_grad()
def test_errors_that_training_holds_on_to_are_there_afterwards(make_chip):
    chip = make_chip(cell={"programming": {"kind": "lognormal", "sigma": 0.3}}, adc={"policy": "lossless"})
    x = torch.rand(6, 12)
    model = to_crossbar(nn.Sequential(nn.Linear(12, 8)), chip, example=x).model
    calibrate(model, [x])
    program(model, 3)
    model[0].mode = "linear"
    model(x)
    model[0].weight += 0.3 * torch.rand_like(model[0].weight)
    held = model(x)
    with on(model, seed=4):
        assert not torch.equal(model(x), held)
    assert torch.equal(model(x), held)


def test_ranges_that_are_fitted_within_are_not_kept_for_another_chip_without_a_word(network):
    model, _ = network
    chip = placement(model).chip
    with pytest.raises(ConversionError, match=r"calibrate and set_chip outside"), on(model, chip, 1):
        set_chip(model, replace(chip, "adc.bits=2"))
    assert placement(model).chip == chip
