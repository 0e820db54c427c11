"""The gradient of ADC ranges against autograd through the same product in plain loops."""

from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from test_paths import ENCODINGS, Case, cases
from torch import Tensor

from bitline.mapping.encode import column_tiles, encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mapping.quantize import digits, weight_limits
from bitline.mvm import adc, native, reference, torch_fast
from bitline.mvm.adc import AdcScale
from bitline.mvm.gradient import range_gradient
from bitline.mvm.product import Product

GRANULARITIES = ("layer", "slice", "slice_digit", "column")


def rounded(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def learned_step(case: Case, lsb: Tensor, offset: Tensor) -> Tensor:
    """The product of the crossbars, differentiable in the ranges; rounding passes gradients, clipping does not."""
    product, placement = case.product, case.product.placement
    width, levels = placement.chip.dac.bits, case.levels.double()
    planes = digits(case.x, product.form, width).double()
    total = torch.zeros(*case.x.shape[:3], placement.stored_columns, dtype=torch.float64)
    shape = (case.x.shape[2], len(product.digit_weights), len(product.slice_weights), placement.stored_columns)
    lsb, offset = lsb.expand(shape), offset.expand(shape)
    there = torch.ones(placement.row_tiles, *shape[::3]) if product.built is None else product.built
    for tile, (first, last) in enumerate(pairwise(placement.row_bounds)):
        for p, digit_weight in enumerate(product.digit_weights):
            for s, slice_weight in enumerate(product.slice_weights):
                sides = levels[:, :, s, first:last]
                sides = sides[:, :1] - sides[:, 1:] if product.subtracts else sides
                for k, side_weight in enumerate(product.side_weights):
                    a = torch.einsum("ipgr,grc->ipgc", planes[p, ..., first:last], sides[:, k])
                    code = rounded((a - offset[:, p, s]) / lsb[:, p, s]).clamp(case.scale.low, case.scale.high)
                    read = (code * lsb[:, p, s] + offset[:, p, s]) * there[tile]
                    total = total + digit_weight * slice_weight * side_weight * read
    cols = placement.matmul.cols
    if placement.stored_columns > cols:
        return total[..., :cols] - total[..., cols:].index_select(-1, column_tiles(placement))
    for tile, (first, last) in enumerate(pairwise(placement.row_bounds)):
        total = total - product.digital_offset * case.x[..., first:last].sum(-1, keepdim=True) * there[tile]
    return total


def expected(case: Case, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    lsb, offset = case.scale.lsb.clone().requires_grad_(), case.scale.offset.clone().requires_grad_()
    y = learned_step(case, lsb, offset)
    y.backward(grad)
    assert lsb.grad is not None
    assert offset.grad is not None
    return y.detach(), lsb.grad, offset.grad


def check(case: Case, rng: torch.Generator) -> None:
    shape = (*case.x.shape[:3], case.product.placement.matmul.cols)
    grad = torch.randn(shape, generator=rng, dtype=torch.float64)
    y, by_lsb, by_offset = expected(case, grad)
    torch.testing.assert_close(y, reference.crossbar_mvm(case.x, case.levels, case.product, case.scale))
    found = range_gradient(case.x, case.crossbars, case.scale, grad)
    size = float(grad.abs().sum()) * max(map(abs, case.product.digit_weights)) * max(case.product.slice_weights)
    for mine, wanted in ((found.lsb, by_lsb), (found.offset, by_offset)):
        assert mine.shape == wanted.shape == case.scale.lsb.shape
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5 * size)


@given(data=st.data())
def test_it_is_that_of_autograd_through_plain_loops(make_chip, data):
    cells = data.draw(st.sampled_from(["ideal", "real"]))
    case = data.draw(cases(make_chip, cells=cells, policies=GRANULARITIES, most_bits=3))
    check(case, torch.Generator().manual_seed(data.draw(st.integers(0, 2**31))))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("encoding", list(ENCODINGS))
@pytest.mark.parametrize("codes", [{"bits": 1}, {"bits": 2, "levels": 3}, {"bits": 3}])
def test_every_encoding_and_granularity_has_it(make_chip, rng, granularity, encoding, codes):
    check(layer(make_chip, rng, granularity, encoding, codes), rng)


def test_it_is_the_same_in_runs_of_few_vectors(make_chip, rng, monkeypatch):
    case = layer(make_chip, rng, "slice_digit", "digital pair", {"bits": 3})
    grad = torch.randn(*case.x.shape[:3], 5, generator=rng, dtype=torch.float64)
    whole = range_gradient(case.x, case.crossbars, case.scale, grad)
    monkeypatch.setattr(torch_fast, "CHUNK", 3000)
    cut = range_gradient(case.x, case.crossbars, case.scale, grad)
    torch.testing.assert_close(cut.lsb, whole.lsb, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(cut.offset, whole.offset, rtol=1e-5, atol=1e-2)


def test_no_vectors_have_no_gradient(make_chip, rng):
    case = layer(make_chip, rng, "slice", "offset", {"bits": 3})
    found = range_gradient(case.x[:0], case.crossbars, case.scale, torch.zeros(0, 2, 2, 5))
    assert not bool(found.lsb.any())
    assert found.lsb.shape == case.scale.lsb.shape


def layer(make_chip, rng: torch.Generator, granularity: Any, encoding: str, codes: dict[str, Any]) -> Case:
    """Two groups of three uneven row tiles and several column tiles, with signed inputs and offsets of either sign."""
    chip = make_chip(
        crossbar={"rows": 8, "cols": 16},
        adc=codes,
        weights={"bits": 4, "encoding": ENCODINGS[encoding]},
        dac={"bits": 2},
    )
    product = Product(dense(Matmul("it", "linear", 19, 5, 2, signed=True), chip))
    low, high = weight_limits(chip.weights)
    q = torch.randint(low, high + 1, (2, 19, 5), generator=rng)
    x = torch.randint(-8, 8, (3, 2, 2, 19), generator=rng)
    shape = adc.shape(granularity, product)
    lsb = adc.snap(1 + 12 * torch.rand(shape, generator=rng))
    offset = torch.randint(-6, 20, shape, generator=rng).double()
    return Case(x, q, encode(q, product.placement), product, AdcScale(lsb, offset, *adc.code_range(chip.adc, product)))


@pytest.mark.parametrize("path", [*native.paths(), native.TENSOR])
@pytest.mark.parametrize("encoding", list(ENCODINGS))
@pytest.mark.parametrize("codes", [{"bits": 1}, {"bits": 2, "levels": 3}, {"bits": 4, "levels": 11}])
def test_every_path_converts_to_as_many_codes_as_there_are(make_chip, rng, path, encoding, codes):
    case = layer(make_chip, rng, "column", encoding, codes)
    spans = torch.rand(2, *case.scale.lsb.shape, generator=rng) * case.product.max_sum
    for scale in (case.scale, adc.full(case.product), adc.from_range(*spans.sort(0).values, case.product)):
        wanted = reference.crossbar_mvm(case.x, case.levels, case.product, scale)
        if path == native.TENSOR:
            assert torch.equal(torch_fast.crossbar_mvm(case.x, case.crossbars, scale), wanted)
            continue
        plan = native.plan(case.crossbars, scale, path)
        if isinstance(plan, str):
            assume(False)
        assert torch.equal(plan.multiply(case.x.to(torch.int8), 1)[0], wanted)
