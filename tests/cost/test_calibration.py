"""ISAAC's totals from ISAAC's own parts: counting and units, not validation."""

import pytest

from bitline.chip import load
from bitline.cost.calibration import isaac_chip_totals
from bitline.cost.model import price
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place


def test_calibration_parts_of_isaac_add_up_to_its_published_totals(published):
    totals, expected = isaac_chip_totals(load("isaac-32nm")), published["isaac"]

    for level in ("macros", "tile", "tiles", "chip"):
        assert getattr(totals, level).power == pytest.approx(expected[f"{level}_W"], rel=0.005)
        assert getattr(totals, level).area == pytest.approx(expected[f"{level}_mm2"] * 1e-6, rel=0.005)
    assert totals.ops == pytest.approx(expected["peak_TOPS"] * 1e12, rel=0.005)


def test_calibration_events_of_a_busy_macro_times_their_rate_are_the_published_power(published):
    chip = load("isaac-32nm")
    full = Matmul("full", "linear", 8 * 128, 16, inputs=1024)

    cost = price(place([full], chip), fixed=True)

    assert cost.layers[0].utilization == 1
    seconds = cost.latency_parts["read"]
    assert seconds == pytest.approx(16 * 100e-9)
    for part, power in published["isaac"]["table"].items():
        if part != "source":
            assert cost.energy_parts[part] / seconds == pytest.approx(power, rel=1e-6), part


def test_calibration_the_built_isaac_chip_has_the_published_area(vgg8, published):
    cost = price(place(vgg8, load("isaac-32nm")))

    assert cost.tiles == 168
    assert cost.crossbars_built == 168 * 12 * 8
    assert cost.area_m2 == pytest.approx(published["isaac"]["tiles_mm2"] * 1e-6, rel=0.005)


def test_calibration_the_peak_rate_of_events_is_the_peak_rate_of_operations():
    chip = load("isaac-32nm")
    full = Matmul("full", "linear", 8 * 128, 16, inputs=1024)

    cost = price(place([full], chip))
    macros = 168 * 12

    assert 2 * cost.macs / cost.latency_parts["read"] * macros == pytest.approx(isaac_chip_totals(chip).ops)
