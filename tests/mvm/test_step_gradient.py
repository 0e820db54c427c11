"""The gradient of ADC ranges against autograd through the same product in plain loops."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from mvm_samples import ENCODINGS, Case, cases, layer
from torch import Tensor

from bitline.mapping.encode import column_tiles
from bitline.mapping.quantize import digits
from bitline.mvm import reference, torch_fast
from bitline.mvm.gradient import range_gradient

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
    check(layer(make_chip, rng, granularity, encoding, adc=codes), rng)


def test_it_is_the_same_in_runs_of_few_vectors(make_chip, rng, monkeypatch):
    case = layer(make_chip, rng, "slice_digit", "digital pair", adc={"bits": 3})
    grad = torch.randn(*case.x.shape[:3], 5, generator=rng, dtype=torch.float64)
    whole = range_gradient(case.x, case.crossbars, case.scale, grad)
    monkeypatch.setattr(torch_fast, "CHUNK", 3000)
    cut = range_gradient(case.x, case.crossbars, case.scale, grad)
    torch.testing.assert_close(cut.lsb, whole.lsb, rtol=1e-5, atol=1e-2)
    torch.testing.assert_close(cut.offset, whole.offset, rtol=1e-5, atol=1e-2)


def test_no_vectors_have_no_gradient(make_chip, rng):
    case = layer(make_chip, rng, "slice", "offset", adc={"bits": 3})
    found = range_gradient(case.x[:0], case.crossbars, case.scale, torch.zeros(0, 2, 2, 5))
    assert not bool(found.lsb.any())
    assert found.lsb.shape == case.scale.lsb.shape
