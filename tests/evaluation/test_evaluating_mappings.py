"""One network under every mapping: what an evaluation says, and that cost and arithmetic count alike."""

import pytest
import torch
from digits_samples import digits
from torch import nn

from bitline.chip import load, replace
from bitline.errors import ConversionError
from bitline.evaluation import Settings, assess, put_on_chip
from bitline.evaluation.densities import measure
from bitline.mapping.strategies import STRATEGIES
from bitline.nn import crossbar_layers
from bitline.report import html
from evaluation_files import check

CHIP = load("strip-22nm", ["cell_cost=conductance"])
SETTINGS = Settings(chips=1, cause_chips=1, images=32, calibration_images=64, diagnose_images=4)


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
    result = assess(network(), digits(), CHIP, SETTINGS, mapping={"depthwise": strategy})
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
        assess(network(), digits(), CHIP, SETTINGS, mapping={"depthwse": "strip"})


class WithMix(nn.Module):
    """A layer, and a convolution by weights that its code computes: 64 x 16 x 9 and 64 x 3 x 16 x 9 MACs at 8 px."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 16, 3, padding=1)
        self.mix = nn.Parameter(torch.randn(3, 16, 3, 3))
        self.last = nn.Linear(192, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(nn.functional.conv2d(self.first(x).relu(), self.mix.abs(), padding=1).flatten(1))


def test_the_share_of_multiplications_off_the_crossbars_is_said_in_record_and_page(tmp_path):
    result = assess(WithMix(), digits(), CHIP, SETTINGS)
    functional = 64 * 3 * 16 * 9
    every = functional + 64 * 16 * 9 + 192 * 10
    assert result.cost.macs == every
    assert [(each.op, each.macs) for each in result.digital] == [("WithMix", 0), ("conv2d", functional)]
    share = next(note for note in result.cost.notes if note.startswith("27,648 of 38,784 MACs (71.3%) are of digital"))
    assert result.cost.notes.count(share) == 1
    assert result.to_json()["cost"]["notes"] == list(result.cost.notes)
    assert share in html.write(result, tmp_path / "page.html").read_text()
    assert not any("MACs" in note for note in assess(network(), digits(), CHIP, SETTINGS).cost.notes)


@pytest.mark.parametrize("strategy", ["dense", "packed", "digital"])
def test_grouped_layers_that_leave_crossbars_empty_get_a_pointer_to_other_layouts(strategy):
    result = assess(network(), digits(), CHIP, SETTINGS, mapping={"depthwise": strategy})
    said = [note for note in result.cost.notes if "--mapping auto" in note]
    assert len(said) == (strategy == "dense")
    if said:  # 16 groups, each alone on a crossbar of 128 x 128: 9 rows and 4 slices of its one column
        assert f"take 16 of {result.cost.crossbars} crossbars and use less than 5% of their cells" in said[0]
        assert f"least 2 with {9 * 4 / 128**2:.1%}" in said[0]
