import math
from dataclasses import replace as other

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import Chip, load, replace
from bitline.cost.circuits import prices, segment_area
from bitline.cost.digital import UNITS, arithmetic, mac_area, mac_prices
from bitline.cost.events import Densities, assumed, count, mac_bits
from bitline.cost.model import Cost, price
from bitline.cost.table import load as load_table
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place, placed
from bitline.mapping.strategies import STRATEGIES

CHANNELS, POSITIONS = 256, 100
DEPTHWISE = Matmul("dw", "conv2d", 9, 1, CHANNELS, POSITIONS, CHANNELS * POSITIONS, depthwise=True)
STRIP = load("strip-22nm")


def events(strategy: str, chip: Chip = STRIP, layer: Matmul = DEPTHWISE):
    p = placed(layer, chip, strategy)
    return count(p, assumed(p))


def cost(strategy: str, chip: Chip = STRIP, layer: Matmul = DEPTHWISE) -> Cost:
    return price(place([layer], chip, {"*": strategy}))


def test_a_depthwise_layer_converts_as_often_however_it_is_packed():
    wanted = POSITIONS * 8 * 4 * CHANNELS
    assert {events(s).conversions for s in ("dense", "packed", "strip")} == {wanted}
    assert events("naive").conversions == wanted * 18
    assert events("digital").conversions == 0


def test_reads_and_wordlines_are_those_counted_by_hand():
    found = {s: events(s) for s in STRATEGIES}
    digits = POSITIONS * 8
    assert {s: e.reads for s, e in found.items()} == {
        "dense": digits * 256,
        "naive": digits * 18 * 8,
        "packed": digits * 19,
        "strip": digits * 19,
        "digital": 0,
    }
    # Rounds of the column multiplexer: 4 cells of one weight, 8 columns an ADC, and 56 columns over 16 ADCs.
    assert {s: e.rounds for s, e in found.items() if s != "digital"} == {
        "dense": 4,
        "naive": 8,
        "packed": 8,
        "strip": 4,
    }
    once = digits * 9 * CHANNELS
    assert {s: e.wordlines for s, e in found.items()} == {
        "dense": once * 4,
        "naive": once * 8 * 8,
        "packed": once * 8,
        "strip": once * 4,
        "digital": 0,
    }


def test_wordlines_of_a_packed_crossbar_cross_the_cells_of_every_group_on_it():
    dense, packed = events("dense"), events("packed")
    assert packed.cells == POSITIONS * 8 * 9 * 4 * (18 * 14**2 + 4**2)
    assert dense.cells == events("strip").cells == POSITIONS * 8 * 9 * 4 * CHANNELS


def test_empty_cells_conduct_as_cells_of_level_zero_do():
    chip = replace(STRIP, "cell.g_min=2 uS", "cell.g_max=10 uS")
    dense, packed = events("dense", chip), events("packed", chip)
    beside = (packed.cells - dense.cells) / 2
    assert packed.driven_conductance == pytest.approx(dense.driven_conductance + beside * 2e-6)


def test_zeros_of_the_naive_matrix_conduct_as_their_encoding_says():
    chip = replace(STRIP, "cell.g_min=1 uS", "cell.g_max=4 uS")
    naive, dense = events("naive", chip), events("dense", chip)
    # 128 is 2000 in base 4: one cell in four at level 2, 3 uS, the others at 1 uS; half of the digits are one.
    beside = (naive.cells - dense.cells) / 2
    assert naive.driven_conductance == pytest.approx(dense.driven_conductance + beside * (3 * 1e-6 + 3e-6) / 4)


def test_partial_sums_appear_in_the_naive_matrix_only():
    assert {s: events(s).tree_adds for s in STRATEGIES} == {
        "dense": 0,
        "naive": 17 * DEPTHWISE.outputs,
        "packed": 0,
        "strip": 0,
        "digital": 0,
    }


def test_the_offset_of_the_naive_matrix_sums_all_inputs_at_once():
    from bitline.cost.events import accumulator_bits, tree_bits

    width = accumulator_bits(placed(DEPTHWISE, STRIP))
    assert events("naive").offset_adder_bits == POSITIONS * (tree_bits(9 * CHANNELS, 8) + CHANNELS * width)
    own = POSITIONS * CHANNELS * (tree_bits(9, 8) + width)
    assert events("dense").offset_adder_bits == events("packed").offset_adder_bits == own
    assert events("digital").offset_adder_bits == 0


def test_lanes_follow_one_after_the_other():
    dense, strip = cost("dense"), cost("strip")
    assert strip.latency_parts["read"] == pytest.approx(19 * dense.latency_parts["read"])
    assert strip.layers[0].steps == 19


def test_an_analog_pair_halves_the_rounds_of_strips_too():
    chip = replace(STRIP, "weights.encoding=pair")
    assert events("strip", chip).rounds == math.ceil(math.ceil(14 * 8 / 16) / 2)


def test_a_strip_charges_its_segment_and_half_a_sense_wire():
    share = placed(DEPTHWISE, STRIP, "strip").bitline_share
    assert share == (9 + (128 + 128) / 2) / 128
    assert placed(DEPTHWISE, load("rram-22nm"), "strip").bitline_share == 1
    physical = replace(STRIP, "cell_cost=conductance")
    assert cost("strip", physical).energy_parts["bitlines"] == pytest.approx(
        share * cost("dense", physical).energy_parts["bitlines"]
    )


