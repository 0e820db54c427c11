import json
import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitline.chip import Chip, load, replace
from bitline.cost.adc import MODELS, WIDTHS
from bitline.cost.model import price
from bitline.errors import MappingError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place

ENCODINGS = ("offset", '{kind = "offset", sum = "column"}', "pair", "twos_complement")
PAIRS = ('{kind = "pair", subtract = "digital"}',)


@st.composite
def networks(draw: st.DrawFn) -> tuple[list[Matmul], Chip]:
    layers = [
        Matmul(
            f"layer{i}",
            "conv2d",
            draw(st.integers(1, 700)),
            draw(st.integers(1, 90)),
            draw(st.integers(1, 5)),
            draw(st.integers(1, 50)),
            draw(st.integers(0, 5000)),
            draw(st.booleans()),
        )
        for i in range(draw(st.integers(1, 4)))
    ]
    rows = draw(st.sampled_from([16, 100, 128, 256]))
    adc = draw(st.sampled_from(MODELS))
    chip = replace(
        load(draw(st.sampled_from(["isaac-32nm", "rram-22nm", "example-128"]))),
        f"crossbar.rows={rows}",
        f"crossbar.active_rows={draw(st.integers(1, rows))}",
        f"crossbar.cols={draw(st.sampled_from([64, 128, 200]))}",
        f"adc.columns_per_adc={draw(st.sampled_from([1, 8, 64]))}",
        f"adc.bits={draw(st.integers(*WIDTHS[adc]))}",
        f"adc.model={adc}",
        f"cell_cost={draw(st.sampled_from(['conductance', 'table']))}",
        f"weights.encoding={draw(st.sampled_from(ENCODINGS + PAIRS))}",
        f"timing.sample_and_hold={draw(st.sampled_from(['true', 'false']))}",
        f"dac.bits={draw(st.integers(1, 3))}",
        f"system.copies={draw(st.integers(1, 3))}",
        f"system.crossbars_per_macro={draw(st.integers(1, 9))}",
    )
    return layers, chip.model_copy(update={"system": chip.system.model_copy(update={"tiles": None})})


def same(total: float, parts: object) -> bool:
    return math.isclose(total, math.fsum(parts), rel_tol=1e-9)  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(networks())
def test_parts_sum_to_their_totals_by_component_and_by_layer(network):
    layers, chip = network
    cost = price(place(layers, chip))

    assert same(cost.energy_J, cost.energy_parts.values())
    assert same(cost.area_m2, cost.area_parts.values())
    assert same(cost.latency_s, cost.latency_parts.values())
    assert same(cost.energy_J, [layer.energy_J for layer in cost.layers])
    assert same(cost.latency_s, [layer.latency_s for layer in cost.layers])
    assert same(cost.area_m2, [*(layer.area_m2 for layer in cost.layers), cost.unused_area_m2])
    for layer in cost.layers:
        assert same(layer.energy_J, layer.energy_parts.values())
    for part, energy in cost.energy_parts.items():
        assert same(energy, [layer.energy_parts[part] for layer in cost.layers])
    assert cost.conversions == sum(layer.conversions for layer in cost.layers)
    assert cost.energy_parts["leakage"] == pytest.approx(cost.leakage_W * cost.latency_s)
    channel = sum(layer.events.off_chip_bits for layer in cost.layers) / (12.8e9 * 8)
    assert cost.interval_s == pytest.approx(max(channel, *(layer.latency_s for layer in cost.layers)), rel=1e-3)
    assert all(value >= 0 for value in [*cost.energy_parts.values(), *cost.area_parts.values(), cost.unused_area_m2])


