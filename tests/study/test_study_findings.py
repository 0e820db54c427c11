"""Every sentence says what the numbers say, the opposite when they turn, and nothing when they are not there."""

import random
from typing import Any

import numpy as np
import pytest
from scipy import stats

from bitline.study import findings
from bitline.study.fit import differ, rank_correlation, slope
from bitline.study.grid import best_heights
from study_samples import changed, point, study, way


def said(record: dict[str, Any], lesson: int) -> str:
    return " ".join(finding.text for finding in findings(record) if finding.lesson == lesson)


@pytest.mark.parametrize(
    ("exponent", "words"),
    [
        (1.0, "T^1.00 (median of 4 layers, 1.00 to 1.00), in proportion, as independent errors add up"),
        (1.8, "T^1.80 (median of 4 layers, 1.80 to 1.80), faster than the 1 of independent errors"),
        (0.4, "T^0.40 (median of 4 layers, 0.40 to 0.40), more slowly than the 1 of independent errors"),
        (-0.5, "does not grow with its row tiles: exponent -0.50"),
    ],
)
def test_growth_with_row_tiles_is_told_as_it_was_measured(exponent: float, words: str):
    assert words in said(study(exponent=exponent), 1)


def test_the_prediction_is_called_right_only_where_most_points_lie_near_it():
    assert "T LSB²/12, weighted by digits and slices, predicts it: 16 of 16 points" in said(study(), 1)
    assert "does not predict it" in said(study(exponent=2.0), 1)


def test_sqnr_across_layers_falls_rises_or_shows_nothing():
    assert "more row tiles go with a lower SQNR (rank correlation -1.00)" in said(study(), 1)
    record = study()
    values = [layer["sqnr_dB"]["adc"] for layer in record["layers"]]
    for layer, value in zip(record["layers"], reversed(values), strict=True):
        layer["sqnr_dB"]["adc"] = value
    assert "more row tiles go with a higher SQNR, not a lower one (rank correlation 1.00)" in said(record, 1)
    for layer, value in zip(record["layers"], (10.0, 20.0, 5.0, 15.0), strict=True):
        layer["sqnr_dB"]["adc"] = value
    assert "no clear relation" in said(record, 1)
    for layer in record["layers"]:
        layer["sqnr_dB"] = {"adc": None}
    assert "SQNR" not in said(record, 1)
    assert "programming error" not in said(record, 1)


def test_the_layer_that_costs_most_is_named_with_its_place():
    assert "No layer alone on the chip loses more than 50 images can tell: the worst, fc, leaves" in said(
        study(images=50), 1
    )
    record = study()
    assert "fc costs most, 4.75 of 90.00 points" in said(record, 1)
    record["layers"][3]["alone"] = {"adc": 60.0, "chips": [50.0], "mean": 50.0}
    assert "fc costs most, 40.00 of 90.00 points, which has the most row tiles (32)" in said(record, 1)
    record["layers"][0]["alone"] = {"adc": 30.0, "chips": []}
    assert "conv1 costs most, 60.00 of 90.00 points, with 1 row tiles, and not fc with the most (32)" in said(record, 1)


def test_height_and_bits_are_called_bound_to_each_other_only_where_both_adcs_lose_at_the_others_height():
    assert "chosen together: with the full range the most accurate height is 32 at 4 bits and 128 at 6 bits" in said(
        study(), 2
    )
    grid = [point(rows, bits, "full", 60.0 + rows / 8) for rows in (32, 128) for bits in (4, 6)]
    words = said(changed(grid=grid), 2)
    assert "chosen together" not in words
    assert "Wherever the crossbar height clearly matters (2 of 2 ADCs), 128 rows are the most accurate" in words
    grid = [point(rows, bits, "full", 60.0) for rows in (32, 128) for bits in (4, 6)]
    assert "No crossbar height is more accurate than another" in said(changed(grid=grid), 2)
    grid[0]["mean"] = 90.0
    assert "The height clearly matters with one ADC of 2 only (4 bits, the full range)" in said(changed(grid=grid), 2)


def test_few_images_silence_differences_that_many_images_can_tell():
    grid = [point(rows, bits, "full") for rows in (32, 64) for bits in (4, 6)]
    for one, mean in zip(grid, (80.0, 76.0, 76.0, 80.0), strict=True):
        one["mean"] = mean
    assert "chosen together" in said(changed(grid=grid), 2)
    few = changed(grid=grid)
    few["data"]["count"] = 50
    assert "No crossbar height is more accurate than another at the same ADC beyond what 50 images" in said(few, 2)


def test_taller_crossbars_are_said_to_lose_or_win_accuracy_as_they_do():
    words = said(study(), 2)
    assert "From 32 to 128 rows at the same ADC, energy becomes 0.25 times what it was" in words
    assert "accuracy clearly falls with 2 and clearly rises with 2 of 4 ADCs" in words


