"""Ties of real levels: every sum of 16 bits against integer arithmetic, on every path that is quick enough."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mvm_paths import PATHS, Path
from mvm_samples import Case, reference_sums, scale_of
from torch import Tensor

from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import weight_limits
from bitline.mvm import adc
from bitline.mvm.product import Product

UNIT = 128
"""of levels in one"""
COLUMNS = 2**15

quick = pytest.mark.parametrize(
    "path", [pytest.param(path, id=name) for name, path in PATHS.items() if path.quick and name != "triton"]
)


def code(units: Tensor, lsb: float, offset: int, most: int) -> Tensor:
    """Nearest code of sums in 1/128 levels, halves to even, in integers alone."""
    step = Fraction(lsb) * UNIT
    sums, step = (units - offset * UNIT) * step.denominator, step.numerator
    whole = torch.div(2 * sums + step, 2 * step, rounding_mode="floor")
    tie = (2 * sums + step) % (2 * step) == 0
    return (whole - (tie & (whole % 2 == 1)).long()).clamp(0, most)


@quick
@given(
    significant=st.integers(512, 1023),
    octave=st.integers(0, 9),
    offset=st.sampled_from([0, 0, 1, 3, 50]),
    bits=st.integers(1, 9),
    base=st.sampled_from([0, 1, 20_000, COLUMNS - 1]),
)
def test_every_sum_of_sixteen_bits_becomes_the_code_of_integer_arithmetic(
    make_chip, path: Path, significant, octave, offset, bits, base
):
    lsb = significant * 2.0 ** (octave - 9)
    chip = make_chip(
        cell={"bits": 1},
        weights={"bits": 2, "encoding": "offset"},
        inputs={"bits": 1},
        dac={"bits": 1},
        crossbar={"rows": 2, "cols": 1024},
    )
    product = Product(dense(Matmul("it", "linear", 2, COLUMNS), chip))
    units = torch.arange(COLUMNS)
    levels = torch.zeros(1, 1, 2, 2, COLUMNS)
    levels[0, 0, 0] = torch.stack([units, torch.full_like(units, base)]) / UNIT
    levels[0, 0, 1, 0] = units.flip(0) // 2 / UNIT
    case = Case(
        torch.ones(1, 1, 1, 2, dtype=torch.int64), levels[0, 0], levels, product, scale_of(lsb, offset, 0, 2**bits - 1)
    )

    got = path.multiply(case, None).flatten()

    codes = code(units + base, lsb, offset, 2**bits - 1) + 2 * code(units.flip(0) // 2, lsb, offset, 2**bits - 1)
    assert torch.equal(got, codes.double() * lsb + 3 * offset - 2 * product.digital_offset)


def from_sums(case: Case) -> Tensor:
    """The product from sums in doubles, (vectors, groups, columns), where no column is a reference."""
    product, (lsb, offset) = case.product, (case.scale.lsb, case.scale.offset)
    # (tiles, groups, digits, vectors, slices, sides, columns)
    codes = ((reference_sums(case) - offset.item()) / lsb.item()).round()
    if case.scale.low is not None:
        codes = codes.clamp(case.scale.low, case.scale.high)
    weights = (torch.tensor(w).double() for w in (product.digit_weights, product.slice_weights, product.side_weights))
    y = torch.einsum("tgdvskc,d,s,k->vgc", codes * lsb.item() + offset.item(), *weights)
    return y - product.digital_offset * case.x.flatten(0, 1).sum(-1, keepdim=True)


@quick
@pytest.mark.parametrize("encoding", ["offset", "pair", "twos_complement"])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("signed", [False, True])
def test_the_largest_inputs_and_weights_of_one_sign_do_not_saturate_on_the_way(
    make_chip, path: Path, encoding, sign, signed
):
    # Products of bytes, added up in pairs, pass 16 bits first where all are at their ends.
    for cell, digit, rows in ((8, 8, 2), (8, 1, 512), (7, 8, 64), (2, 1, 2048), (2, 2, 512), (1, 8, 256), (8, 8, 512)):
        chip = make_chip(
            cell={"bits": cell},
            weights={"bits": 8, "encoding": encoding},
            inputs={"bits": 8},
            dac={"bits": digit},
            crossbar={"rows": rows, "cols": 160},
            adc={"bits": 16},
        )
        product = Product(dense(Matmul("it", "linear", rows + 3, 17, signed=signed), chip))
        low, high = weight_limits(chip.weights)
        q = torch.full((1, rows + 3, 17), high if sign > 0 else low)
        q[..., 1::3] = low if sign > 0 else high
        least, most = product.form.limits
        x = torch.tensor([most, least, 0]).view(3, 1, 1, 1).expand(3, 1, 1, rows + 3).contiguous()
        levels, full = encode(q, product.placement), adc.full(product)
        real = levels * 1.25 + 1 / UNIT
        for cells, scale, exact in ((levels, adc.lossless(), True), (levels, full, False), (real, full, False)):
            case = Case(x, q, cells, product, scale)
            got = path.answer(case)
            assert got is None or torch.equal(got[:, 0], from_sums(case))
            assert got is None or not exact or torch.equal(got, case.exact)
