"""Inputs whose 0 is an integer of their own: exact, and finer where values below zero are few and small."""

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.errors import ConversionError
from bitline.mapping.histogram import RangeHistogram
from bitline.mvm.paths import crossbar_mvm
from bitline.nn import calibrate, crossbar_layers, program, set_chip, to_crossbar
from bitline.nn.layer import CrossbarLayer
from bitline.nn.observe import in_mode
from bitline.nn.range_training import load_ranges, save_ranges

SKEWED = F.gelu(2 * torch.randn(3, 4, 9, 9, generator=torch.Generator().manual_seed(0)))
ROWS = F.gelu(2 * torch.randn(6, 20, generator=torch.Generator().manual_seed(1)))

LAYERS = {
    "linear": (nn.Linear(20, 7), ROWS, "dense"),
    "linear on rows": (nn.Linear(20, 7), ROWS.view(2, 3, 20), "dense"),
    "conv": (nn.Conv2d(4, 6, 3, padding=2, stride=2), SKEWED, "dense"),
    "conv without bias": (nn.Conv2d(4, 6, 3, padding=1, bias=False), SKEWED, "dense"),
    "conv1d": (nn.Conv1d(4, 6, 3, padding="same"), SKEWED[..., 0], "dense"),
    "circular": (nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), SKEWED, "dense"),
    "depthwise": (nn.Conv2d(4, 4, 3, padding=1, groups=4), SKEWED, "dense"),
    "packed": (nn.Conv2d(4, 4, 3, padding=1, groups=4), SKEWED, "packed"),
    "strip": (nn.Conv2d(4, 4, 3, padding=1, groups=4), SKEWED, "strip"),
    "digital": (nn.Conv2d(4, 4, 3, padding=1, groups=4), SKEWED, "digital"),
}


def chip_of(make_chip, **sections):
    given = {
        "crossbar": {"rows": 16, "cols": 64},
        "inputs": {"bits": 6, "zero_point": True},
        "adc": {"policy": "lossless"},
    }
    return make_chip(**{key: {**given.get(key, {}), **sections.get(key, {})} for key in given.keys() | sections.keys()})


def build(make_chip, kind: str, **sections) -> tuple[nn.Module, CrossbarLayer, nn.Module, Tensor]:
    plain, x, strategy = LAYERS[kind]
    plain = copy.deepcopy(plain).eval()
    chip = chip_of(make_chip, **sections)
    mapping = {"depthwise": strategy} if strategy != "dense" else None
    model, _ = to_crossbar(nn.Sequential(plain), chip, example=x, mapping=mapping)
    calibrate(model, [x])
    (layer,) = crossbar_layers(model).values()
    return model, layer, plain, x


@pytest.mark.parametrize("encoding", ["offset", "pair"])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_a_lossless_chip_gives_the_exact_product_of_affine_integers(make_chip, kind, encoding):
    model, layer, plain, x = build(make_chip, kind, weights={"encoding": {"kind": encoding}})
    zero, scale = layer.input_zero, float(layer.ranges.input_scale)
    assert zero > 0
    assert not layer.matmul.signed
    q = (x.double() / scale).round() + zero
    q = q.clamp(0, 63) - zero  # the integers, about the one that stands for 0
    w = layer.fake_weight().value.double()
    other = copy.deepcopy(plain).double()
    other.weight.data = w
    with torch.no_grad():
        expected = other(q * scale)
        torch.testing.assert_close(model(x).double(), expected, rtol=1e-5, atol=1e-5)
        with in_mode("linear", layer):
            torch.testing.assert_close(model(x).double(), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["linear", "conv", "conv without bias", "depthwise"])
