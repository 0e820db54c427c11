from itertools import pairwise

import pytest
import torch

from bitline.chip import Chip, load, replace
from bitline.cost.events import Densities, accumulator_bits, assumed, count, mux_rounds, tree_bits
from bitline.cost.latency import layer_time
from bitline.cost.traffic import traffic
from bitline.errors import MappingError
from bitline.mapping.empty import empty_blocks
from bitline.mapping.lower import Matmul
from bitline.mapping.place import LayerPlacement, dense


def chip(*overrides: str) -> Chip:
    small = (
        "crossbar.rows=8",
        "crossbar.cols=8",
        "crossbar.active_rows=8",
        "adc.columns_per_adc=4",
        "adc.bits=4",
        "weights.bits=4",
        "inputs.bits=3",
        "timing.sample_and_hold=false",
        "system.crossbars_per_macro=2",
        "system.macros_per_tile=2",
        "system.hops=3",
    )
    return replace(load("example-128"), *small, *overrides)


def test_events_of_a_small_layer_are_those_counted_by_hand():
    # 20 rows in 3 row tiles of 8, 8, 4; 4 bits on 2-bit cells, so 4 weight columns a crossbar and 6 in 2 column tiles.
    layer = dense(Matmul("m", "conv2d", 20, 6, positions=5, inputs=70), chip())
    events = count(layer, assumed(layer))

    assert events.vectors == 5
    assert events.reads == 5 * 3 * 3 * 2
    assert events.rounds == 4
    assert events.conversions == 5 * 3 * 3 * 2 * 6 == layer.conversions == events.shift_adds
    assert events.wordlines == 5 * 3 * 20 * 2 * 4
    assert events.driven_wordlines == events.wordlines / 2
    assert events.cells == 5 * 3 * 20 * 12
    assert events.driven_cells == events.cells / 2
    assert events.driven_conductance == pytest.approx(events.cells / 2 * 50.5e-6)
    assert events.bitlines == 5 * 3 * 3 * 12
    assert events.samples == 0
    # Codes up to 15, digits weigh 1 + 2 + 4, slices 1 + 4: 525, 10 bits.
    assert accumulator_bits(layer) == 10
    assert events.tree_adds == 5 * 6 * 2
    assert events.tree_adder_bits == 5 * 6 * (10 + 11)
    # sum(x) of 20 inputs of 3 bits: 10 x 3 + 5 x 4 + 2 x 5 + 6 + 7, and one subtraction from each of 6 results.
    assert tree_bits(20, 3) == 30 + 20 + 10 + 6 + 7
    assert events.offset_adder_bits == 5 * (73 + 6 * 10)
    assert events.output_register_bits == 5 * 3 * 3 * 6 * 10
    assert events.input_register_bits == 5 * 20 * 2 * (3 + 3)
    # Six crossbars, two a macro and four a tile: the column tiles stand in 0 1 | 2 and 3 | 4 5, the tiles in 0-3 | 4-5.
    # Rows 8 to 19 are needed in both tiles; sums leave both macros of each column tile, and one tile's for the other's.
    assert events.buffer_read_bits == 5 * (20 + 12) * 3
    assert events.bus_bits == 5 * ((20 + 12) * 3 + (2 * 4 + 2 * 2) * 10)
    assert events.activation_bits == 70 * 3
    assert events.buffer_write_bits == 70 * 3 * 32 // 20
    assert events.forwarded_bits == 70 * 3 * 12 // 20 + 5 * 2 * 10
    assert events.bit_hops == 70 * 3 * 3 + events.forwarded_bits
    assert events.activations == 5 * 6
    assert events.poolings == 0


def test_sample_and_hold_drives_wordlines_once_and_holds_every_bitline():
    layer = dense(Matmul("m", "linear", 20, 6, inputs=20), chip("timing.sample_and_hold=true"))
    events = count(layer, assumed(layer))

    assert events.rounds == 1
    assert events.wordlines == 3 * 20 * 2
    assert events.samples == events.bitlines == 3 * 3 * 12


