"""Networks that bring their own ADC ranges: evaluated with these, on every stage and variant that they hold for."""

from dataclasses import replace

import pytest
import torch
from digits_samples import digits, network
from torch import Tensor, nn

import bitline
from bitline import chip as chips
from bitline.errors import ConversionError, DataError
from bitline.evaluation import Settings, assess, put_on_chip, sweep
from bitline.nn import crossbar_layers, load_ranges, save_ranges, train_ranges

CHIP = chips.load("example-128", ["adc.bits=4", "adc.policy=trained"])
SETTINGS = Settings(chips=2, cause_chips=1, images=60, calibration_images=50, diagnose_images=2)


@pytest.fixture
def ranges(tmp_path):
    """A file of ranges other than calibrated ones."""
    model = put_on_chip(network(), digits(), CHIP, SETTINGS).model
    for parameter in train_ranges(model):
        parameter.data.add_(0.7)
    save_ranges(model, tmp_path / "ranges.safetensors")
    return tmp_path / "ranges.safetensors"


def lsbs(on_chip) -> list[Tensor]:
    return [layer.ranges.lsb.clone() for layer in crossbar_layers(on_chip.model).values()]


def test_an_evaluation_takes_its_ranges_from_the_file_and_says_so(ranges):
    calibrated = assess(network(), digits(), CHIP, SETTINGS)
    brought = assess(network(), digits(), CHIP, SETTINGS, ranges=ranges)
    assert (calibrated.ranges, brought.ranges) == (None, "ranges.safetensors")
    assert brought.accuracy.ideal_integer == calibrated.accuracy.ideal_integer
    for mine, theirs in zip(brought.layers, calibrated.layers, strict=True):
        assert mine.sums is not None
        assert theirs.sums is not None
        assert mine.sums.lsb == pytest.approx(theirs.sums.lsb * 2**0.7, rel=0.01)
    assert brought.cost.energy_J == pytest.approx(calibrated.cost.energy_J)
    again = assess(network(), digits(), CHIP, SETTINGS, ranges=ranges)
    assert again.accuracy == brought.accuracy


def test_a_sweep_keeps_the_ranges_where_they_hold_and_calibrates_where_they_do_not(ranges):
    on_chip = put_on_chip(network(), digits(), CHIP, SETTINGS, ranges=ranges)
    wanted = lsbs(on_chip)
    sweep(on_chip, CHIP, [["cell.programming.sigma=0.3"], ["cell.faults.stuck_on=0.02"]])
    assert all(map(torch.equal, lsbs(on_chip), wanted))
    sweep(on_chip, CHIP, [["adc.bits=6"]])
    assert not any(map(torch.equal, lsbs(on_chip), wanted))
    on_chip.placed_on(CHIP)
    load_ranges(on_chip.model, ranges)
    assert all(map(torch.equal, lsbs(on_chip), wanted))


def test_ranges_fitted_in_turn_do_not_hang_on_the_chip_before():
    torch.manual_seed(2)
    deep = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 200), nn.ReLU(), nn.Linear(200, 200), nn.ReLU(), nn.Linear(200, 10)
    )
    settings = replace(SETTINGS, in_turn=True)
    coarse, fine = (chips.load("example-128", [f"adc.bits={bits}"]) for bits in (2, 4))
    moved, fresh = (put_on_chip(deep.eval(), digits(), chip, settings) for chip in (coarse, fine))
    assert not all(map(torch.equal, lsbs(moved), lsbs(fresh)))
    moved.placed_on(fine)
    assert all(map(torch.equal, lsbs(moved), lsbs(fresh)))


def test_ranges_of_another_chip_or_none_are_refused(ranges, tmp_path):
    other = chips.load("example-128", ["adc.bits=5", "adc.policy=trained"])
    with pytest.raises(
        ConversionError, match=r"written for chip example-128 of adc\.bits = 4; .* has 5: --set adc\.policy=calibrated"
    ):
        put_on_chip(network(), digits(), other, SETTINGS, ranges=ranges)
    with pytest.raises(DataError, match="no such file"):
        assess(network(), digits(), CHIP, SETTINGS, ranges=tmp_path / "absent.safetensors")
    another = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(288, 10))
    with pytest.raises(ConversionError, match=r"ranges\.safetensors lacks 2\.adc_lsb, "):
        put_on_chip(another, digits(), CHIP, SETTINGS, ranges=ranges)


def test_points_of_a_grid_have_the_trained_ranges_in_any_order_or_are_refused(ranges):
    def swept(vary, **more):
        given = {"chips": 2, "images": 60, "calibration_samples": 50, "ranges": ranges, **more}
        return bitline.sweep(network(), CHIP, vary, digits(), **given)

    one, other = (swept({"adc.policy": policies}) for policies in (["trained", "full"], ["full", "trained"]))
    assert {v.label: v.chips for v in one.variants} == {v.label: v.chips for v in other.variants}
    alone = assess(network(), digits(), CHIP, SETTINGS, ranges=ranges)
    assert other.variants[1].chips == alone.accuracy.chips
    assert "ranges.safetensors" in one.calibration
    with pytest.raises(ConversionError, match=r"adc.bits = 4; .* has 5: --set adc.policy=calibrated fits new ranges"):
        swept({"adc.bits": [4, 5]})
    with pytest.raises(DataError, match="sweep the policies apart"):
        swept({"adc.policy": ["trained", "calibrated"]})
    with pytest.raises(DataError, match=r"in_turn \(--in-turn\) does nothing here: the ranges are those that were tra"):
        swept({"adc.policy": ["trained", "full"]}, in_turn=True)