def test_errors_of_cells_meet_the_whole_integer(make_chip, kind):
    """What is taken off is the sum of the weights as they should be, so an error of a cell is read with its zero."""
    model, layer, plain, x = build(
        make_chip,
        kind,
        cell={"bits": 4, "programming": {"kind": "lognormal", "sigma": 0.2}},
        weights={"encoding": "pair"},
    )
    program(model, 3)
    zero, scale = layer.input_zero, float(layer.ranges.input_scale)
    q = ((x.double() / scale).round() + zero).clamp(0, 63)
    effective, right = layer.effective_weight().double(), layer.fake_weight().value.double()
    with torch.no_grad():
        # borders hold the zero too: pad first
        if isinstance(plain, nn.Linear):
            whole, off = F.linear(q, effective), zero * right.sum(1)
        else:
            pad = [each for length in reversed(plain.padding) for each in (length, length)]
            whole = F.conv2d(F.pad(q, pad, value=float(zero)), effective, None, plain.stride, 0, 1, plain.groups)
            off = (zero * right.flatten(1).sum(1)).view(1, -1, 1, 1)
        bias = 0 if plain.bias is None else plain.bias.double().view(off.shape)
        expected = scale * (whole - off) + bias
        with in_mode("linear", layer):
            torch.testing.assert_close(model(x).double(), expected, rtol=1e-4, atol=1e-4)
    if kind in ("linear", "conv"):  # on the chip: the crossbars' answer to the integers, borders and all
        rows = (
            q[:, None] if kind == "linear" else F.unfold(F.pad(q, pad, value=float(zero)), 3, stride=2).transpose(1, 2)
        )
        read = layer.read(layer.integers(x))
        y = crossbar_mvm(rows.unsqueeze(2).to(torch.uint8), read.crossbars, read.scale)
        y = (y - zero * layer.integer_weights().double().sum(1)) * layer.factor_of_one()
        with torch.no_grad():
            real = y.flatten(2).transpose(1, 2).reshape(expected.shape) + bias
            torch.testing.assert_close(model(x).double(), real, rtol=1e-5, atol=1e-5)


def test_skewed_inputs_are_rounded_about_half_as_coarsely(make_chip):
    errors = []
    for zero_point in (False, True):
        chip = chip_of(make_chip, inputs={"bits": 6, "zero_point": zero_point}, weights={"bits": 8})
        plain = nn.Sequential(copy.deepcopy(LAYERS["linear"][0]))
        model, _ = to_crossbar(plain, chip, example=ROWS)
        calibrate(model, [ROWS])
        (layer,) = crossbar_layers(model).values()
        errors.append(float((layer.fake_input(ROWS).value - ROWS).square().mean()))
    assert errors[1] < 0.4 * errors[0]


def test_inputs_of_one_sign_have_their_zero_at_the_end(make_chip):
    model, _ = to_crossbar(nn.Sequential(nn.Linear(20, 7)), chip_of(make_chip), example=ROWS)
    calibrate(model, [ROWS.abs()])
    assert next(iter(crossbar_layers(model).values())).input_zero == 0
    calibrate(model, [-ROWS.abs()])
    assert next(iter(crossbar_layers(model).values())).input_zero == 63


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_the_scale_of_least_error_is_that_of_a_search_by_hand(bits):
    x = torch.cat([ROWS.flatten(), SKEWED.flatten()])
    seen = RangeHistogram()
    for part in x.split(100):
        seen.add(part)
    scale, zero = seen.affine(bits, "mse", 99.9, "any")
    most = 2**bits - 1

    def error(scale: float, zero: int) -> float:
        return float((((x / scale).round() + zero).clamp(0, most).sub(zero) * scale - x).square().sum())

    best = min(
        error((low + high) / most, round(low / ((low + high) / most)))
        for low in (-float(x.min()) * share / 40 for share in range(8, 41))
        for high in (float(x.max()) * share / 40 for share in range(8, 41))
    )
    assert error(scale, zero) < 1.1 * best
    low, high = -float(x.min()), float(x.max())
    assert seen.affine(bits, "max", 99.9, "any") == (
        pytest.approx((low + high) / most),
        round(low / ((low + high) / most)),
    )


