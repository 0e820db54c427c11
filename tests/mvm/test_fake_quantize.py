"""Fake quantization against PyTorch's, where that one is exact."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.mvm.gradient import Quantized
from bitline.physics import kernels


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


LAYOUTS = {
    "as it comes": lambda x: x,
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "with gaps": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "transposed": lambda x: x.transpose(0, 1),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("each", [False, True])
def test_loops_give_the_bits_of_tensor_operations(monkeypatch, layout, dtype, each):
    generator = torch.Generator().manual_seed(0)
    x = LAYOUTS[layout](torch.randn(8, 6, 40, 40, generator=generator))
    scale = 0.03 * torch.rand(len(x), 1, 1, 1, generator=generator) + 0.01 if each else 0.0173
    x[0, 0, 0, :9] = (torch.arange(9) - 1.5) * (scale[0, 0, 0, 0] if isinstance(scale, torch.Tensor) else scale)  # ties
    grad = LAYOUTS[layout](torch.randn(x.shape if layout != "transposed" else x.transpose(0, 1).shape)).to(dtype)
    quantized = Quantized(x, scale, -7, 8)

    loops = quantized.of_type(dtype), quantized.passed(grad)
    monkeypatch.setattr(kernels, "native", None)
    tensors = quantized.of_type(dtype), quantized.passed(grad)

    assert loops[0].dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(loops, tensors, strict=True))


def test_gradients_pass_where_nothing_clips():
    x = torch.tensor([-1.6, -1.5, -1.4, 0.3, 2.4, 2.5, 2.6])
    grad = torch.arange(1.0, 8.0)

    passed = Quantized(x, 1.0, -1, 2).passed(grad)

    # -1.5 and 2.5 go to the even -2 and 2
    assert passed.tolist() == [0, 0, 3, 4, 5, 6, 0]
