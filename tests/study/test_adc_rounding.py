"""What rounding leaves of the errors of cells: the table, the height rule, and heights compared."""

import json

import pytest
import torch
from typer.testing import CliRunner

from bitline import chip as chips
from bitline.cli import app
from bitline.errors import ChipError
from bitline.study.adc_rounding import ROWS, adc_rounding, best_height, height_rule, rounding, with_sigma

CHIP = chips.load("crimp-32nm")
# sigma, height: share of rounded errors that are not 0, mean, mean magnitude; a Monte-Carlo of 4,000 columns.
TABLE = {
    (0.1, 128): (0.75, 0.48, 1.25),
    (0.1, 32): (0.51, 0.14, 0.57),
    (0.1, 16): (0.32, 0.06, 0.33),
    (0.2, 32): (0.73, 0.52, 1.23),
    (0.05, 128): (0.51, 0.13, 0.56),
    (0.02, 128): (0.10, 0.02, 0.10),
}


@pytest.mark.parametrize(("sigma", "height"), list(TABLE))
def test_the_table_is_that_of_an_independent_draw(sigma, height):
    found = rounding(with_sigma(CHIP, sigma), height)
    nonzero, mean, mean_abs = TABLE[sigma, height]
    assert found.nonzero == pytest.approx(nonzero, abs=0.03)
    assert found.mean == pytest.approx(mean, abs=0.09)
    assert found.mean_abs == pytest.approx(mean_abs, abs=0.05)


@pytest.mark.parametrize(("sigma", "height"), [(0.1, 133), (0.2, 33)])
def test_the_height_rule_is_that_of_the_paper(sigma, height):
    assert height_rule(with_sigma(CHIP, sigma)) == height


def test_the_height_rule_does_not_make_errors_vanish():
    found = rounding(with_sigma(CHIP, 0.1), height_rule(CHIP))
    assert found.nonzero > 0.5
    assert found.power > 0.9 * found.unrounded


def test_a_centred_write_takes_the_mean_and_with_it_what_adds_up_over_tiles():
    plain, centred = rounding(with_sigma(CHIP, 0.1), 64), rounding(with_sigma(CHIP, 0.1, centred=True), 64)
    assert abs(centred.mean) < 0.5 * plain.mean
    assert centred.power < 0.8 * plain.power


def test_stuck_cells_err_by_what_they_are_not_asked_for():
    faults, drift = CHIP.cell.faults, torch.tensor(0.1**2 / 2, dtype=torch.float64).expm1()
    mean_level, driven = CHIP.cell.max_level / 2, 0.5 * 64
    working = 1 - faults.stuck_off - faults.stuck_on
    expected = driven * mean_level * (faults.stuck_on - faults.stuck_off + working * float(drift))
    assert rounding(CHIP, 64).mean == pytest.approx(expected, abs=0.2)
    assert rounding(CHIP, 64).power > 2 * rounding(with_sigma(CHIP, 0.1), 64).power


def test_small_errors_do_vanish_and_the_best_height_is_the_least_power():
    small = with_sigma(CHIP, 0.02)
    assert rounding(small, 1).power == 0 < rounding(small, 128).power
    assert best_height(small, columns=500) < 128
    found = adc_rounding(small, columns=500)
    by_height = {row["height"]: row["power"] for row in found["heights"]}
    assert found["best_height"] == min(by_height, key=by_height.get)
    assert max(by_height) <= small.crossbar.rows <= ROWS


def test_cells_without_a_mean_error_have_no_rule():
    with pytest.raises(ChipError, match="the height rule limits nothing"):
        height_rule(with_sigma(CHIP, 0.1, centred=True))
    with pytest.raises(ChipError, match="'ideal'; the height rule is stated for 'lognormal'"):
        adc_rounding(chips.replace(CHIP, "cell.programming={kind='ideal'}"))
    assert adc_rounding(with_sigma(CHIP, 0.1, centred=True), columns=100)["rule"] is None


def test_the_command_prints_json_and_tables_and_is_repeatable():
    runner = CliRunner()
    first = runner.invoke(app, ["study", "adc-rounding", "--columns", "200", "--json", "-"])
    assert first.exit_code == 0
    assert json.loads(first.output)["rule"] == 133
    assert first.output == runner.invoke(app, ["study", "adc-rounding", "--columns", "200", "--json", "-"]).output
    shown = runner.invoke(app, ["study", "adc-rounding", "--columns", "200"]).output
    assert "By the height rule a column of 133 wordlines" in shown
