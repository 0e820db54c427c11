"""One network under every mapping: what an evaluation says, and that cost and arithmetic count alike."""

from functools import cache

import pytest
import torch
from torch import nn

from bitline import data as datasets
from bitline.chip import load, replace
from bitline.errors import ConversionError
from bitline.evaluation import Settings, evaluate, put_on_chip
from bitline.evaluation.densities import measure
from bitline.mapping.strategies import STRATEGIES
from bitline.nn import crossbar_layers
from bitline.report import html
from evaluation_files import check

CHIP = load("strip-22nm", ["cell_cost=conductance"])
SETTINGS = Settings(chips=1, cause_chips=1, images=32, calibration_images=64, diagnose_images=4)


@cache
def digits() -> datasets.DataSet:
    return datasets.load("digits")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1, groups=16),
        nn.ReLU(),
        nn.Conv2d(16, 8, 1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_evaluation_says_how_each_layer_is_mapped(strategy, tmp_path):
    result = evaluate(network(), digits(), CHIP, SETTINGS, mapping={"depthwise": strategy})
    check(result, tmp_path)
    assert [layer.strategy for layer in result.layers] == ["dense", strategy, "dense", "dense"]
    layer = result.layers[1]
    assert (layer.conversions == 0) == (strategy == "digital")
    assert (result.cost.energy_parts["digital_mac"] > 0) == (strategy == "digital")
    if strategy == "digital":
        assert layer.sums is None
        assert layer.adc_clip_fraction == 0
        assert layer.error_parts["programming"] == 0
    else:
        assert layer.sums is not None
        assert sum(layer.sums.counts) == 4 * layer.conversions
    page = html.write(result, tmp_path / "page.html")
    assert page.is_file()


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["dense", "naive", "packed", "strip"])
def test_the_mean_level_of_a_slice_is_that_of_the_cells_that_are_read(strategy):
    on_chip = put_on_chip(network(), digits(), CHIP, SETTINGS, mapping={"depthwise": strategy})
    images = next(digits().batches("test", batch_size=4))[0]
    found = measure(on_chip.model, images)["2"]
    layer = crossbar_layers(on_chip.model)["2"]
    levels = layer.crossbars(layer.chip, -1).levels.double()
    total = torch.tensor(found.level_mean) * (layer.placement.read_cells / layer.chip.slices)
    torch.testing.assert_close(total.double(), levels.sum((0, 1, 3, 4)), rtol=1e-6, atol=1e-6)
    dense = put_on_chip(network(), digits(), CHIP, SETTINGS).model
    assert found.digit_mean == pytest.approx(measure(dense, images)["2"].digit_mean)


def test_a_network_moves_over_chips_without_calibrating_a_digital_layer_again(monkeypatch):
    on_chip = put_on_chip(network(), digits(), CHIP, SETTINGS, mapping={"depthwise": "digital"})
    monkeypatch.setattr("bitline.evaluation.on_chip.calibrate", lambda *_, **__: pytest.fail("calibrated again"))
    on_chip.placed_on(replace(CHIP, "adc.bits=4"))
    assert crossbar_layers(on_chip.model)["2"].strategy == "digital"


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConversionError, match="did you mean 'depthwise'"):
        evaluate(network(), digits(), CHIP, SETTINGS, mapping={"depthwse": "strip"})
