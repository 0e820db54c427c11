"""One layer on a chip in other precisions and under autocast."""

import copy

import pytest
import torch
from layer_samples import build, exact, on_chip, only_layer

from bitline.chip import load
from bitline.nn import program


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_precisions_run_and_answer_in_their_own(make_chip, dtype):
    layer, x = build("conv2d")
    chip = exact(make_chip, weights={"bits": 8}, inputs={"bits": 16}, dac={"bits": 4})
    model = on_chip(layer.to(dtype), chip, x.to(dtype))
    answer = model(x.to(dtype))
    assert answer.dtype == dtype
    answer.float().sum().backward()
    assert only_layer(model).weight.grad.dtype == dtype
    torch.testing.assert_close(answer.double(), layer.double()(x.to(dtype).double()), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_ranges_keep_their_precision_when_the_weights_change_theirs(make_chip, dtype):
    layer, x = build("linear")
    model = on_chip(layer, make_chip(adc={"policy": "calibrated"}), x)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model.to(dtype)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name])
        assert buffer.dtype == before[name].dtype
    assert only_layer(model).weight.dtype == dtype


def test_a_layer_answers_under_inference_mode_and_autocast(make_chip):
    layer, x = build("conv2d")
    model = on_chip(layer, exact(make_chip), x)
    plain = model(x)
    with torch.inference_mode():
        assert torch.equal(model(x), plain)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = model(x)
        mixed.sum().backward()
    assert torch.equal(mixed, plain)
    assert bool(only_layer(model).weight.grad.isfinite().all())


@pytest.mark.parametrize("path", [None, "tensor"])
@pytest.mark.parametrize("name", ["rram-22nm", "example-128"])
def test_a_programmed_chip_answers_the_same_under_autocast(monkeypatch, path, name):
    if path:
        monkeypatch.setenv("BITLINE_PATH", path)
    layer, x = build("conv2d")
    model = on_chip(layer, load(name), x)
    program(model, 0)
    plain = model(x)
    program(model, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(x), plain)
    # What a digital layer before it computed in bf16 is its input, and no coarser is its answer.
    half = x.bfloat16()
    program(model, 0)
    plain = model(half.float())
    program(model, 0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(model(half), plain)


@pytest.mark.parametrize("kind", ["linear", "conv2d"])
def test_under_autocast_gradients_are_those_of_products_in_bf16(make_chip, kind):
    layer, x = build(kind)
    model = on_chip(layer, exact(make_chip), x)
    inner = only_layer(model)
    x.requires_grad_()
    pull = torch.randn(model(x).shape, generator=torch.Generator().manual_seed(3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = model(x)
    answer.backward(pull)
    got = inner.weight.grad, x.grad
    inner.weight.grad = x.grad = None
    # PyTorch's own gradient of the plain product of what the chip quantizes to, in bf16.
    plain = copy.deepcopy(layer).bfloat16()
    plain.weight.data = inner.fake_weight().value.reshape(plain.weight.shape).bfloat16()
    q = inner.fake_input(x.detach())
    value = q.value.bfloat16().requires_grad_()
    plain(value).backward(pull.bfloat16())
    assert torch.equal(got[0], plain.weight.grad.float())
    assert torch.equal(got[1], (value.grad * q.inside).float())
    # Rounding to 8 bits shows, or this tests nothing.
    model(x).backward(pull)
    assert not torch.equal(inner.weight.grad, got[0])
