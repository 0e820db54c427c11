import re
from typing import Any

import pytest

from bitline.evaluation.record import Layer
from bitline.report.histograms import WIDTH, picture
from evaluation_samples import layer


def drawn(**sums: Any) -> Any:
    content = layer("conv", 128, 32, 64, seed=0)
    content["partial_sums"] |= sums
    record = Layer.model_validate(content)
    assert record.sums is not None
    return picture(record, record.sums)


def bars(path: str) -> list[tuple[float, float]]:
    return [(float(left), float(right)) for left, right in re.findall(r"M([\d.]+) [\d.]+V[\d.]+H([\d.]+)V", path)]


@pytest.mark.parametrize("bins", [1, 7, 128, 129, 4096])
def test_any_histogram_becomes_a_small_picture_inside_its_frame(bins):
    one = drawn(bin_low=-3.0, bin_width=0.5, counts=[5] * bins)
    found = bars(one.inside) + bars(one.outside)
    assert 1 <= len(found) <= 128
    assert all(0 <= left < right <= WIDTH for left, right in found)


def test_sums_beyond_the_range_are_drawn_apart():
    one = drawn(bin_low=0.0, bin_width=1.0, counts=[9] * 10, range_low=0.0, range_high=6.0)
    assert len(bars(one.inside)) == 6
    assert len(bars(one.outside)) == 4


def test_a_range_wider_than_the_sums_is_drawn_whole():
    one = drawn(bin_low=0.0, bin_width=1.0, counts=[9] * 10, range_low=-10.0, range_high=400.0)
    assert not one.outside
    assert one.range_right - one.range_left > 0.8 * WIDTH


def test_codes_show_only_where_they_can_be_told_apart():
    coarse = drawn(bin_low=0.0, bin_width=1.0, counts=[9] * 64, range_low=0.0, range_high=62.0, lsb=2.0, ranges=1)
    assert coarse.codes.count("M") == 32
    assert "LSB 2" in coarse.notes
    fine = drawn(bin_low=0.0, bin_width=1.0, counts=[9] * 64, range_low=0.0, range_high=62.0, lsb=0.1)
    assert not fine.codes


def test_an_empty_histogram_is_drawn_without_complaint():
    assert not bars(drawn(counts=[0, 0, 0]).inside)
