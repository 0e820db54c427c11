import math
from typing import Any

import pytest

from bitline.chip import load
from bitline.report import chip_sheets, sentences, text
from evaluation_samples import evaluation, record


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (3.885e-5, "J", "38.85 µJ"),
        (2.2e-7, "m2", "0.22 mm²"),
        (8.8e-9, "m2", "8,800 µm²"),
        (6.987e-5, "m2", "69.87 mm²"),
        (1.28e9, "Hz", "1.28 GHz"),
        (0.0, "ohm", "0 Ω"),
        (-1e-3, "V", "−1 mV"),
        (math.inf, "J", "∞"),
        (None, "J", "–"),
    ],
)
def test_a_quantity_is_written_with_the_prefix_that_suits_it(value, unit, written):
    assert text.quantity(value, unit) == written


def test_a_column_shares_one_prefix_and_its_small_figures_keep_two_digits():
    column = text.column([9.32e-6, 1.04e-6, 6.3e-10, 0.0, None], "J")
    assert column.unit == "µJ"
    assert column.texts == ("9.320", "1.040", "0.00063", "0.000", "–")


def test_a_figure_without_places_is_whole():
    assert text.aligned([157_288_960.0, 2560.0]) == ("157288960", "2560")


@pytest.mark.parametrize(
    ("value", "written"), [(-0.001, "0.00"), (-1.926, "−1.93"), (math.nan, "–"), (math.inf, "∞"), (True, "–")]
)
def test_a_decimal_has_no_minus_before_zero_and_no_place_for_what_is_no_number(value, written):
    assert text.decimal(value) == written


def test_a_key_is_written_in_the_unit_it_ends_with():
    assert (text.stem("evaluation_s"), text.by_suffix("evaluation_s", 212.4)) == ("evaluation", "212.4 s")
    assert (text.stem("chips"), text.by_suffix("chips", 3)) == ("chips", "3")


def test_the_terminal_says_what_was_changed_of_a_preset():
    changed = chip_sheets.changed_words(load("example-128", ["adc.bits=4"]))
    assert changed == "changed of the preset example-128, whose value is in brackets: adc.bits 4 (6)"
    assert chip_sheets.changed_words(load("example-128")) == ""


@pytest.mark.parametrize(
    ("after", "metric", "said"),
    [
        # differences of 1, 2 and 3: mean 2, standard deviation 1 and so a standard error of 1 / sqrt(3)
        ((81.0, 84.0, 87.0), {}, ""),
        (
            (79.0, 80.0, 81.0),
            {},
            "worse than before: the gain in accuracy is -2.00 points, with a standard error of 0.58",
        ),
        # of 0, 0.6 and -0.1: mean 1 / 6, and a standard error of 0.22
        ((80.0, 82.6, 83.9), {}, "no better than before: the gain in accuracy is +0.17 points, with a standard error"),
        ((79.0, 80.0, 81.0), {"name": "error", "better": "lower"}, ""),
    ],
)
def test_a_recipe_that_wins_nothing_beyond_the_standard_error_says_so(after, metric, said):
    def on_chips(*accuracies: float) -> Any:
        content = evaluation(chips=3)
        content["seeds"] = content["cause_seeds"] = list(range(len(accuracies)))
        spread = {"mean": math.fsum(accuracies) / len(accuracies), "std": 1.0, "worst": min(accuracies)}
        content["accuracy"] = {**content["accuracy"], "chips": list(accuracies), **spread}
        content.pop("statistics", None)
        return record({**content, "metric": metric})

    lines = sentences.no_gain(on_chips(80.0, 82.0, 84.0), on_chips(*after))
    assert len(lines) == bool(said)
    assert said in "".join(lines).replace("−", "-")
    one = sentences.no_gain(on_chips(80.0), on_chips(79.5))
    alone = "On the chip the network is worse than before: the gain in accuracy is -0.50 points."
    assert [line.replace("−", "-") for line in one] == ([] if metric else [alone])
