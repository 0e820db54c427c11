"""Mappings as written on a command line, and as the cost model chooses them."""

import pytest
import torch
from torch import nn

from bitline.chip import load, replace
from bitline.cost.choose_mapping import OBJECTIVES, cheapest, parse, resolve
from bitline.cost.model import price
from bitline.errors import ConversionError
from bitline.mapping.place import place
from bitline.mapping.strategies import STRATEGIES
from bitline.nn import cheapest_mapping, matmuls, to_crossbar


def separable() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.Conv2d(32, 32, 3, padding=1, groups=32),
        nn.Conv2d(32, 64, 1),
        nn.Conv2d(64, 64, 3, padding=1, groups=8),
        nn.Flatten(),
        nn.Linear(64 * 64, 10),
    )


SHAPE = (3, 8, 8)
STRIP = load("strip-22nm")


def test_a_mapping_is_read_from_key_and_strategy():
    assert parse(["depthwise=strip", "*=dense"]) == {"depthwise": "strip", "*": "dense"}
    assert parse([]) == {}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (
            ["depthwise"],
            "mapping 'depthwise' is not KEY=STRATEGY, for example depthwise=strip; "
            "strategies: dense, naive, packed, strip, digital",
        ),
        (
            ["depthwise=stripe"],
            "mapping of depthwise = 'stripe'; did you mean 'strip'?; allowed: dense, naive, packed, strip, digital",
        ),
        (["a=strip", "a=packed"], "mapping of a is given twice: 'strip' and 'packed'"),
        (["auto", "a=strip"], "mapping 'auto' stands alone; also given: a=strip"),
        (["auto=aera"], "objective = 'aera'; did you mean 'area'?; allowed: energy, area, latency, energy*area"),
    ],
)
def test_a_mapping_of_another_form_is_refused(texts, message):
    with pytest.raises(ConversionError) as error:
        resolve(texts, lambda: matmuls(separable(), SHAPE), STRIP)
    assert str(error.value) == message


def test_auto_is_the_cheapest_mapping():
    layers = matmuls(separable(), SHAPE)
    assert resolve(["auto"], lambda: layers, STRIP) == cheapest(layers, STRIP, "energy")
    assert resolve(["auto=area"], lambda: layers, STRIP) == cheapest(layers, STRIP, "area")
    assert resolve([], lambda: layers, STRIP) == {}


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("chip", [STRIP, replace(load("isaac-32nm"), "system.tiles=1", "weights.bits=8")])
def test_no_other_strategy_of_a_layer_costs_less(objective, chip):
    network = separable()
    chosen = cheapest_mapping(network, chip, torch.zeros(1, *SHAPE), objective)
    assert set(chosen) == {"1", "3"}
    layers, roomy = (
        matmuls(network, SHAPE),
        chip.model_copy(update={"system": chip.system.model_copy(update={"tiles": None})}),
    )
    cost = {
        "energy": lambda c: c.energy_J,
        "area": lambda c: c.area_m2,
        "latency": lambda c: c.latency_s,
        "energy*area": lambda c: c.energy_J * c.area_m2,
    }[objective]
    names = [layer.name for layer in layers]
    for name in chosen:
        mine = cost(price(place(layers, roomy, chosen)).layers[names.index(name)])
        for strategy in STRATEGIES:
            other = cost(price(place(layers, roomy, {**chosen, name: strategy})).layers[names.index(name)])
            assert mine <= other * 1.05


def test_a_strategy_that_a_layer_does_not_fit_is_passed_over():
    wide = nn.Sequential(nn.Conv2d(64, 64, 3, groups=2))
    assert cheapest_mapping(wide, STRIP, torch.zeros(1, 64, 8, 8), "latency")["0"] in ("dense", "naive", "digital")


def test_what_is_chosen_can_be_converted():
    network, x = separable(), torch.rand(1, *SHAPE)
    chosen = cheapest_mapping(network, STRIP, x, "area")
    _, report = to_crossbar(network, STRIP, example=x, mapping=chosen)
    assert {p.matmul.name: p.strategy for p in report.layers if p.matmul.name in chosen} == chosen


def test_a_network_without_groups_has_nothing_to_choose():
    assert cheapest_mapping(nn.Sequential(nn.Conv2d(3, 4, 3)), STRIP, torch.zeros(1, *SHAPE)) == {}