@pytest.mark.parametrize(
    ("encoding", "rounds", "cells_per_weight"),
    [
        ('{kind = "pair", subtract = "analog"}', 2, 4),
        ('{kind = "pair", subtract = "digital"}', 4, 4),
        ('{kind = "twos_complement"}', 4, 3),
        ('{kind = "offset", sum = "column"}', 4, 2),
    ],
)
def test_an_analog_pair_halves_the_rounds_of_the_multiplexer(encoding, rounds, cells_per_weight):
    layer = dense(Matmul("m", "linear", 8, 4, inputs=8), chip(f"weights.encoding={encoding}"))

    assert layer.chip.cells_per_weight == cells_per_weight
    assert mux_rounds(layer) == rounds
    assert count(layer, assumed(layer)).conversions == layer.conversions


def test_only_the_digital_offset_sums_its_inputs():
    def bits(encoding: str) -> int:
        layer = dense(Matmul("m", "linear", 20, 3, inputs=20), chip(f"weights.encoding={encoding}"))
        return count(layer, assumed(layer)).offset_adder_bits

    assert bits('{kind = "offset", sum = "digital"}') == 73 + 3 * 10
    assert bits('{kind = "offset", sum = "column"}') == 3 * 10
    assert bits('{kind = "pair"}') == bits('{kind = "twos_complement"}') == 0


@pytest.mark.parametrize("exponent", range(1, 8))
@pytest.mark.parametrize("width", [1, 5, 16])
def test_an_adder_tree_of_a_power_of_two_has_the_published_number_of_full_adders(exponent, width):
    inputs = 2**exponent

    assert tree_bits(inputs, width) == inputs * (width + 1) - (width + exponent + 1)


def test_one_input_needs_no_adder():
    assert tree_bits(1, 8) == 0


@pytest.mark.parametrize("rows", [5, 8, 9, 40, 100])
@pytest.mark.parametrize("cols", [1, 4, 11])
@pytest.mark.parametrize("active", [8, 4])
def test_traffic_is_that_of_walking_every_block(rows, cols, active):
    matmul = Matmul("m", "linear", rows, cols)
    layer = dense(matmul, chip(f"crossbar.active_rows={active}"))
    assert traffic(layer) == walk(layer)
    for seed in range(5):
        weights = with_empty_crossbars(layer, seed)
        pruned = dense(matmul, layer.chip, empty_blocks(weights, layer))
        assert traffic(pruned) == walk(pruned)


def with_empty_crossbars(layer: LayerPlacement, seed: int, share: float = 0.6) -> torch.Tensor:
    """Integer weights of which some crossbars hold zeros only, (groups, rows, cols)."""
    rng = torch.Generator().manual_seed(seed)
    gone = torch.rand(layer.crossbars, generator=rng) < share
    q = torch.ones(layer.matmul.groups, layer.matmul.rows, layer.matmul.cols)
    for block in layer.blocks():
        q[block.group, slice(*block.rows), slice(*block.cols)] *= bool(~gone[block.crossbar])
    return q


def test_a_layer_without_some_crossbars_is_counted_by_its_blocks():
    # Cells of 2 row tiles share a crossbar: 20 rows are 5 row tiles of 4 on 3 crossbars, 6 columns 2 column tiles.
    matmul = Matmul("m", "conv2d", 20, 6, groups=2, positions=5, inputs=140)
    whole = dense(matmul, chip("crossbar.active_rows=4"))
    q = torch.ones(2, 20, 6)
    q[0, :8, :4] = q[0, 16:, 4:] = q[1] = 0  # crossbars 0 and 5 of the first group, all 6 of the second
    q[0, 8:12, :4] = 0  # a half of crossbar 2: it stays
    layer = dense(matmul, whole.chip, empty_blocks(q, whole))
    events, before = count(layer, assumed(layer)), count(whole, assumed(whole))

    assert (whole.crossbars, layer.crossbars, layer.removed) == (12, 4, 8)
    # Row tiles: 3 of the first column tile (4 columns), 4 of the second (2 columns).
    assert events.reads == 5 * 3 * (3 + 4)
    assert events.conversions == layer.conversions == 5 * 3 * 2 * (3 * 4 + 4 * 2) == events.shift_adds
    assert events.wordlines == 5 * 3 * (12 + 16) * 4
    assert events.cells == 5 * 3 * (12 * 8 + 16 * 4)
    assert events.bitlines == 5 * 3 * (3 * 8 + 4 * 4)
    assert layer.partial_sums == {0: 6, 3: 4, 4: 2}
    assert events.tree_adds == 5 * (4 * 2 + 2 * 3)
    assert events.tree_adder_bits == 5 * (4 * tree_bits(3, 10) + 2 * tree_bits(4, 10))
    # Two sums of inputs: tiles 2 to 4, and 0 to 3. Each tile of 4 inputs of 3 bits once, then its sums of 5 bits.
    assert events.offset_adder_bits == 5 * (6 * 10 + 5 * tree_bits(4, 3) + tree_bits(3, 5) + tree_bits(4, 5))
    # Of 40 rows of both groups, 20 are read by some crossbar.
    assert events.activation_bits == before.activation_bits / 2
    assert layer.steps == 2
    assert layer.utilization == (12 * 8 + 16 * 4) / (4 * 64)


