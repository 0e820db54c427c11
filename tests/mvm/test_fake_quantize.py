"""Fake quantization against PyTorch's, where that one is exact."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.mvm.gradient import Quantized


@given(st.integers(-12, 6), st.booleans(), st.integers(2, 8), st.integers(0, 2**32))
def test_scales_of_powers_of_two_give_what_pytorch_gives(exponent, signed, bits, seed):
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    scale, generator = 2.0**exponent, torch.Generator().manual_seed(seed)
    ties = (torch.randint(2 * low - 5, 2 * high + 5, (200,), generator=generator) + 0.5) * scale
    x = torch.cat([torch.randn(200, generator=generator) * scale * high, ties])

    ours = Quantized(x, scale, low, high).value

    assert torch.equal(ours, torch.fake_quantize_per_tensor_affine(x, scale, 0, low, high))


@pytest.mark.parametrize("whole", [-3, 5])
def test_other_scales_divide(whole):
    scale = 0.3
    x = torch.tensor([whole + 0.5], dtype=torch.float64) * scale

    assert Quantized(x, scale, -8, 7).value.item() == pytest.approx(round(float(x) / scale) * scale)
