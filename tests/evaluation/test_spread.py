"""Mean, spread and worst of several chips, in one place."""

import statistics

import pytest

from bitline.errors import DataError
from bitline.evaluation import Spread

VALUES = [88.1, 90.25, 79.5, 88.1, 85.0]


def test_mean_and_std_are_those_of_a_sample_and_worst_is_the_lowest():
    spread = Spread.of(VALUES)
    assert spread.to_json() == {"mean": statistics.fmean(VALUES), "std": statistics.stdev(VALUES), "worst": 79.5}
    assert spread.n == 5


def test_the_standard_error_falls_with_the_root_of_the_chips():
    assert Spread.of(VALUES).standard_error == pytest.approx(statistics.stdev(VALUES) / 5**0.5)


def test_one_chip_has_no_spread_and_no_chip_is_refused():
    assert Spread.of([90.0]).std == 0.0
    assert Spread.of([90.0]).standard_error == 0.0
    with pytest.raises(DataError, match="a spread of 0 values; allowed: 1 or more"):
        Spread.of([])
