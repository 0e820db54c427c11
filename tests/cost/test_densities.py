import pytest

from bitline.chip import load, replace
from bitline.cost.events import Densities, assumed, peak
from bitline.cost.model import price
from bitline.errors import MappingError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place

LAYER = Matmul("m", "conv2d", 300, 40, positions=10, inputs=400)


def cost(density: float, level: float | list[float] = 1.5, *overrides: str):
    placement = place([LAYER], replace(load("example-128"), *overrides))
    layer = placement.layers[0]
    levels = [level] * layer.chip.slices if isinstance(level, float) else level
    base = assumed(layer, density)
    return price(placement, densities={"m": Densities(base.digit_mean, base.digit_square_mean, levels)})


@pytest.mark.parametrize("part", ["wordlines", "cells"])
def test_wordline_and_cell_energy_are_linear_in_the_density_of_ones(part):
    low, middle, high = (cost(p).energy_parts[part] for p in (0.1, 0.3, 0.5))

    assert low > 0
    assert middle - low == pytest.approx(high - middle, rel=1e-9)
    assert high == pytest.approx(5 * low, rel=1e-9)


def test_cell_energy_is_linear_in_the_level_of_each_slice():
    def cells(level: float) -> float:
        return cost(0.5, [0.0, level, 0.0, 0.0]).energy_parts["cells"]

    a, b, c = cells(0.5), cells(1.0), cells(2.5)

    assert c - b == pytest.approx(3 * (b - a), rel=1e-9)
    # Cells at level 0 still conduct g_min.
    assert cells(0.0) > 0


def test_zero_inputs_cost_no_wordline_and_no_cell_energy():
    for overrides in ((), ("cell_cost=table",)):
        parts = cost(0.0, 1.5, *overrides).energy_parts
        assert parts["wordlines"] == 0
        assert parts["cells"] == 0
        assert parts["adc"] > 0


def test_fixed_energy_ignores_data_and_differs():
    placement = place([LAYER], load("example-128"))

    fixed, half = price(placement, fixed=True), price(placement)

    assert (fixed.data, half.data) == ("fixed", "assumed")
    assert fixed.energy_parts["cells"] == pytest.approx(2 * half.energy_parts["cells"])
    assert fixed.energy_parts["wordlines"] == pytest.approx(2 * half.energy_parts["wordlines"])
    assert fixed.energy_parts["adc"] == half.energy_parts["adc"]
    assert any("data are ignored" in note for note in fixed.notes)
    assert any("densities are assumed" in note for note in half.notes)


def test_what_is_assumed_is_half_of_the_bits():
    placement = place([LAYER], load("example-128"))

    measured = price(placement, densities={"m": assumed(placement.layers[0], 0.5)})

    assert measured.data == "measured"
    assert measured.energy_J == price(placement).energy_J


def test_digits_of_several_bits_go_with_their_mean_square():
    layer = place([LAYER], replace(load("example-128"), "dac.bits=2")).layers[0]

    half, all_on = assumed(layer), peak(layer)

    assert layer.digits == 4
    assert half.digit_mean == [1.5] * 4
    assert half.digit_square_mean == [(0 + 1 + 4 + 9) / 4] * 4
    assert all_on.digit_square_mean == [9] * 4


def test_cells_of_a_chip_with_known_conductances_heat_as_v2_g_t():
    parts = cost(1.0, 3.0).energy_parts

    reads = 10 * 300 * 40 * 4 * 8
    assert parts["cells"] == pytest.approx(reads * 0.2**2 * 100e-6 * 10e-9, rel=1e-9)


def test_densities_of_every_layer_or_of_none():
    placement = place([LAYER, Matmul("n", "linear", 40, 10, inputs=40)], load("example-128"))
    one = {"m": assumed(placement.layers[0])}

    with pytest.raises(MappingError, match="no densities of layer n; given: m"):
        price(placement, densities=one)
    with pytest.raises(MappingError, match="densities of layer 'x', which is not placed; layers: m, n"):
        price(placement, densities={"x": one["m"]})
    with pytest.raises(MappingError, match="fixed = True ignores data"):
        price(placement, densities=one, fixed=True)
