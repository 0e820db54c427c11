"""One layer on a chip: its answer, its gradient, its randomness, and what it refuses."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip import load
from bitline.errors import BitlineError, ConversionError, DataError, MappingError
from bitline.mapping.quantize import weight_limits, weight_scale
from bitline.nn import CrossbarLayer, calibrate, crossbar_layers, program, set_chip, to_crossbar


def on_chip(model: nn.Module, chip, x: Tensor, **kwargs) -> nn.Module:
    converted = to_crossbar(model, chip, **kwargs).model
    calibrate(converted, [x])
    return converted


def exact(make_chip, **sections):
    """A chip that answers the exact product of the integers."""
    return make_chip(crossbar={"rows": 16, "cols": 32}, adc={"policy": "lossless"}, **sections)


def only_layer(model: nn.Module) -> CrossbarLayer:
    (layer,) = crossbar_layers(model).values()
    return layer


def rounded(x: Tensor, scale: Tensor | float, low: int, high: int) -> Tensor:
    """Integers times scale, with the gradient of x where nothing clips."""
    q = (x / scale).round()
    inside = (q.detach() >= low) & (q.detach() <= high)
    value = q.detach().clamp(low, high) * scale
    return x * inside + (value - x * inside).detach()


def weight_per_channel(layer: nn.Module, chip) -> Tensor:
    """The scale of each output channel, shaped as the weight."""
    w = layer.weight.detach().flatten(1).T[None]
    return weight_scale(w, chip.weights).flatten().view(-1, *[1] * (layer.weight.dim() - 1))


LAYERS = {
    "linear": (lambda: nn.Linear(10, 6), (5, 10)),
    "linear, three axes": (lambda: nn.Linear(10, 6), (5, 3, 10)),
    "linear without bias": (lambda: nn.Linear(10, 6, bias=False), (5, 10)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 5)),
    "strided": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(0, 1)), (2, 3, 7, 5)),
    "same": (lambda: nn.Conv2d(3, 4, 3, padding="same", dilation=2), (2, 3, 7, 5)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(12, 12, 3, groups=12, padding=1), (2, 12, 5, 5)),
    "conv1d": (lambda: nn.Conv1d(3, 5, 3, dilation=2, bias=False), (2, 3, 9)),
}


def build(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, shape = LAYERS[kind]
    return make(), torch.randn(shape)


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


@pytest.mark.parametrize("kind", list(LAYERS))
def test_an_input_of_other_axes_is_refused(make_chip, kind):
    layer, x = build(kind)
    model = on_chip(layer, exact(make_chip), x)
    wrong = x.flatten()[0] if isinstance(layer, nn.Linear) else x.flatten()[:10]
    with pytest.raises(MappingError, match=r"^layer : input of shape .*; expected \(batch, "):
        model(wrong)


def test_an_input_smaller_than_the_kernel_is_refused(make_chip):
    layer, x = build("grouped")
    model = on_chip(layer, exact(make_chip), x)
    with pytest.raises(MappingError, match="padded input of 2 x 5 is smaller than a kernel that spans 3 x 3"):
        model(x[:, :, :2])


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_inputs_that_are_no_numbers_are_refused(make_chip, bad):
    layer, x = build("linear")
    model = on_chip(nn.Sequential(layer), exact(make_chip), x)
    x = x.clone()
    x[1, 2] = bad
    for run in (lambda: model(x), lambda: calibrate(model, [x])):
        with pytest.raises(MappingError, match=r"^layer 0: 1 of \d+ inputs are NaN or infinite$"):
            run()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused_whenever_they_come(make_chip, bad):
    layer, x = build("linear")
    model = on_chip(nn.Sequential(layer), exact(make_chip), x)
    with torch.no_grad():
        model[0].weight[0, 0] = bad
    with pytest.raises(MappingError, match=r"^layer 0: 1 of 60 weights are NaN or infinite$"):
        model(x)
    with torch.no_grad():
        layer.weight[0, 0] = bad
    with pytest.raises(DataError, match=r"^Sequential: 0.weight has 1 of 60 numbers that are NaN or infinite$"):
        on_chip(nn.Sequential(layer), exact(make_chip), x)


def test_a_layer_that_is_not_calibrated_is_refused(make_chip):
    layer, x = build("linear")
    model = to_crossbar(nn.Sequential(layer), make_chip()).model
    with pytest.raises(ConversionError) as error:
        model(x)
    assert str(error.value) == (
        "layer 0: input range unknown; call calibrate(model, batches) before running on the chip"
    )
    only_layer(model).ranges.input_scale.fill_(0.1)
    set_chip(model, make_chip(adc={"policy": "calibrated"}))
    with pytest.raises(ConversionError, match=r"^layer 0: ADC range unknown; call calibrate"):
        model(x)


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


def test_a_layer_with_no_surrogate_says_so(make_chip):
    layer, x = build("linear")
    model = on_chip(layer, exact(make_chip), x)
    only_layer(model).mode = "surrogate"
    with pytest.raises(ConversionError, match="its mode is 'surrogate', and it has none; call bitline"):
        model(x)


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


def test_an_error_is_an_error_of_bitline():
    assert issubclass(MappingError, BitlineError)
    assert issubclass(ConversionError, BitlineError)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bias_that_is_no_number_is_refused_even_if_it_is_set_after_programming(make_chip, bad):
    layer, x = build("linear")
    model = on_chip(nn.Sequential(layer), exact(make_chip), x)
    program(model, 3)
    with torch.no_grad():
        model[0].bias[1] = bad
    with pytest.raises(MappingError, match=r"^layer 0: 1 of \d+ biases are NaN or infinite$"):
        model(x)


def test_a_network_whose_weights_or_example_are_no_numbers_is_refused_before_anything_is_done(make_chip):
    norm = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    norm[1].running_mean[0] = math.nan
    with pytest.raises(DataError, match=r"^Sequential: 1.running_mean has 1 of 3 numbers that are NaN or infinite$"):
        to_crossbar(norm, make_chip(), example=torch.ones(2, 4))
    with pytest.raises(MappingError, match=r"^example: 8 of 8 numbers are NaN or infinite$"):
        to_crossbar(nn.Sequential(nn.Linear(4, 3)), make_chip(), example=torch.full((2, 4), math.nan))


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Linear(4, 3), (2, 5), r"layer 0: input of shape \(2, 5\) has 5 features; expected 4"),
        (nn.Conv2d(1, 2, 3), (2, 3, 8, 8), r"layer 0: input of shape \(2, 3, 8, 8\) has 3 channels; expected 1"),
        (nn.Conv1d(2, 2, 3), (2, 1, 8), r"layer 0: input of shape \(2, 1, 8\) has 1 channels; expected 2"),
    ],
)
def test_inputs_of_other_channels_are_refused_by_the_layer(make_chip, layer, shape, message):
    size = (2, layer.weight.shape[1], *[8] * (layer.weight.dim() - 2))
    model = on_chip(nn.Sequential(layer), exact(make_chip), torch.rand(size))
    with pytest.raises(MappingError, match=f"^{message}$"):
        model(torch.rand(shape))