@settings(max_examples=60, deadline=None)
@given(networks(), st.sampled_from(["adc", "inputs", "weights", "rows", "cols", "positions", "groups"]))
def test_energy_and_area_never_fall_with_bits_rows_columns_or_positions(network, what):
    layers, chip = network
    more, larger = list(layers), chip
    match what:
        case "adc":
            larger = replace(chip, f"adc.bits={min(chip.adc.bits + 1, 12)}")
        case "inputs":
            chip = replace(chip, "inputs.bits=7")
            larger = replace(chip, "inputs.bits=8")
        case "weights":
            chip = replace(chip, "weights.bits=7")
            larger = replace(chip, "weights.bits=8")
        case _:
            grown = {what: getattr(layers[0], what) + 130}
            more[0] = Matmul(**{**vars(layers[0]), **grown})

    before, after = price(place(layers, chip)), price(place(more, larger))

    assert after.energy_J >= before.energy_J * (1 - 1e-12)
    if what != "weights":  # fewer, wider weights in a crossbar need fewer output registers
        assert after.area_m2 >= before.area_m2 * (1 - 1e-12)
    assert after.conversions >= before.conversions


def test_an_empty_network_is_refused():
    with pytest.raises(MappingError, match="nothing to price"):
        price(place([], load("example-128")))


def test_a_mac_is_two_operations_and_strides_are_counted(vgg8):
    cost = price(place(vgg8, load("rram-22nm")))

    assert cost.macs == sum(m.rows * m.cols * m.positions for m in vgg8)
    assert cost.tops_per_watt * 1e12 == pytest.approx(2 * cost.macs / cost.energy_J)
    assert cost.tops * 1e12 == pytest.approx(2 * cost.macs / cost.interval_s)


def test_copies_divide_time_and_multiply_area(vgg8):
    one = price(place(vgg8, load("rram-22nm")))
    four = price(place(vgg8, replace(load("rram-22nm"), "system.copies=4")))

    assert four.latency_parts["read"] == pytest.approx(one.latency_parts["read"] / 4, rel=0.01)
    assert four.crossbars == 4 * one.crossbars
    assert four.area_m2 == pytest.approx(4 * one.area_m2, rel=0.02)
    assert four.energy_parts["adc"] == one.energy_parts["adc"]


def test_poolings_are_priced_behind_their_layer(vgg8):
    placement = place(vgg8, load("isaac-32nm"))

    cost = price(placement, poolings={"conv2": 131072})

    assert cost.energy_parts["pooling"] == pytest.approx(131072 * 0.4e-12)
    assert cost.layers[1].energy_parts["pooling"] == cost.energy_parts["pooling"]
    with pytest.raises(MappingError, match="poolings of layer 'conv7', which is not placed"):
        price(placement, poolings={"conv7": 1})


def test_a_macro_that_is_not_full_is_built_whole():
    chip = load("example-128")
    placement = place([Matmul("m", "linear", 128, 32 * 9, inputs=128)], chip)

    cost = price(placement)

    assert (cost.crossbars, cost.crossbars_built, cost.tiles) == (9, 16, 1)
    assert cost.unused_area_m2 == pytest.approx(cost.area_m2 * 7 / 16)


def test_a_lossless_adc_narrower_than_its_sums_is_noted(vgg8):
    cost = price(place(vgg8, load("crimp-32nm")))

    assert any("priced at adc.bits = 8; exact ones, as policy lossless has, need 9 bits" in note for note in cost.notes)


def test_the_json_is_plain_data_with_the_agreed_names(vgg8):
    cost = price(place(vgg8, load("rram-22nm")))
    plain = json.loads(json.dumps(cost.to_json(), allow_nan=False))

    assert plain["conversions"] == 157288960
    for key in ("energy_J", "latency_s", "area_m2", "tops_per_watt"):
        assert plain[key] == getattr(cost, key) > 0
    for key in ("energy_parts", "area_parts", "latency_parts"):
        assert plain[key] == getattr(cost, key)
    assert [layer["name"] for layer in plain["layers"]] == [m.name for m in vgg8]
    names = {
        "kind",
        "rows",
        "cols",
        "groups",
        "row_tiles",
        "crossbars",
        "utilization",
        "conversions",
        "energy_J",
        "area_m2",
    }
    assert names <= set(plain["layers"][0])
    assert plain["adc_range"]["isaac"]["energy_J"] > plain["energy_J"]


def test_pricing_needs_no_torch():
    code = "import sys, bitline.cost, bitline.cost.calibration; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
