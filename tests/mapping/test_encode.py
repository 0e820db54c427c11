import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip.formats import Weights
from bitline.errors import MappingError
from bitline.mapping.encode import column_tiles, decode, encode, slice_weights
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits

ENCODINGS = {
    "offset": {"kind": "offset"},
    "column": {"kind": "offset", "sum": "column"},
    "zero point": {"kind": "offset", "zero_point": 1},
    "pair": {"kind": "pair"},
    "digital pair": {"kind": "pair", "subtract": "digital"},
    "two's complement": {"kind": "twos_complement"},
}


@given(
    st.sampled_from(list(ENCODINGS)),
    st.integers(2, 16),
    st.integers(1, 8),
    st.integers(0, 3),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(0, 2**32),
)
def test_cells_hold_every_weight_of_every_encoding(make_chip, kind, bits, cell, spare, rows, cols, groups, seed):
    few = make_chip(crossbar={"cols": 64}, cell={"bits": cell}, weights={"bits": bits, "encoding": ENCODINGS[kind]})
    slices = few.slices + spare
    chip = make_chip(
        crossbar={"cols": 4 * slices},
        cell={"bits": cell},
        weights={"bits": bits, "encoding": ENCODINGS[kind], "slices": slices},
    )
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (groups, rows, cols), generator=torch.Generator().manual_seed(seed))
    q.flatten()[0], q.flatten()[-1] = low, high
    placement = dense(Matmul("it", "linear", rows, cols, groups), chip)

    levels = encode(q, placement)

    assert levels.dtype == torch.uint8
    assert levels.shape == (groups, chip.sides, slices, rows, placement.stored_columns)
    assert int(levels.max()) <= chip.cell.max_level
    assert torch.equal(decode(levels, placement), q.double())


def test_the_levels_are_the_digits_of_the_weight(make_chip):
    def levels(kind: str) -> list[list[int]]:
        chip = make_chip(crossbar={"cols": 64}, weights={"bits": 5, "encoding": ENCODINGS[kind]})
        placement = dense(Matmul("it", "linear", 1, 1), chip)
        return encode(torch.tensor([[[-7]]]), placement)[0, :, :, 0, 0].tolist()

    assert levels("offset") == [[1, 2, 0]]  # -7 + 16 = 9 = 1 + 2 * 4
    assert levels("pair") == [[0, 0], [3, 1]]  # 7 = 3 + 1 * 4
    assert levels("two's complement") == [[1, 2, 1]]  # 9 - 16


def test_the_reference_column_holds_the_zero_point(make_chip):
    chip = make_chip(weights={"encoding": ENCODINGS["column"]})
    placement = dense(Matmul("it", "linear", 3, 9), chip)
    levels = encode(torch.zeros(1, 3, 9, dtype=torch.int64), placement)
    assert placement.stored_columns == 9 + placement.col_tiles == 11
    values = (levels[0, 0].double() * torch.tensor([1.0, 4.0]).view(2, 1, 1).double()).sum(0)
    assert torch.equal(values, torch.full((3, 11), 8.0, dtype=torch.float64))


@pytest.mark.parametrize(
    ("kind", "limits"),
    [("offset", (-8, 7)), ("zero point", (-1, 14)), ("pair", (-7, 7)), ("two's complement", (-8, 7))],
)
def test_a_weight_that_the_encoding_does_not_hold_is_refused(make_chip, kind, limits):
    chip = make_chip(weights={"encoding": ENCODINGS[kind]})
    assert weight_limits(chip.weights) == limits
    placement = dense(Matmul("fc", "linear", 2, 1), chip)
    for outside in (limits[0] - 1, limits[1] + 1):
        q = torch.tensor([[[0], [outside]]])
        with pytest.raises(MappingError) as error:
            encode(q, placement)
        assert str(error.value) == (
            f"layer fc: integer weights span [{min(0, outside)}, {max(0, outside)}]; "
            f"4 bits in {chip.weights.encoding.kind} encoding hold [{limits[0]}, {limits[1]}]"
        )


def test_the_sign_cell_weighs_minus_the_top_power(make_chip):
    chip = make_chip(crossbar={"cols": 64}, weights={"bits": 6, "encoding": "twos_complement"})
    assert slice_weights(chip) == (1, 4, 16, -32)


@given(st.integers(1, 40), st.integers(2, 20))
def test_each_column_knows_its_tile(make_chip, cols, width):
    chip = make_chip(crossbar={"cols": 2 * width})
    placement = dense(Matmul("it", "linear", 1, cols), chip)
    assert column_tiles(placement).tolist() == [c // width for c in range(cols)]


def test_weights_know_their_zero_point():
    assert Weights(bits=8).zero_point == 128
    assert Weights.model_validate({"encoding": {"kind": "offset", "zero_point": 3}}).zero_point == 3
    assert Weights.model_validate({"encoding": "pair"}).zero_point == 0
