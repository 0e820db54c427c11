"""VGG-8 on rram-22nm against figures that were not used to make the model."""

import pytest

from bitline.chip import load, replace
from bitline.cost.events import assumed
from bitline.cost.model import Cost, price
from bitline.mapping.place import Placement, place


def priced(placement: Placement, density: float) -> Cost:
    return price(placement, densities={layer.matmul.name: assumed(layer, density) for layer in placement.layers})


@pytest.fixture(scope="module")
def cost(vgg8, published) -> Cost:
    return priced(place(vgg8, load("rram-22nm")), published["vgg8"]["bit_density"])


def test_vgg8_makes_exactly_the_published_number_of_conversions(cost, published):
    assert cost.conversions == published["vgg8"]["conversions"] == 157_288_960
    assert cost.layers[1].conversions == 37_748_736


def test_vgg8_spends_on_conversions_and_accumulation_what_the_manual_prints(cost, published):
    parts, expected = cost.energy_parts, published["vgg8"]

    assert parts["adc"] == pytest.approx(expected["adc_uJ"] * 1e-6, rel=0.1)
    accumulation = parts["shift_add"] + parts["adder_tree"] + parts["output_register"]
    assert accumulation == pytest.approx(expected["accumulation_uJ"] * 1e-6, rel=0.1)


def test_vgg8_spends_on_wordlines_what_the_tool_leaves_for_them(cost, published):
    expected = published["vgg8"]

    assert cost.energy_parts["wordlines"] == pytest.approx(expected["row_drive_uJ"] * 1e-6, rel=0.1)
    assert cost.energy_parts["wordlines"] == pytest.approx(expected["residual_uJ"] * 1e-6, rel=0.1)


def test_vgg8_spends_in_total_what_the_manual_prints(cost, published):
    dynamic = cost.energy_J - cost.energy_parts["leakage"]

    assert dynamic == pytest.approx(published["vgg8"]["dynamic_uJ"] * 1e-6, rel=0.15)


def test_vgg8_moves_data_for_half_to_twice_what_the_manual_prints(cost, published):
    """Another floor plan: activations lie in tile buffers here, in one buffer there."""
    ratio = (cost.energy_parts["bus"] + cost.energy_parts["network"]) / (published["vgg8"]["interconnect_uJ"] * 1e-6)

    assert 0.5 < ratio < 2


def test_vgg8_has_an_area_and_a_leakage_near_the_manual(cost, published):
    assert cost.area_m2 == pytest.approx(published["vgg8"]["area_mm2"] * 1e-6, rel=0.3)
    assert cost.leakage_W == pytest.approx(published["vgg8"]["leakage_uW"] * 1e-6, rel=0.3)


def test_vgg8_with_the_default_adc_is_within_a_factor_of_three(vgg8, published):
    cost = priced(place(vgg8, replace(load("rram-22nm"), "adc.model=isaac")), published["vgg8"]["bit_density"])

    assert 1 / 3 < cost.energy_J / (published["vgg8"]["dynamic_uJ"] * 1e-6) < 3
    assert cost.energy_parts["adc"] == pytest.approx(70e-6, rel=0.02)
    assert "ADC model isaac is scaled from 32 to 22 nm" in cost.notes


def test_vgg8_with_the_default_table_is_within_a_factor_of_three(vgg8, published):
    """Its wordlines cost what they cost in ISAAC, driven once a read and held: 390 fJ a row in 100 ns."""
    overrides = ("cost_table=isaac-32nm", "adc.model=isaac", "timing.sample_and_hold=true", "cell_cost=conductance")
    cost = priced(place(vgg8, replace(load("rram-22nm"), *overrides)), published["vgg8"]["bit_density"])

    assert 1 / 3 < cost.energy_J / (published["vgg8"]["dynamic_uJ"] * 1e-6) < 3
    assert any("scaled from 32 to 22 nm" in note for note in cost.notes)


def test_other_adc_models_on_this_chip_price_the_cells_apart(cost):
    """The table's conversion contains the cells; another ADC's does not."""
    table = cost.adc_range["table"]
    isaac = cost.adc_range["isaac"]

    apart = (isaac.energy_J - isaac.adc_energy_J) - (table.energy_J - table.adc_energy_J)
    assert apart > 1e-6
    assert any("inside its conversions" in note for note in cost.notes)
