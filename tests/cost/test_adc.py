import importlib.util
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bitline.chip import load, replace
from bitline.cost.adc import (
    MEANINGS,
    MODELS,
    WIDTHS,
    adc_cost,
    isaac,
    survey_area,
    survey_energy,
    zigzag_area,
    zigzag_energy,
)
from bitline.cost.median_adc import median, median_area, median_energy
from bitline.cost.model import price
from bitline.cost.table import NODE_EXPONENT
from bitline.cost.table import load as load_table
from bitline.errors import ChipError
from bitline.mapping.place import place


def test_survey_regression_agrees_with_the_library_it_re_implements(published):
    expected = published["adc_survey"]

    energy = survey_energy(8, 32e-9, 1.28e9)

    assert 8 * 1.28e9 * energy == pytest.approx(expected["eight_adcs_mW"] * 1e-3, rel=1e-6)
    assert 8 * survey_area(energy, 32e-9, 1.28e9) == pytest.approx(expected["eight_adcs_mm2"] * 1e-6, rel=1e-6)


def test_survey_regression_has_its_golden_values(published):
    for point in published["adc_survey"]["rounded"]:
        node, rate = point["node_nm"] * 1e-9, point["GSps"] * 1e9
        energy = survey_energy(point["bits"], node, rate)
        assert energy * 1e12 == pytest.approx(point["pJ"], abs=0.5e-4 * (1 + 1e-6))
        assert survey_area(energy, node, rate) * 1e12 == pytest.approx(point["um2"], abs=0.5)


def test_zigzag_model_has_the_published_values(published):
    for bits, femtojoule, square_micrometre in published["adc_zigzag"]["points"]:
        assert zigzag_energy(bits, 0.9) * 1e15 == pytest.approx(femtojoule, abs=0.06)
        assert zigzag_area(bits) * 1e12 == pytest.approx(square_micrometre, abs=0.5)


def test_isaac_model_is_the_table_at_8_bits_and_a_sar_at_others(published):
    table = load_table("isaac-32nm")

    assert isaac(8)[0] == pytest.approx(table.adc_energy.si)
    assert isaac(5)[0] == pytest.approx(2e-3 / 1.28e9 * (500 + 1.024) / (800 + 65.536))
    for bits, area in published["adc_isaac"]["points"]:
        assert isaac(bits)[1] * 1e12 == pytest.approx(area, rel=1e-4)


def test_flash_table_gains_a_comparator_for_each_reference():
    chip, table = load("rram-22nm"), load_table("neurosim-22nm")

    def cost(bits: int):
        return adc_cost("table", replace(chip, f"adc.bits={bits}"), table)

    assert cost(5).energy == pytest.approx(table.adc_energy.si)
    assert cost(6).energy - cost(5).energy == pytest.approx(32 * 1.7e-15)
    assert cost(6).area == pytest.approx(cost(5).area * 63 / 31)
    assert cost(1).energy > 0
    ternary = adc_cost("table", replace(chip, "adc.bits=2", "adc.levels=3"), table)
    assert cost(1).energy < ternary.energy < cost(2).energy
    assert ternary.energy - cost(1).energy == pytest.approx(1.7e-15)


def test_fewer_codes_than_the_bits_give_cost_as_much_as_the_bits_and_that_is_noted(vgg8):
    for name, noted in (("example-128", True), ("rram-22nm", False)):
        chip = replace(load(name), "adc.bits=2", "adc.levels=3")
        said = "ADCs of 3 codes are priced as ADCs of 2 bits" in price(place(vgg8, chip)).notes
        assert said is noted


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("preset", ["isaac-32nm", "rram-22nm"])
def test_energy_and_area_of_an_adc_grow_with_its_bits(model, preset):
    chip = load(preset)
    table = load_table(chip.cost_table)

    least, most = WIDTHS[model]
    costs = [adc_cost(model, replace(chip, f"adc.bits={bits}"), table) for bits in range(least, most + 1)]

    assert all(a.energy < b.energy and a.area < b.area for a, b in pairwise(costs))


def test_an_adc_wider_than_the_models_hold_for_is_refused(vgg8):
    placement = place(vgg8, replace(load("example-128"), "adc.bits=13"))

    with pytest.raises(ChipError, match=r"adc.bits = 13: cost model 'isaac' of ADCs holds for 1 to 12 bits"):
        price(placement)


def test_an_adc_narrower_than_the_survey_is_refused_where_the_survey_is_chosen(vgg8):
    placement = place(vgg8, replace(load("example-128"), "adc.bits=3", "adc.model=survey"))

    with pytest.raises(ChipError, match=r"adc.bits = 3: cost model 'survey' of ADCs holds for 4 to 12 bits"):
        price(placement)


