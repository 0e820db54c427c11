"""Crossbars whose weights are all zero: found, not placed, and their cells left out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from test_place import placements

from bitline.errors import MappingError
from bitline.mapping.empty import built, clear_, empty_blocks
from bitline.mapping.encode import decode, encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense, place, placed


def weights(layer, data) -> torch.Tensor:
    """Weights of one, but for crossbars chosen at random and single zeros."""
    m = layer.matmul
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**32)))
    q = torch.ones(m.groups, m.rows, m.cols)
    gone = torch.rand(layer.crossbars, generator=generator) < 0.5
    for block in layer.blocks():
        q[block.group, slice(*block.rows), slice(*block.cols)] = float(~gone[block.crossbar])
    return q * (torch.rand(q.shape, generator=generator) < 0.7)


@given(st.data())
def test_what_is_left_holds_every_weight_and_no_crossbar_of_zeros(make_chip, data):
    whole = data.draw(placements(make_chip))
    q = weights(whole, data)
    layer = placed(whole.matmul, whole.chip, absent=empty_blocks(q, whole))
    held = dict.fromkeys(range(layer.crossbars), 0)
    seen = torch.zeros_like(q)
    for block in layer.blocks():
        part = block.group, slice(*block.rows), slice(*block.cols)
        held[block.crossbar] += int((q[part] != 0).sum())
        seen[part] += 1
    assert bool((seen <= 1).all())
    assert bool((seen[q != 0] == 1).all())
    assert all(held.values())
    assert layer.crossbars + layer.removed == whole.crossbars


@given(st.data())
def test_counts_are_those_of_the_blocks_that_are_left(make_chip, data):
    whole = data.draw(placements(make_chip))
    layer = placed(whole.matmul, whole.chip, absent=empty_blocks(weights(whole, data), whole))
    blocks = list(layer.blocks())
    sizes = [(b.rows[1] - b.rows[0], b.cols[1] - b.cols[0] + layer.chip.reference_columns) for b in blocks]
    assert layer.reads == len(blocks)
    assert layer.wordlines == sum(rows for rows, _ in sizes)
    assert layer.columns == sum(cols for _, cols in sizes)
    assert layer.read_cells == sum(rows * cols for rows, cols in sizes) * layer.chip.cells_per_weight
    assert layer.steps == max((b.step + 1 for b in blocks), default=0)
    assert sum(layer.partial_sums.values()) == layer.matmul.groups * layer.matmul.cols
    there = built(layer)
    assert layer.columns == (whole.columns if there is None else int(there.sum()))


@given(st.data())
def test_cells_of_absent_crossbars_are_empty_and_the_weights_come_back(make_chip, data):
    whole = data.draw(placements(make_chip))
    q = weights(whole, data)
    layer = placed(whole.matmul, whole.chip, absent=empty_blocks(q, whole))
    levels = encode(q, layer)
    assert torch.equal(decode(levels, layer), q.double())
    assert torch.equal(clear_(levels.clone(), layer), levels)
    left = clear_(torch.ones_like(levels), layer)
    assert int(left[:, 0, 0].sum()) * layer.chip.cells_per_weight == layer.read_cells


def test_a_crossbar_of_several_row_tiles_goes_only_if_all_are_empty(make_chip):
    layer = dense(Matmul("it", "linear", 10, 4), make_chip(crossbar={"active_rows": 4}))
    q = torch.ones(1, 10, 4)
    q[0, :4] = 0
    assert empty_blocks(q, layer) == frozenset()
    q[0, :8] = 0
    assert empty_blocks(q, layer) == {(0, 0, 0), (0, 1, 0)}


@pytest.mark.parametrize("strategy", ["naive", "packed", "strip", "digital"])
def test_only_dense_layers_do_without_crossbars(make_chip, strategy):
    matmul, chip = Matmul("it", "conv2d", 4, 2, groups=4), make_chip()
    layer = placed(matmul, chip, strategy)
    assert empty_blocks(torch.zeros(4, 4, 2), layer) == frozenset()
    assert placed(matmul, chip, strategy, frozenset({(0, 0, 0)})) == layer
    assert placed(matmul, chip, "dense", frozenset({(0, 0, 0)})).crossbars == 3


@pytest.mark.parametrize(
    ("absent", "message"),
    [
        ({(0, 3, 0)}, r"absent block \(0, 3, 0\) is not one of its 1 groups x 3 row tiles x 1 column tiles"),
        ({(0, -1, 0)}, r"absent block \(0, -1, 0\) is not one of"),
        ({(0, 0, 0)}, r"block \(0, 0, 0\) is absent, but not all of the 2 row tiles of its crossbar"),
    ],
)
def test_absent_blocks_that_cannot_be_are_refused(make_chip, absent, message):
    with pytest.raises(MappingError, match=f"layer it: {message}"):
        dense(Matmul("it", "linear", 10, 4), make_chip(crossbar={"active_rows": 4}), frozenset(absent))


def test_weights_of_another_shape_are_refused(make_chip):
    layer = dense(Matmul("it", "linear", 10, 4), make_chip())
    with pytest.raises(MappingError, match=r"layer it: weights have shape \(1, 4, 10\); expected \(1, 10, 4\)"):
        empty_blocks(torch.zeros(1, 4, 10), layer)


def test_removed_crossbars_leave_room_on_a_chip_of_a_given_size(make_chip):
    chip = make_chip(system={"tiles": 1, "macros_per_tile": 1, "crossbars_per_macro": 2})
    matmul = Matmul("it", "linear", 24, 4)
    with pytest.raises(MappingError, match="needs 3 crossbars"):
        place([matmul], chip)
    left = place([matmul], chip, absent={"it": frozenset({(0, 1, 0)})})
    assert (left.crossbars, left.removed) == (2, 1)
