"""Ranges of ADCs: what they cover, and the properties that keep sums exact."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bitline.errors import MappingError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mvm import adc, reference
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm


def layer(make_chip, rows: int = 8, **sections) -> Product:
    return Product(dense(Matmul("fc", "linear", rows, 3, 2), make_chip(**sections)))


def scalar(value: float) -> Tensor:
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


@given(st.floats(1.0, 1e6))
def test_an_lsb_has_ten_significant_bits_and_is_as_near_as_these_allow(lsb):
    snapped = float(adc.snap(scalar(lsb)))
    mantissa, _ = math.frexp(snapped)
    assert (mantissa * 2**10).is_integer()
    assert snapped == pytest.approx(lsb, rel=2**-10)


@given(st.floats(0.0, 0.999))
def test_an_lsb_is_never_below_a_level(lsb):
    assert float(adc.snap(scalar(lsb))) == 1


@given(st.integers(1, 12), st.floats(0, 200), st.floats(0, 5000), st.sampled_from(["offset", "pair"]))
def test_a_range_covers_what_it_is_asked_to(make_chip, bits, low, span, encoding):
    product = layer(make_chip, adc={"bits": bits}, weights={"encoding": encoding})
    scale = adc.from_range(scalar(low), scalar(low + span), product)
    assert (scale.low, scale.high) == (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if encoding == "pair" else (0, 2**bits - 1)
    )
    assert float(scale.offset).is_integer()
    lsb, top = float(scale.lsb), float(scale.offset + scale.high * scale.lsb)
    if encoding == "pair" and bits == 1:
        # A comparator: its two codes stand for as much below zero as above it, but for half a level.
        assert float(scale.offset) == round(lsb / 2)
        assert top == pytest.approx(low + span, rel=2**-10, abs=0.5)
        assert top - lsb == pytest.approx(-low - span, rel=2**-10, abs=1)
    elif encoding == "pair":
        assert float(scale.offset) == 0
        assert top >= (low + span) * (1 - 2**-10)
    else:
        assert float(scale.offset) == pytest.approx(low, abs=0.5)
        assert top >= (low + span) * (1 - 2**-10) - 1e-9
        # No wider than it must be, where an LSB is more than a level.
        assert lsb == 1 or top <= (low + span) * (1 + 2**-10)


@pytest.mark.parametrize(
    ("bits", "levels", "unsigned", "signed"),
    [
        (1, None, (0, 1), (-1, 0)),
        (2, 3, (0, 2), (-1, 1)),
        (2, None, (0, 3), (-2, 1)),
        (3, 5, (0, 4), (-2, 2)),
        (3, 6, (0, 5), (-3, 2)),
        (4, 2, (0, 1), (-1, 0)),
    ],
)
def test_codes_are_as_many_as_the_levels_and_an_odd_number_is_symmetric(make_chip, bits, levels, unsigned, signed):
    for encoding, wanted in (("offset", unsigned), ("pair", signed)):
        product = layer(make_chip, adc={"bits": bits, "levels": levels}, weights={"encoding": encoding})
        assert adc.code_range(product.placement.chip.adc, product) == wanted
        assert (adc.full(product).low, adc.full(product).high) == wanted


def test_codes_round_to_even_and_clip(make_chip):
    scale = AdcScale(scalar(2.0), scalar(1.0), 0, 3)
    sums = torch.tensor([-5.0, 1.0, 2.0, 3.0, 4.0, 6.0, 100.0])
    assert scale.convert(sums).flatten().tolist() == [0, 0, 0, 1, 2, 2, 3]
    assert adc.lossless().convert(sums).flatten().tolist() == sums.tolist()


@given(st.integers(1, 10), st.floats(-5, 200), st.floats(1, 300), st.integers(-20, 200), st.integers(0, 200))
def test_a_range_resolves_whole_numbers_exactly_when_each_converts_to_itself(make_chip, bits, low, span, least, count):
    product = layer(make_chip, adc={"bits": bits})
    scale = adc.from_range(scalar(low), scalar(low + span), product)
    numbers = torch.arange(least, least + count + 1).double()
    back = scale.convert(numbers) * scale.lsb + scale.offset
    exact = bool((back.flatten() == numbers).all())
    if scale.resolves(least, least + count):
        assert exact
    elif exact and float(scale.lsb) == 1:
        pytest.fail("every number converts to itself, yet the range says that it does not resolve them")


@pytest.mark.parametrize(
    ("granularity", "shape"),
    [("layer", (1, 1, 1, 1)), ("slice", (1, 1, 2, 1)), ("slice_digit", (1, 4, 2, 1)), ("column", (2, 1, 1, 3))],
)
def test_a_granularity_says_what_has_a_range_of_its_own(make_chip, granularity, shape):
    assert adc.shape(granularity, layer(make_chip)) == shape


def test_the_full_range_reaches_the_largest_sum_of_the_tallest_row_tile(make_chip):
    chip = {"cell": {"bits": 2}, "dac": {"bits": 2}, "adc": {"bits": 4}}
    for rows, tallest in ((3, 3), (8, 8), (20, 8)):
        product = layer(make_chip, rows, **chip)
        assert product.max_sum == tallest * 3 * 3
        scale = adc.full(product)
        assert float(scale.lsb) * 15 == pytest.approx(tallest * 9, rel=2**-9)
        assert float(scale.offset) == 0


def test_a_leak_that_is_kept_widens_the_full_range(make_chip):
    product = layer(make_chip, cell={"leak": "kept"}, adc={"bits": 2})
    assert float(adc.full(product).lsb) * 3 == pytest.approx(8 * 100 / 33, rel=2**-9)


def test_a_fixed_range_is_read_in_amperes(make_chip):
    # 0.2 V on steps of 33 uS: 6.6 uA a level, less for digits that share the voltage.
    fixed = {"bits": 3, "policy": "fixed", "range": {"low": "13.2 uA", "high": "105.6 uA"}}
    scale = adc.fixed(layer(make_chip, adc=fixed))
    assert (float(scale.offset), scale.low, scale.high) == (2, 0, 7)
    assert float(scale.lsb) == pytest.approx(2, rel=2**-9)
    wide = adc.fixed(layer(make_chip, adc=fixed, dac={"bits": 2}))
    assert (float(wide.offset), float(wide.lsb)) == (6, pytest.approx(6, rel=2**-9))
    fine = {"bits": 8, "policy": "fixed", "range": {"low": 0, "high": "6.6 uA"}}
    assert float(adc.fixed(layer(make_chip, adc=fine)).lsb) == pytest.approx(1 / 255, rel=2**-9)
    both = {"bits": 3, "policy": "fixed", "range": {"low": "-23.1 uA", "high": "23.1 uA"}}
    signed = adc.fixed(layer(make_chip, adc=both, weights={"encoding": "pair"}))
    # +-3.5 levels: no code stands for more, or for less.
    assert (float(signed.offset), signed.low, signed.high) == (0, -3, 3)
    assert float(signed.lsb) == pytest.approx(3.5 / 3, rel=2**-9)


def test_a_fixed_range_that_the_chip_does_not_give_is_refused(make_chip):
    with pytest.raises(MappingError, match=r"^chip small has no adc.range; policy is full$"):
        adc.fixed(layer(make_chip))


@pytest.mark.parametrize("lsb", [14.0, 26.0, 30.0, 82.0, 230.0])
def test_an_lsb_whose_reciprocal_is_inexact_rounds_ties_as_the_reference_does(make_chip, lsb):
    # At these steps float32 multiplication by the reciprocal moves some tie to the wrong side.
    chip = make_chip(crossbar={"rows": 128, "cols": 4}, cell={"bits": 2}, inputs={"bits": 1}, adc={"bits": 8})
    product = Product(dense(Matmul("fc", "linear", 128, 1), chip))
    levels = torch.full((1, 1, 2, 128, 1), 3, dtype=torch.uint8)
    levels[..., :2, :] = 1
    # Vectors that drive ever more rows: every sum up to 380.
    x = torch.stack([(torch.arange(128) < n) & (torch.arange(128) >= m) for m in range(3) for n in range(129)])
    x = x.view(1, -1, 1, 128).to(torch.uint8)
    scale = AdcScale(scalar(lsb), scalar(0.0), 0, 255)
    got = crossbar_mvm(x, Crossbars(product, levels), scale)
    assert torch.equal(got, reference.crossbar_mvm(x, levels, product, scale))
