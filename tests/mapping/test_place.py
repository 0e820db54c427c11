from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import load
from bitline.errors import MappingError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense, place
from bitline.models import build
from bitline.nn import matmuls


def vgg8(chip):
    return place(matmuls(build("vgg8"), (3, 32, 32)), chip)


def test_vgg8_makes_157288960_conversions_per_image():
    placement = vgg8(load("rram-22nm"))
    assert placement.conversions == 157_288_960
    second = placement.layers[1]
    assert second.conversions == 1024 * 8 * 9 * 4 * 128 == 37_748_736
    assert (second.matmul.rows, second.matmul.cols, second.row_tiles, second.col_tiles) == (1152, 128, 9, 4)


def test_vgg8_makes_the_same_conversions_on_the_example_chip():
    assert vgg8(load("example-128")).conversions == 157_288_960


def test_vgg8_takes_the_crossbars_and_products_that_its_shapes_say():
    placement = vgg8(load("rram-22nm"))
    layers = [(27, 128), (1152, 128), (1152, 256), (2304, 256), (2304, 512), (4608, 512), (8192, 1024), (1024, 10)]
    assert [(p.matmul.rows, p.matmul.cols) for p in placement.layers] == layers
    assert placement.crossbars == sum(-(-rows // 128) * -(-cols // 32) for rows, cols in layers)
    positions = [1024, 1024, 256, 256, 64, 64, 1, 1]
    assert placement.macs == sum(n * rows * cols for n, (rows, cols) in zip(positions, layers, strict=True))


@st.composite
def placements(draw, make_chip):
    rows, cols = draw(st.integers(1, 12)), draw(st.integers(6, 24))
    encoding = draw(st.sampled_from(["offset", "column", "pair", "digital", "twos_complement"]))
    chip = make_chip(
        crossbar={"rows": rows, "cols": cols, "active_rows": draw(st.integers(1, rows))},
        dac={"bits": draw(st.integers(1, 4))},
        weights={
            "encoding": {
                "column": {"kind": "offset", "sum": "column"},
                "digital": {"kind": "pair", "subtract": "digital"},
            }.get(encoding, encoding)
        },
    )
    matmul = Matmul(
        "it",
        "conv2d",
        draw(st.integers(1, 40)),
        draw(st.integers(1, 40)),
        draw(st.integers(1, 4)),
        draw(st.integers(1, 9)),
        signed=draw(st.booleans()),
    )
    return dense(matmul, chip)


@given(st.data())
def test_blocks_hold_every_weight_once_and_fit_their_crossbars(make_chip, data):
    p = data.draw(placements(make_chip))
    crossbar = p.chip.crossbar
    held: Counter[tuple[int, int, int]] = Counter()
    places: dict[tuple[int, int], list[int]] = {}
    for block in p.blocks():
        height, width = block.rows[1] - block.rows[0], block.cols[1] - block.cols[0]
        assert 1 <= height <= crossbar.active_rows
        assert width > 0
        assert (width + p.chip.reference_columns) * p.chip.cells_per_weight <= crossbar.cols
        assert 0 <= block.step < p.steps
        held.update((block.group, r, c) for r in range(*block.rows) for c in range(*block.cols))
        places.setdefault((block.crossbar, block.step), []).append(height)
    everything = {(g, r, c) for g in range(p.matmul.groups) for r in range(p.matmul.rows) for c in range(p.matmul.cols)}
    assert held.keys() == everything
    assert set(held.values()) == {1}
    # One block a crossbar and step, and the row tiles of a crossbar fit in its rows.
    assert all(len(heights) == 1 for heights in places.values())
    for index in {crossbar for crossbar, _ in places}:
        assert sum(h[0] for (c, _), h in places.items() if c == index) <= crossbar.rows
    assert p.crossbars == len({crossbar for crossbar, _ in places})
    assert {crossbar for crossbar, _ in places} == set(range(p.crossbars))


@given(st.data())
def test_counts_follow_from_the_blocks(make_chip, data):
    p = data.draw(placements(make_chip))
    chip, matmul = p.chip, p.matmul
    stored = sum(
        (b.rows[1] - b.rows[0]) * (b.cols[1] - b.cols[0] + chip.reference_columns) * chip.cells_per_weight
        for b in p.blocks()
    )
    assert p.cells == stored
    assert p.utilization == pytest.approx(stored / (p.crossbars * chip.crossbar.rows * chip.crossbar.cols))
    assert 0 < p.utilization <= 1
    columns = sum(b.cols[1] - b.cols[0] + chip.reference_columns for b in p.blocks())
    digits = -(-(chip.inputs.bits - matmul.signed) // chip.dac.bits) + matmul.signed
    assert p.conversions == matmul.positions * columns * digits * chip.slices * chip.converted_sides


def test_each_group_has_crossbars_of_its_own(make_chip):
    p = dense(Matmul("dw", "conv2d", 9, 1, 5), make_chip())
    assert p.crossbars == 10
    assert {b.group for b in p.blocks()} == set(range(5))


def test_row_tiles_share_a_crossbar_where_fewer_rows_are_active(make_chip):
    p = dense(Matmul("fc", "linear", 20, 4), make_chip(crossbar={"active_rows": 4}))
    assert (p.row_tiles, p.tiles_per_crossbar, p.crossbars, p.steps) == (5, 2, 3, 2)


def test_a_network_that_needs_more_crossbars_than_there_are_is_refused(make_chip):
    chip = make_chip(system={"tiles": 2, "macros_per_tile": 2, "crossbars_per_macro": 2, "copies": 2})
    fits, too_much = [Matmul("fc", "linear", 8, 8 * n, 1) for n in (4, 5)]
    assert place([fits], chip).crossbars == 4
    with pytest.raises(MappingError) as error:
        place([too_much], chip)
    assert str(error.value) == ("the network needs 10 crossbars; chip small has 8 (2 tiles of 2 macros of 2 crossbars)")
