"""Computing power and area by hand."""

import json

import pytest
from typer.testing import CliRunner

from bitline.chip import load, replace
from bitline.cli import app
from bitline.cost.computing import Ratios, compare, computing, mean
from bitline.errors import MappingError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import Placement, place, placed

CHIP = load("crimp-32nm")
LAYER = Matmul("it", "linear", 300, 40)  # 3 row tiles, 2 column tiles: 6 crossbars


def test_crossbars_alone_are_eight_to_a_macro():
    found = computing(place([LAYER], CHIP))
    assert found.crossbars == 6
    assert list(found.parts) == ["crossbars"]
    assert found.power_W == pytest.approx(6 / 8 * 2.4e-3)
    assert found.area_m2 == pytest.approx(6 / 8 * 200e-12)


def test_tables_and_multipliers_are_shared_by_the_crossbars_of_a_macro_and_of_a_tile():
    found = computing(place([LAYER], CHIP), sparsity_tables=True, fp_multipliers=True)
    assert found.power_W == pytest.approx(6 / 8 * (2.4e-3 + 0.5e-3) + 6 / 96 * 23.72e-3)
    assert found.area_m2 == pytest.approx(6 / 8 * (200e-12 + 1260e-12) + 6 / 96 * 26040e-12)
    assert sum(part.power_W for part in found.parts.values()) == pytest.approx(found.power_W)


def test_whole_macros_and_tiles_round_up():
    found = computing(place([LAYER, LAYER], CHIP), sparsity_tables=True, fp_multipliers=True, whole=True)
    assert found.parts["crossbars"].power_W == pytest.approx(12 / 8 * 2.4e-3)
    assert found.parts["sparsity_tables"].power_W == pytest.approx(2 * 0.5e-3)
    assert found.parts["fp_multipliers"].power_W == pytest.approx(23.72e-3)


def test_the_table_and_the_multiplier_are_the_published_shares_of_a_macro_and_a_tile():
    macro_area, tile_power = 2100 + 770 + 1260 + 200 + 240 + 9810, 20.70 + 1.68 + 23.72 + 294.84 + 11.47
    full = Matmul("full", "linear", 12 * 128, 8 * 32)
    found = computing(place([full], CHIP), sparsity_tables=True, fp_multipliers=True)
    assert found.crossbars == 96
    assert found.parts["sparsity_tables"].area_m2 / 12 / (macro_area * 1e-12) == pytest.approx(0.09, abs=0.01)
    assert found.parts["fp_multipliers"].power_W / (tile_power * 1e-3) == pytest.approx(0.067, abs=0.001)


def test_crossbars_that_are_not_built_and_multipliers_that_are_not_needed_make_the_ratio():
    before = computing(place([LAYER], CHIP), fp_multipliers=True)
    pruned = placed(LAYER, CHIP, "dense", frozenset({(0, 0, 0), (0, 1, 0), (0, 2, 1)}))
    found = compare(before, computing(Placement(CHIP, (pruned,))))
    assert found.crossbars == 2
    assert found.power == pytest.approx(2 * (2.4 / 8 + 23.72 / 96) / (2.4 / 8))
    assert found.area == pytest.approx(2 * (200 / 8 + 26040 / 96) / (200 / 8))


def test_the_mean_over_networks_is_geometric():
    found = mean([Ratios(2, 4, 8), Ratios(8, 16, 2)])
    assert (found.crossbars, found.power, found.area) == pytest.approx((4, 8, 4))


def test_copies_count():
    assert computing(place([LAYER], replace(CHIP, "system.copies=3"))).crossbars == 18


def test_other_crossbars_and_empty_comparisons_are_refused():
    with pytest.raises(MappingError, match=r"crossbars of 64 x 128 cells of 2 bits; .* 128 x 128 of 2 bits"):
        computing(place([LAYER], replace(CHIP, "crossbar.rows=64")))
    with pytest.raises(MappingError, match="no networks"):
        mean([])


def test_the_command_shows_and_writes_it():
    runner = CliRunner()
    arguments = ["cost", "lenet5", "--chip", "crimp-32nm", "--in-channels", "1", "--image-size", "28", "--computing"]
    shown = runner.invoke(app, arguments)
    assert "computing" in shown.output
    found = json.loads(runner.invoke(app, [*arguments, "--json", "-"]).output)
    assert found["computing"]["power_W"] == pytest.approx(sum(found["computing"]["power_parts_W"].values()))
    assert "fp_multipliers" in found["computing"]["power_parts_W"]
    shifts = ["--set", "weights.scale=power_of_two", "--set", "inputs.scale=power_of_two"]
    without = json.loads(runner.invoke(app, [*arguments, *shifts, "--json", "-"]).output)["computing"]
    assert list(without["power_parts_W"]) == ["crossbars"]
    for correction, parts in (("none", ["crossbars"]), ("measured", ["crossbars", "fp_multipliers"])):
        more = ["--set", f"weights.encoding.correction={correction}"]
        found = json.loads(runner.invoke(app, [*arguments, *shifts, *more, "--json", "-"]).output)["computing"]
        assert list(found["power_parts_W"]) == parts