def test_an_adc_narrower_than_the_survey_is_priced_without_it_and_says_so(vgg8):
    cost = price(place(vgg8, replace(load("rram-22nm"), "adc.bits=3")))

    assert set(cost.adc_range) == {"table", "isaac", "median", "zigzag"}
    assert "ADC model survey holds for 4 to 12 bits: it is left out of the range" in cost.notes
    wide = price(place(vgg8, replace(load("rram-22nm"), "adc.bits=11")))
    assert "ADC model median holds for 3 to 10 bits: it is left out of the range" in wide.notes


def test_the_span_of_adc_models_holds_the_chosen_one(vgg8):
    cost = price(place(vgg8, load("rram-22nm")))

    assert set(cost.adc_range) == set(MODELS)
    assert cost.adc_range[cost.adc_model].energy_J == pytest.approx(cost.energy_J, rel=1e-12)
    assert cost.adc_range[cost.adc_model].adc_energy_J == pytest.approx(cost.energy_parts["adc"], rel=1e-12)
    least, most = cost.energy_span
    assert least <= cost.energy_J <= most
    assert cost.adc_range["isaac"].conversion_J == pytest.approx(isaac(5)[0] * (22 / 32) ** NODE_EXPONENT)


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def survey():
    """The script that fits the median."""
    spec = importlib.util.spec_from_file_location("adc_survey", ROOT / "experiments" / "adc_survey.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_half_of_the_published_adcs_take_more_than_the_median_model_says_and_half_less(survey):
    bits, node, rate, energy, area = survey.designs().T
    laws = median()

    for law, values, unit in ((laws.energy, energy, median_energy), (laws.area, area, median_area)):
        known = ~np.isnan(values)
        says = [law.at(*one) for one in zip(bits[known], 1e-9 * node[known], rate[known], strict=True)]
        over = values[known] / says
        assert law.designs == known.sum() > 150
        assert np.mean(over < 1) == pytest.approx(0.5, abs=0.02)
        assert np.mean(over < law.lower_quartile) == pytest.approx(0.25, abs=0.02)
        assert np.mean(over < law.upper_quartile) == pytest.approx(0.75, abs=0.02)
        assert unit(8, 32e-9, 1e9) == pytest.approx(law.at(8, 32e-9, 1e9) * 1e-12)


def test_the_table_of_the_median_is_what_the_script_fits_to_the_survey(survey):
    kept, fitted = survey.TABLE.read_text("utf-8"), survey.text()

    for old, new in zip(numbers(kept), numbers(fitted), strict=True):
        assert old == pytest.approx(new, rel=1e-3)


def numbers(text: str) -> list[float]:
    return [value for law in tomllib.loads(text).values() for value in law.values()]


def test_eight_bits_of_the_median_take_what_papers_around_them_print(survey):
    """Designs of 7.5 to 8.5 effective bits at 28 to 45 nm, 0.9 to 3 GS/s: their middle, without any regression."""
    bits, node, rate, energy, _ = survey.designs().T
    near = (abs(bits - 8) < 0.5) & (node >= 28) & (node <= 45) & (rate >= 0.9e9) & (rate <= 3e9)

    assert near.sum() > 6
    assert median_energy(8, 32e-9, 1.5e9) == pytest.approx(np.median(energy[near]) * 1e-12, rel=0.3)


def test_zigzag_goes_with_node_and_supply_and_isaac_with_its_supply():
    table = load_table("neurosim-22nm")

    def energy(model, *overrides):
        return adc_cost(model, replace(load("isaac-32nm"), *overrides), table).energy

    assert energy("zigzag", "node=28 nm", "vdd=0.9 V") == pytest.approx(zigzag_energy(8, 0.9))
    assert energy("zigzag", "node=14 nm", "vdd=0.9 V") == pytest.approx(zigzag_energy(8, 0.9) / 2)
    assert energy("zigzag", "node=28 nm", "vdd=0.45 V") == pytest.approx(zigzag_energy(8, 0.9) / 4)
    assert energy("isaac", "vdd=0.5 V") == pytest.approx(isaac(8)[0] / 4)


def test_every_model_says_what_it_is_where_it_is_chosen_and_where_it_is_compared(vgg8):
    assert MEANINGS.keys() == set(MODELS)
    for model in ("survey", "median"):
        notes = price(place(vgg8, replace(load("isaac-32nm"), "system.tiles=1000", f"adc.model={model}"))).notes
        assert f"ADC model {model} is fitted to ADCs at their own supply: vdd does not move it" in notes