def test_the_ends_of_a_percentile_leave_that_share_beyond_each(make_chip):
    x = torch.linspace(-1, 3, 4001)
    seen = RangeHistogram()
    seen.add(x)
    scale, zero = seen.affine(8, "percentile", 90.0, "any")
    low, high = -zero * scale, (255 - zero) * scale
    assert low == pytest.approx(-0.6, abs=0.02)
    assert high == pytest.approx(2.6, abs=0.02)
    assert math.isclose(scale, (high - low) / 255)


def test_a_state_and_a_file_of_ranges_keep_the_zero(make_chip, tmp_path):
    chip = chip_of(make_chip, adc={"policy": "calibrated"})
    plain = nn.Sequential(copy.deepcopy(LAYERS["conv"][0]))
    model, _ = to_crossbar(plain, chip, example=SKEWED)
    calibrate(model, [SKEWED])
    answer = model(SKEWED)
    save_ranges(model, tmp_path / "ranges.safetensors")
    for restore in (
        lambda other: other.load_state_dict(model.state_dict()),
        lambda other: load_ranges(other, tmp_path / "ranges.safetensors"),
    ):
        other, _ = to_crossbar(plain, chip, example=SKEWED)
        restore(other)
        assert torch.equal(other(SKEWED), answer)
    assert torch.equal(torch.compile(model, backend="aot_eager")(SKEWED), answer)
    assert torch.equal(torch.export.export(model, (SKEWED,)).module()(SKEWED), answer)


def test_a_state_of_before_zeros_loads(make_chip):
    chip = make_chip()
    model, _ = to_crossbar(nn.Sequential(nn.Linear(20, 7)), chip, example=ROWS)
    calibrate(model, [ROWS])
    state = {key: value for key, value in model.state_dict().items() if not key.endswith("input_zero")}
    other, _ = to_crossbar(nn.Sequential(nn.Linear(20, 7)), chip, example=ROWS)
    other.load_state_dict(state)
    assert torch.equal(other(ROWS), model(ROWS))


def test_other_integers_need_calibration_again(make_chip):
    model, _ = to_crossbar(nn.Sequential(nn.Linear(20, 7)), chip_of(make_chip), example=ROWS)
    calibrate(model, [ROWS])
    set_chip(model, chip_of(make_chip, inputs={"zero_point": False}))
    with pytest.raises(ConversionError, match="input range unknown"):
        model(ROWS)


def test_gradients_pass_where_nothing_clips(make_chip):
    model, layer, _, x = build(make_chip, "conv")
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    scale, zero = float(layer.ranges.input_scale), layer.input_zero
    inside = ((x.detach() / scale) >= -zero - 0.5) & ((x.detach() / scale) <= 63 - zero + 0.5)
    assert bool((x.grad[~inside] == 0).all())
    assert bool((x.grad[inside] != 0).float().mean() > 0.9)


def test_a_surrogate_is_measured_with_the_zero(make_chip):
    from bitline.surrogate import attach, measure

    chip = chip_of(make_chip, adc={"policy": "calibrated", "bits": 5})
    model, _ = to_crossbar(nn.Sequential(copy.deepcopy(LAYERS["conv"][0])), chip, example=SKEWED)
    calibrate(model, [SKEWED])
    with torch.no_grad():
        exact = model(SKEWED)
        attach(model, measure(model, [SKEWED.repeat(12, 1, 1, 1)]))
        with in_mode("surrogate", *crossbar_layers(model).values()):
            near = model(SKEWED)
    assert float((near - exact).mean().abs()) < 0.1 * float(exact.std())


def test_an_integer_network_refuses_zero_points(make_chip):
    from bitline.integer.network import integer_network

    powers = {"scale": "power_of_two"}
    chip = chip_of(make_chip, inputs=powers, weights={**powers, "bias_bits": 8})
    model, _ = to_crossbar(nn.Sequential(copy.deepcopy(LAYERS["linear"][0])), chip, example=ROWS)
    calibrate(model, [ROWS])
    with pytest.raises(ConversionError, match=r"set inputs\.zero_point to false"):
        integer_network(model, ROWS)
