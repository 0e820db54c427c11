import math
from collections import Counter, defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import load, replace
from bitline.errors import ConversionError, MappingError
from bitline.mapping.encode import decode, encode, in_use, set_together, together_again
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense, place, placed
from bitline.mapping.quantize import weight_limits
from bitline.mapping.strategies import STRATEGIES, choose

ENCODINGS = {
    "offset": {"kind": "offset"},
    "column": {"kind": "offset", "sum": "column"},
    "pair": {"kind": "pair"},
    "digital pair": {"kind": "pair", "subtract": "digital"},
    "two's complement": {"kind": "twos_complement"},
}


@st.composite
def placements(draw, make_chip, strategies=STRATEGIES):
    active = draw(st.integers(6, 30))
    chip = make_chip(
        crossbar={
            "rows": 30,
            "cols": 48,
            "active_rows": active,
            **draw(st.sampled_from([{}, {"segment_rows": draw(st.integers(1, 9))}])),
        },
        weights={"encoding": ENCODINGS[draw(st.sampled_from(list(ENCODINGS)))]},
        adc={"columns_per_adc": draw(st.sampled_from([1, 3, 8]))},
    )
    matmul = Matmul(
        "it",
        "conv2d",
        draw(st.integers(1, 6)),
        draw(st.integers(1, 3)),
        draw(st.integers(2, 40)),
        draw(st.integers(1, 9)),
        signed=draw(st.booleans()),
    )
    return placed(matmul, chip, draw(st.sampled_from(strategies)))


@given(st.data())
def test_no_two_blocks_share_a_cell_and_all_fit_their_crossbars(make_chip, data):
    p = data.draw(placements(make_chip))
    chip, refs = p.chip, p.chip.reference_columns
    taken: dict[int, Counter[tuple[int, int]]] = defaultdict(Counter)
    rows_of: dict[tuple[int, int], set[int]] = defaultdict(set)
    for block in p.blocks():
        top, left = block.origin
        height, width = block.rows[1] - block.rows[0], block.cols[1] - block.cols[0] + refs
        assert top + height <= chip.crossbar.rows
        assert (left + width) * chip.cells_per_weight <= chip.crossbar.cols
        assert 0 <= block.step < p.steps
        taken[block.crossbar].update((top + r, left + c) for r in range(height) for c in range(width))
        rows_of[block.crossbar, block.step] |= set(range(top, top + height))
    assert set(taken) == set(range(p.crossbars))
    assert all(set(cells.values()) == {1} for cells in taken.values())
    assert all(len(rows) <= chip.crossbar.active_rows for rows in rows_of.values())
    if p.strategy != "naive":
        assert sum(map(len, taken.values())) * chip.cells_per_weight == p.cells


@given(st.data())
def test_counts_follow_from_the_blocks_of_every_read(make_chip, data):
    p = data.draw(placements(make_chip))
    refs, cells_per_weight = p.chip.reference_columns, p.chip.cells_per_weight
    reads = defaultdict(list)
    for block in p.blocks():
        reads[block.crossbar, block.step].append(block)
    tall = [[b.rows[1] - b.rows[0] for b in blocks] for blocks in reads.values()]
    wide = [[b.cols[1] - b.cols[0] + refs for b in blocks] for blocks in reads.values()]
    assert p.reads == len(reads)
    assert p.wordlines == sum(map(sum, tall))
    assert p.columns == sum(map(sum, wide))
    # Bitlines of a packed crossbar run past all of its groups; segments of a strip past their own only.
    cross = [
        sum(t) * sum(w) if p.strategy == "packed" else sum(a * b for a, b in zip(t, w, strict=True))
        for t, w in zip(tall, wide, strict=True)
    ]
    assert p.read_cells == sum(cross) * cells_per_weight
    assert p.conversions_per_vector == p.columns * p.digits * p.chip.slices * p.chip.converted_sides
    assert p.steps == max((b.step + 1 for b in p.blocks()), default=0)
    assert p.cells <= p.read_cells
    if p.strategy != "digital":
        assert p.utilization == p.cells / (p.crossbars * p.chip.crossbar.rows * p.chip.crossbar.cols)


@given(st.data())
def test_cells_hold_the_groups_on_the_diagonal_and_beside_it_what_the_strategy_says(make_chip, data):
    p = data.draw(placements(make_chip))
    m, chip = p.matmul, p.chip
    low, high = weight_limits(chip.weights)
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 2**31)))
    q = torch.randint(low, high + 1, (m.groups, m.rows, m.cols), generator=generator)
    levels = encode(q, p)
    merged = p.merged
    assert levels.shape[0] == merged.matmul.groups
    assert tuple(levels.shape[3:]) == (merged.matmul.rows, merged.stored_columns)
    weights = decode(levels, merged)
    # What stands for a cell of level 0 in a column that a digital sum corrects.
    empty = -chip.weights.zero_point if p.strategy == "packed" and not chip.reference_columns else 0
    wanted = torch.full(weights.shape, float(empty), dtype=torch.float64)
    if p.strategy == "packed" and not chip.reference_columns and chip.sides == 2:
        wanted.zero_()
    for group in range(m.groups):
        crossbar, slot = divmod(group, p.together)
        rows = slice(slot * m.rows, (slot + 1) * m.rows)
        wanted[crossbar, rows, slot * m.cols : (slot + 1) * m.cols] = q[group].double()
    assert torch.equal(weights, wanted)
    if p.strategy == "packed":
        for group in range(m.groups):
            crossbar, slot = divmod(group, p.together)
            cells = levels[crossbar, :, :, :, slot * m.cols : (slot + 1) * m.cols].clone()
            cells[:, :, slot * m.rows : (slot + 1) * m.rows] = 0
            assert not cells.any()


