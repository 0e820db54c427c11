"""Fake quantization against PyTorch's, where that one is exact."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.mvm.gradient import Quantized, WeightErrors, add_in_place
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
@pytest.mark.parametrize("source", [torch.float32, torch.bfloat16])
def test_loops_give_the_bits_of_tensor_operations(monkeypatch, layout, dtype, each, source):
    generator = torch.Generator().manual_seed(0)
    x = LAYOUTS[layout](torch.randn(8, 6, 40, 40, generator=generator))
    scale = 0.03 * torch.rand(len(x), 1, 1, 1, generator=generator) + 0.01 if each else 0.0173
    x[0, 0, 0, :9] = (torch.arange(9) - 1.5) * (scale[0, 0, 0, 0] if isinstance(scale, torch.Tensor) else scale)  # ties
    x = x.to(source)
    grad = LAYOUTS[layout](torch.randn(x.shape if layout != "transposed" else x.transpose(0, 1).shape)).to(dtype)
    quantized = Quantized(x, scale, -7, 8)

    loops = quantized.of_type(dtype), quantized.passed(grad)
    monkeypatch.setattr(kernels, "native", None)
    tensors = quantized.of_type(dtype), quantized.passed(grad)

    assert loops[0].dtype == dtype
    assert all(torch.equal(a, b) for a, b in zip(loops, tensors, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", ["as it comes", "channels last"])
def test_errors_of_weights_are_drawn_by_loops_as_by_tensor_operations(monkeypatch, layout, dtype):
    generator = torch.Generator().manual_seed(0)
    x = LAYOUTS[layout](torch.randn(8, 6, 5, 7, generator=generator))
    numbers, std = torch.randn(1000, generator=generator), torch.rand(5, generator=generator)
    factor = torch.rand(8, generator=generator)
    errors = WeightErrors(-2, torch.arange(5.0), std, numbers, factor)

    drawn = Quantized(x, 0.25, -3, 3).erred(errors, dtype)
    monkeypatch.setattr(kernels, "native", None)
    tensors = Quantized(x, 0.25, -3, 3).erred(errors, dtype)

    assert torch.equal(drawn, tensors)
    place = (4, 3, 2, 1)
    address = sum(at * stride for at, stride in zip(place, x.stride(), strict=True))
    whole = max(-3, min(3, round(float(x[place]) / 0.25)))
    entry = max(0, min(4, round(float(x[place]) / 0.25) + 2))
    expected = (whole + entry + std[entry] * numbers[address % 1000]) * factor[4]
    torch.testing.assert_close(drawn[place], expected.to(dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_elements_are_added_by_loops_as_by_tensor_operations(monkeypatch, layout, dtype):
    generator = torch.Generator().manual_seed(0)
    to, more = (LAYOUTS[layout](torch.randn(6, 6, 5, 7, generator=generator)).to(dtype) for _ in range(2))
    expected = to.clone()
    expected[1:4] += more[2:5]

    add_in_place(to, more, 1, 2, 3)

    assert torch.equal(to, expected)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_number_that_is_not_finite_is_seen_wherever_it_is(bad, dtype):
    x = torch.rand(200_000).to(dtype)
    assert Quantized(x, 0.1, 0, 7).checked(dtype)[1] == (kernels.native is not None)
    x[150_001] = bad
    assert not Quantized(x, 0.1, 0, 7).checked(dtype)[1]


def test_gradients_pass_where_nothing_clips():
    x = torch.tensor([-1.6, -1.5, -1.4, 0.3, 2.4, 2.5, 2.6])
    grad = torch.arange(1.0, 8.0)

    passed = Quantized(x, 1.0, -1, 2).passed(grad)

    # -1.5 and 2.5 go to the even -2 and 2
    assert passed.tolist() == [0, 0, 3, 4, 5, 6, 0]