def test_range_policies_that_decide_nothing_are_said_to_decide_nothing():
    grid = [point(64, bits, ranges, 80.0) for bits in (4, 6) for ranges in ("full", "layer")]
    assert "decides nothing that 1000 images can tell" in said(changed(grid=grid), 2)
    grid[1]["mean"] = 20.0
    assert (
        "decides most at 4 bits and 64 rows: 20.00 % with a range for each layer, 80.00 % with the full range"
        in said(changed(grid=grid), 2)
    )


def test_the_cheapest_chip_within_a_point_is_named_with_what_it_saves():
    grid = [point(32, 6, "full", 90.0), point(64, 6, "full", 89.5), point(128, 6, "full", 80.0)]
    words = said(changed(grid=grid), 2)
    assert "32 rows, 6 bits, the full range, reaches 90.00 %" in words
    assert "64 rows, 6 bits, the full range, reaches 89.50 % at 0.50 times the energy" in words
    grid[0]["energy_J"] = 1e-9
    assert "is also the cheapest within 1 point of it" in said(changed(grid=grid), 2)


def test_each_way_to_train_is_credited_only_with_what_it_gains():
    words = said(study(), 3)
    assert "goes from 90.00 % in exact integers to 80.00 % with the ADCs alone and 75.00 % on programmed chips" in words
    assert "Quantization-aware training changes the loss by nothing that 1000 images can tell" in words
    assert (
        "Partial-sum-aware training gains 11.50 points: 87.00 % on the chip, 75.50 % with quantization-aware" in words
    )


@pytest.mark.parametrize(
    ("blind", "seeing", "words"),
    [
        ((90.0, 89.0, 89.0), (90.0, 60.0, 50.0), ["removes all of the loss", "Partial-sum-aware training is worse"]),
        ((90.0, 84.0, 83.0), (90.0, 84.0, 83.5), ["removes part of the loss", "gains nothing that 1000 images"]),
        ((90.0, 60.0, 50.0), (90.0, 81.0, 76.0), ["more sensitive to the chip", "gains nothing that 1000 images"]),
    ],
)
def test_training_that_does_otherwise_is_told_otherwise(blind: Any, seeing: Any, words: list[str]):
    points = [way("unaware", 90.0, 80.0, 75.0), way("quantization-aware", *blind), way("partial-sum-aware", *seeing)]
    told = said(changed(training=points), 3)
    for expected in words:
        assert expected in told


def test_a_network_that_loses_nothing_is_said_to_lose_nothing():
    words = said(changed(training=[way("unaware", 90.0, 90.1, 89.9)]), 3)
    assert "loses nothing on this chip that 1000 images can tell" in words
    assert "aware training" not in words


def test_lessons_that_were_not_measured_are_silent():
    assert findings(changed(layers=[], tiles=[], grid=[], training=[])) == []


def test_the_best_height_of_equals_is_the_cheaper_one_and_a_single_height_is_no_choice():
    grid = [point(32, 4, "full", 80.0), point(64, 4, "full", 80.0), point(128, 4, "full", 79.2), point(32, 6, "full")]
    assert [(adc["bits"], adc["most_accurate"]["rows"], adc["cheapest"]["rows"]) for adc in best_heights(grid)] == [
        (4, 64, 128)
    ]


@pytest.mark.parametrize("seed", range(20))
def test_slopes_and_ranks_are_those_of_scipy(seed: int):
    """Several points of one height, ties and all."""
    draw = random.Random(seed)
    x = [1.0, 2.0, 3.0] + [float(draw.randint(1, 6)) for _ in range(draw.randint(1, 12))]
    y = [draw.choice([0.5, 1.0, 7.0, draw.lognormvariate(0, 2)]) for _ in x[1:]] + [11.0]
    assert slope(x, y) == pytest.approx(stats.linregress(np.log(x), np.log(y)).slope, rel=1e-9, abs=1e-12)
    assert rank_correlation(x, y) == pytest.approx(stats.spearmanr(x, y).statistic, rel=1e-9, abs=1e-12)


def test_slopes_and_ranks_need_enough_different_points():
    assert slope([1, 2, 4], [3, 6, 12]) == pytest.approx(1)
    assert slope([1, 2, 2], [3, 6, 6]) is None
    assert slope([1, 2, 4], [3, 0, 12]) is None
    assert rank_correlation([1, 2, 3, 4], [1, 4, 9, 16]) == pytest.approx(1)
    assert rank_correlation([1, 2, 2, 4], [4, 3, 3, 1]) == pytest.approx(-1)
    assert rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 2, 3], [1, 2, 3]) is None
    assert differ(90, 80, 1000)
    assert not differ(90, 80, 20)
    assert not differ(100, 100, 10)
