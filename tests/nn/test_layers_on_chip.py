"""One layer on a chip: its answer, its gradient, its randomness."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_samples import LAYERS, build, exact, on_chip, only_layer, rounded, weight_per_channel
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.mapping.quantize import weight_limits, weight_scale
from bitline.nn import calibrate, program, to_crossbar


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_an_exact_chip_answers_the_layer_of_rounded_inputs_and_weights(make_chip, kind, signed):
    layer, x = build(kind)
    x = x if signed else x.abs()
    chip = exact(make_chip, weights={"bits": 6}, inputs={"bits": 6})
    model = on_chip(layer, chip, x)
    wanted = layer.__class__.forward
    plain, _ = build(kind)
    scale = float(only_layer(model).ranges.input_scale)
    low, high = (-32, 31) if signed else (0, 63)
    with torch.no_grad():
        plain.weight.copy_(rounded(layer.weight, weight_per_channel(layer, chip), -32, 31))
        got, expected = model(x), wanted(plain, rounded(x, scale, low, high))
    assert got.shape == expected.shape
    assert got.dtype == expected.dtype
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)
    assert not torch.equal(got, layer(x))


@pytest.mark.parametrize("granularity", ["channel", "tensor"])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_the_gradient_is_that_of_the_rounded_layer(make_chip, kind, granularity):
    layer, x = build(kind)
    chip = exact(make_chip, weights={"bits": 5, "granularity": granularity}, inputs={"bits": 4, "calibration": "mse"})
    model = on_chip(layer, chip, x)
    mine = only_layer(model)
    chip_x, plain_x = (x.clone().requires_grad_() for _ in range(2))
    low, high = mine.input_format.limits
    scale = weight_per_channel(layer, chip)
    scale = (
        scale
        if granularity == "channel"
        else scale.new_tensor(weight_scale(layer.weight[None, None].flatten(1).T[None], chip.weights).item())
    )
    w = rounded(layer.weight, scale, *weight_limits(chip.weights))
    xs = rounded(plain_x, float(mine.ranges.input_scale), low, high)
    expected = F.linear(xs, w, layer.bias) if isinstance(layer, nn.Linear) else layer._conv_forward(xs, w, layer.bias)
    upstream = torch.randn_like(expected)

    model(chip_x).backward(upstream)
    expected.backward(upstream)

    torch.testing.assert_close(chip_x.grad, plain_x.grad, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(mine.weight.grad, layer.weight.grad, rtol=1e-5, atol=1e-5)
    if layer.bias is not None:
        torch.testing.assert_close(mine.bias.grad, layer.bias.grad, rtol=1e-5, atol=1e-5)


@given(st.integers(0, 2**32), st.integers(2, 12))
def test_the_largest_weight_of_every_channel_gets_its_gradient(make_chip, seed, bits):
    torch.manual_seed(seed)
    chip = exact(make_chip, weights={"bits": bits, "encoding": {"kind": "pair"}, "slices": 8}, cell={"bits": 2})
    layer, x = nn.Linear(3, 2), torch.rand(4, 3) + 0.1
    model = on_chip(layer, chip, x)
    model(x).sum().backward()
    assert bool((only_layer(model).weight.grad != 0).all())


def test_inputs_that_clip_get_no_gradient_and_others_do(make_chip):
    layer = nn.Linear(2, 1, bias=False)
    model = on_chip(layer, exact(make_chip, inputs={"bits": 4, "calibration": "max"}), torch.rand(50, 2))
    x = torch.tensor([[0.5, 2.0], [-0.5, 0.1]], requires_grad=True)
    model(x).sum().backward()
    assert (x.grad != 0).tolist() == [[True, False], [False, True]]


def test_an_answer_with_gradient_is_the_answer_without(make_chip):
    layer, x = build("conv2d")
    model = on_chip(layer, make_chip(cell={"programming": {"kind": "lognormal", "sigma": 0.2}}, adc={"bits": 3}), x)
    program(model, 4)
    with torch.no_grad():
        without = model(x)
    assert not without.requires_grad
    with_gradient = model(x)
    assert with_gradient.requires_grad
    assert torch.equal(with_gradient, without)


def test_frozen_weights_and_inputs_leave_no_graph_but_that_of_the_bias(make_chip):
    layer, x = build("linear")
    layer.weight.requires_grad_(False)
    model = on_chip(layer, exact(make_chip), x)
    assert not only_layer(model).weight.requires_grad
    model(x).sum().backward()
    assert only_layer(model).bias.grad.tolist() == [5.0] * 6
    layer.bias.requires_grad_(False)
    assert not on_chip(layer, exact(make_chip), x)(x).requires_grad


def test_an_empty_batch_gives_an_empty_answer(make_chip):
    for kind in ("linear", "linear, three axes", "conv2d", "depthwise", "conv1d"):
        layer, x = build(kind)
        for policy in ("lossless", "full", "batch_minmax", "calibrated"):
            model = on_chip(layer, make_chip(adc={"policy": policy}), x)
            assert model(x[:0]).shape == layer(x[:0]).shape


@pytest.mark.parametrize("kind", list(LAYERS))
def test_an_input_without_its_batch_axis_is_answered_as_a_batch_of_one(make_chip, kind):
    layer, x = build(kind)
    model = on_chip(layer, exact(make_chip), x)
    alone = x[0, 0] if "axes" in kind else x[0]
    assert torch.equal(model(alone), model(alone.unsqueeze(0)).squeeze(0))
    assert model(alone).shape == layer(alone).shape


CHANGES = {
    "in place": lambda w: w.mul_(2.0),
    "through data": lambda w: w.data.mul_(2.0),
    "by new data": lambda w: setattr(w, "data", w.detach() * 2),
    "one entry through data": lambda w: w.data[0].mul_(2.0),
}


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_change_of_the_weights_reaches_the_cells(make_chip, change):
    layer, x = build("linear")
    chip = exact(make_chip, weights={"granularity": "tensor"})
    model = on_chip(layer, chip, x)
    before = model(x)
    with torch.no_grad():
        CHANGES[change](only_layer(model).weight)
    after = model(x)
    fresh = on_chip(layer, chip, x)
    with torch.no_grad():
        CHANGES[change](layer.weight)
    fresh.load_state_dict({**fresh.state_dict(), "weight": layer.weight})
    assert not torch.equal(after, before)
    assert torch.equal(after, fresh(x))


def test_a_new_parameter_reaches_the_cells(make_chip):
    layer, x = build("linear")
    model = on_chip(layer, exact(make_chip), x)
    before = model(x)
    only_layer(model).weight = nn.Parameter(layer.weight.detach().flip(0))
    torch.testing.assert_close(model(x) - layer.bias, (before - layer.bias).flip(-1))


@settings(max_examples=25)
@given(st.data())
def test_the_conversions_performed_are_those_of_the_placement(make_chip, data):
    kind = data.draw(st.sampled_from(list(LAYERS)))
    layer, x = build(kind)
    sided = [{"kind": "offset", "sum": "column"}, {"kind": "pair", "subtract": "digital"}]
    encoding = data.draw(st.sampled_from(["offset", "pair", "twos_complement", *sided]))
    chip = make_chip(
        crossbar={"rows": 12, "cols": 24, "active_rows": data.draw(st.integers(1, 12))},
        weights={"encoding": encoding},
        dac={"bits": data.draw(st.integers(1, 4))},
    )
    x = x if data.draw(st.booleans()) else x.abs()
    model, report = to_crossbar(layer, chip, example=x)
    calibrate(model, [x])
    mine = only_layer(model)
    performed = 0

    def count(a: Tensor, _: Tensor) -> None:
        nonlocal performed
        performed += a.numel()

    q = mine.integers(x)
    mine.multiply(q, mine.read(q, mine.chip, -1), observer=count)
    assert performed == x.shape[0] * mine.placement.conversions
    assert report.layers[0].crossbars == mine.placement.crossbars


def test_a_minmax_range_of_the_batch_depends_on_the_batch(make_chip):
    layer, x = build("linear")
    model = on_chip(layer, make_chip(adc={"policy": "batch_minmax", "bits": 2}), x)
    together, alone = model(x), torch.cat([model(row[None]) for row in x])
    assert not torch.equal(together, alone)


@torch.no_grad()
def test_every_policy_and_granularity_runs_and_more_bits_come_closer(make_chip):
    layer, x = build("conv2d")

    def error(**adc: object) -> float:
        model = on_chip(layer, make_chip(crossbar={"rows": 27, "cols": 16}, adc=adc), x)
        exact_model = on_chip(layer, exact(make_chip), x)
        return float((model(x) - exact_model(x)).square().mean())

    for policy in ("full", "calibrated", "batch_minmax"):
        for granularity in ("layer", "slice", "slice_digit", "column"):
            settings_ = {"policy": policy, "granularity": granularity}
            few, many = error(bits=2, **settings_), error(bits=9, **settings_)
            assert many <= 1e-10
            assert few > 1e-3
    fixed = {"policy": "fixed", "range": {"low": 0, "high": "537 uA"}}
    assert error(bits=9, **fixed) < error(bits=3, **fixed)