def test_row_tiles_that_all_columns_lack_shorten_the_only_sum_of_inputs():
    matmul = Matmul("m", "linear", 20, 6, inputs=20)
    whole = dense(matmul, chip())
    layer = dense(matmul, whole.chip, frozenset({(0, 1, 0), (0, 1, 1)}))

    assert count(layer, assumed(layer)).offset_adder_bits == tree_bits(12, 3) + 6 * 10


def test_a_layer_without_crossbars_makes_no_event():
    matmul = Matmul("m", "conv2d", 20, 6, positions=5, inputs=70)
    whole = dense(matmul, chip())
    layer = dense(matmul, whole.chip, empty_blocks(torch.zeros(1, 20, 6), whole))
    events = count(layer, assumed(layer))

    assert (layer.crossbars, layer.removed, layer.steps, layer.utilization) == (0, 6, 0, 0)
    assert list(layer.blocks()) == []
    made = {name: value for name, value in vars(events).items() if isinstance(value, int | float) and value}
    assert made.keys() == {"vectors", "hops", "activations"}
    time = layer_time(layer, events, 1e-9)
    assert time.read == time.transfer == 0


def walk(layer: LayerPlacement):
    """Put every block on its crossbar, macro and tile, and look who needs what."""
    from bitline.cost.traffic import Traffic

    inputs, sums, forwarded, tiles, numbers = set(), 0, 0, set(), {}
    for c, (a, b) in enumerate(pairwise(layer.col_bounds)):
        macros, places = set(), set()
        for t, (top, bottom) in enumerate(pairwise(layer.row_bounds)):
            if (0, t, c) in layer.absent:
                continue
            crossbar = numbers.setdefault((c, t // layer.tiles_per_crossbar), len(numbers))
            macros.add(crossbar // 2)
            places.add(crossbar // 4)
            inputs |= {(crossbar // 4, row) for row in range(top, bottom)}
        sums += (b - a) * len(macros)
        forwarded += (b - a) * max(0, len(places) - 1)
        tiles |= places
    return Traffic(len(inputs), len({row for _, row in inputs}), sums, forwarded, len(tiles))


def test_groups_multiply_the_events_of_one():
    one = dense(Matmul("m", "conv2d", 9, 1, 1, 4, 16), chip())
    many = dense(Matmul("m", "conv2d", 9, 1, 6, 4, 96), chip())
    a, b = count(one, assumed(one)), count(many, assumed(many))

    for event in ("reads", "conversions", "wordlines", "cells", "bus_bits", "tree_adds", "activations"):
        assert getattr(b, event) == 6 * getattr(a, event)


@pytest.mark.parametrize(
    ("densities", "message"),
    [
        (Densities([0.5] * 2, [0.5] * 3, [1.5] * 2), "digit_mean has 2 entries; the layer has 3"),
        (Densities([0.5] * 3, [0.5] * 4, [1.5] * 2), "digit_square_mean has 4 entries; the layer has 3"),
        (Densities([0.5] * 3, [0.5] * 3, [1.5] * 3), "level_mean has 3 entries; the layer has 2"),
        (Densities([0.5] * 3, [0.5] * 3, [1.5, 3.5]), "level_mean holds 3.5; allowed: 0 to 3"),
        (Densities([0.5] * 3, [-0.5, 0, 0], [1.5] * 2), "digit_square_mean holds -0.5; allowed: 0 to 1"),
        (Densities([float("nan")] * 3, [0.5] * 3, [1.5] * 2), "digit_mean holds nan"),
    ],
)
def test_densities_that_do_not_fit_the_layer_are_refused(densities, message):
    layer = dense(Matmul("m", "linear", 8, 4, inputs=8), chip())

    with pytest.raises(MappingError, match=f"layer m: {message}"):
        count(layer, densities)