def test_segments_are_priced_wherever_a_chip_has_them():
    assert segment_area(load("rram-22nm")) == 0
    cell, edge = 48 * (22e-9) ** 2, math.sqrt(48) * 22e-9
    # 14 segments: 13 joints and 14 taps a bitline, and 2 sense wires a segment 4 F apart along the crossbar's side.
    wanted = 128 * 27 * cell + 28 * 4 * 22e-9 * 128 * edge
    assert segment_area(STRIP) == pytest.approx(wanted)
    found = cost("dense")
    assert found.area_parts["segments"] == pytest.approx(found.crossbars_built * wanted)
    assert any("segment switches" in note for note in found.notes)


def test_a_chip_without_segments_says_that_strips_share_columns_only():
    assert any("no bitline segments" in note for note in cost("strip", load("rram-22nm")).notes)


def test_digital_arithmetic_is_that_of_its_source_at_its_own_node():
    at_45 = replace(STRIP, "node=45 nm", "vdd=0.9 V")
    one = mac_prices(at_45)
    assert one.product == pytest.approx(0.2e-12)
    assert one.adder_bit * 32 == pytest.approx(0.1e-12)
    assert one.product_area == pytest.approx(282e-12)
    assert one.adder_bit_area * 32 == pytest.approx(137e-12)
    # The source's other adder, of 8 bits: 0.03 pJ.
    assert one.adder_bit * 8 == pytest.approx(0.03e-12, rel=0.2)
    assert mac_prices(replace(at_45, "inputs.bits=4")).product == pytest.approx(0.1e-12)
    assert arithmetic().multiply_energy.status == "recalled"


def test_a_digital_layer_pays_for_products_and_for_reading_inputs_and_weights():
    found = cost("digital")
    layer = placed(DEPTHWISE, STRIP, "digital")
    one, macs = mac_prices(STRIP), DEPTHWISE.macs
    assert mac_bits(layer) == 20
    assert found.energy_parts["digital_mac"] == pytest.approx(macs * (one.product + 20 * one.adder_bit))
    counted = found.layers[0].events
    assert counted.buffer_read_bits == POSITIONS * CHANNELS * 9 * 8 + macs * 8
    assert counted.bus_bits == POSITIONS * CHANNELS * 9 * 8
    for part in ("adc", "wordlines", "cells", "bitlines", "shift_add", "adder_tree", "offset_sum", "input_register"):
        assert found.energy_parts[part] == 0
    assert found.latency_parts["digital_mac"] == pytest.approx(POSITIONS * CHANNELS * 9 / UNITS * 1e-9)
    assert found.layers[0].area_m2 == pytest.approx(mac_area(layer)) == found.area_parts["digital_mac"]
    assert found.crossbars == found.crossbars_built == 0
    assert any("Horowitz" in note for note in found.notes)


@given(st.data())
def test_parts_sum_to_their_totals_under_every_mapping(data):
    layers = [
        Matmul(
            f"l{i}",
            "conv2d",
            data.draw(st.integers(1, 60)),
            data.draw(st.integers(1, 8)),
            data.draw(st.integers(1, 40)),
            data.draw(st.integers(1, 20)),
            data.draw(st.integers(0, 999)),
        )
        for i in range(data.draw(st.integers(1, 4)))
    ]
    mapping = {layer.name: data.draw(st.sampled_from(STRATEGIES)) for layer in layers}
    chip = replace(
        STRIP,
        f"adc.model={data.draw(st.sampled_from(['table', 'isaac']))}",
        f"system.copies={data.draw(st.integers(1, 3))}",
        f"timing.sample_and_hold={data.draw(st.sampled_from(['true', 'false']))}",
    )
    found = price(place(layers, chip, mapping))
    for total, parts in (
        (found.energy_J, found.energy_parts.values()),
        (found.area_m2, found.area_parts.values()),
        (found.latency_s, found.latency_parts.values()),
        (found.area_m2, [*(layer.area_m2 for layer in found.layers), found.unused_area_m2]),
        (found.energy_J, [layer.energy_J for layer in found.layers]),
    ):
        assert math.isclose(total, math.fsum(parts), rel_tol=1e-9)
    assert all(value >= 0 for value in [*found.energy_parts.values(), *found.area_parts.values()])
    assert [layer.strategy for layer in found.layers] == [
        s if layer.groups > 1 or s == "digital" else "dense" for layer, s in zip(layers, mapping.values(), strict=True)
    ]


def test_every_event_of_a_layer_has_a_price():
    prices(STRIP, load_table(STRIP.cost_table), "table", 1e-3)
    for strategy in STRATEGIES:
        plain = cost(strategy).layers[0].to_json()
        assert plain["strategy"] == strategy
        assert plain["conversions"] == events(strategy).conversions


def test_densities_that_were_measured_are_taken_for_every_strategy():
    for strategy in STRATEGIES:
        p = placed(DEPTHWISE, STRIP, strategy)
        quiet = Densities([0.0] * 8, [0.0] * 8, [0.0] * 4)
        assert count(p, quiet).driven_cells == 0


def test_more_channels_never_cost_less():
    for strategy in STRATEGIES:
        more = other(DEPTHWISE, groups=300, inputs=300 * POSITIONS)
        assert cost(strategy, layer=more).energy_J > cost(strategy).energy_J