@given(st.data())
def test_results_sorted_by_crossbar_and_back_are_the_same(make_chip, data):
    p = data.draw(placements(make_chip))
    y = torch.arange(2 * p.matmul.groups * p.matmul.cols).view(2, p.matmul.groups, p.matmul.cols)
    there = set_together(y, p)
    assert there.shape[1:] == (p.merged.matmul.groups, p.merged.matmul.cols)
    assert torch.equal(together_again(there, p), y)
    used = in_use(p)
    columns = p.merged.matmul.groups * p.merged.stored_columns if used is None else int(used.sum())
    if p.strategy in ("dense", "packed", "strip"):
        assert columns == p.columns


@pytest.mark.parametrize(
    ("channels", "chip", "packed", "strip"),
    [
        (256, "strip-22nm", (19, 1), (1, 19)),  # 14 channels a crossbar; 14 strips of 32 lanes
        (512, "strip-22nm", (37, 1), (2, 19)),
        (14, "strip-22nm", (1, 1), (1, 1)),
        (256, "rram-22nm", (19, 1), (8, 32)),  # one strip: columns are shared over time
    ],
)
def test_a_depthwise_layer_takes_the_crossbars_and_steps_of_the_formulas(channels, chip, packed, strip):
    layer = Matmul("dw", "conv2d", 9, 1, channels, depthwise=True)
    placements = {s: placed(layer, load(chip), s) for s in STRATEGIES}
    assert (placements["packed"].crossbars, placements["packed"].steps) == packed
    assert (placements["strip"].crossbars, placements["strip"].steps) == strip
    assert placements["dense"].crossbars == channels
    assert placements["naive"].crossbars == math.ceil(9 * channels / 128) * math.ceil(channels / 32)
    assert placements["digital"].crossbars == placements["digital"].conversions == 0
    assert len({placements[s].conversions for s in ("dense", "packed", "strip")}) == 1


def test_the_naive_matrix_uses_one_cell_in_as_many_as_there_are_channels():
    p = placed(Matmul("dw", "conv2d", 128, 32, 64), load("rram-22nm"), "naive")
    assert p.utilization == 1 / 64
    assert p.row_tiles == 64


def test_a_group_that_takes_two_segments_halves_the_strips():
    layer = Matmul("conv", "conv2d", 18, 2, 30)
    p = placed(layer, load("strip-22nm"), "strip")
    assert (p.strips, p.lanes, p.height) == (7, 16, 18)
    assert placed(Matmul("conv", "conv2d", 127, 2, 30), load("strip-22nm"), "strip").strips == 1


def test_a_layer_of_one_group_is_dense_unless_it_is_digital(make_chip):
    layer = Matmul("conv", "conv2d", 9, 4)
    assert [placed(layer, make_chip(), s).strategy for s in STRATEGIES] == [*["dense"] * 4, "digital"]
    assert placed(layer, make_chip(), "packed") == dense(layer, make_chip())


@pytest.mark.parametrize("strategy", ["packed", "strip"])
@pytest.mark.parametrize(("rows", "cols"), [(9, 1), (8, 9)])
def test_a_group_that_no_single_read_takes_is_refused(make_chip, strategy, rows, cols):
    with pytest.raises(MappingError) as error:
        placed(Matmul("conv", "conv2d", rows, cols, 2), make_chip(), strategy)
    assert str(error.value) == (
        f"layer conv: a group of {rows} x {cols} does not fit one read of a crossbar of chip small (8 wordlines, "
        f"8 weight columns), which strategy {strategy!r} needs; allowed for it: 'dense', 'naive', 'digital'"
    )


def test_a_name_wins_over_a_kind_and_a_kind_over_everything():
    layers = [
        Matmul("a", "conv2d", 9, 1, 4, depthwise=True),
        Matmul("b", "conv2d", 9, 1, 4, depthwise=True),
        Matmul("c", "conv2d", 18, 2, 4),
        Matmul("d", "linear", 4, 4),
    ]
    mapping = {"depthwise": "strip", "b": "packed", "*": "digital"}
    assert choose(layers, mapping) == {"a": "strip", "b": "packed", "c": "digital", "d": "digital"}
    assert choose(layers, {"group": "packed"}) == {"a": "dense", "b": "dense", "c": "packed", "d": "dense"}
    assert choose(layers, {}) == dict.fromkeys("abcd", "dense")


@pytest.mark.parametrize("mapping", [{"e": "strip"}, {"a": "strips"}])
def test_an_unknown_layer_or_strategy_is_refused(mapping):
    with pytest.raises(ConversionError, match=r"kinds: depthwise, group, \*; layers: a|did you mean 'strip'"):
        choose([Matmul("a", "conv2d", 9, 1, 4)], mapping)


def test_packing_lets_a_network_fit_where_groups_by_themselves_do_not():
    chip = replace(load("rram-22nm"), "system.tiles=1")
    layer = Matmul("dw", "conv2d", 9, 1, 256, depthwise=True)
    with pytest.raises(MappingError, match="needs 256 crossbars; chip rram-22nm has 64"):
        place([layer], chip)
    assert place([layer], chip, {"depthwise": "packed"}).crossbars == 19
