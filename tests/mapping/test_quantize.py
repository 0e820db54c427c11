import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip.formats import Weights
from bitline.errors import MappingError
from bitline.mapping.histogram import RangeHistogram
from bitline.mapping.quantize import (
    InputFormat,
    digit_weights,
    digits,
    quantize,
    round_bias,
    snap,
    weight_limits,
    weight_scale,
)

ENCODINGS = ("offset", "pair", "twos_complement")


def test_halves_go_to_the_even_neighbour():
    x = torch.tensor([-2.5, -1.5, -0.5, 0.5, 1.5, 2.5, 3.5])
    assert quantize(x, 1.0, -9, 9).tolist() == [-2, -2, 0, 0, 2, 2, 4]
    assert quantize(x * 3, 3.0, -9, 9).tolist() == [-2, -2, 0, 0, 2, 2, 4]


def test_integers_out_of_range_are_clipped_and_the_input_is_left_alone():
    x = torch.tensor([-300.0, 0.0, 300.0])
    assert quantize(x, 1.0, -128, 127).tolist() == [-128, 0, 127]
    assert x.tolist() == [-300.0, 0.0, 300.0]


@given(
    st.sampled_from(ENCODINGS),
    st.integers(2, 16),
    st.sampled_from(["tensor", "channel"]),
    st.sampled_from(["any", "power_of_two"]),
    st.sampled_from([torch.float32, torch.float64]),
    st.integers(-30, 30),
    st.integers(0, 2**32),
)
def test_no_weight_clips_and_the_largest_uses_the_range(encoding, bits, granularity, kind, dtype, exponent, seed):
    weights = Weights.model_validate({"bits": bits, "encoding": encoding, "granularity": granularity, "scale": kind})
    w = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(seed), dtype=dtype) * 2.0**exponent
    scale = weight_scale(w, weights)
    low, high = weight_limits(weights)
    q = (w / scale).round()
    assert scale.shape == ((2, 1, 3) if granularity == "channel" else (1, 1, 1))
    assert int(q.min()) >= low
    assert int(q.max()) <= high
    # At the smallest scale some weight reaches an end; a power of two may be up to twice that.
    axes = (1,) if granularity == "channel" else (0, 1, 2)
    reached = torch.maximum((w / scale).amax(axes) / high, (w / scale).amin(axes) / low)
    assert float(reached.min()) > (0.999 if kind == "any" else 0.4999)
    if kind == "power_of_two":
        assert bool((torch.frexp(scale).mantissa == 0.5).all())


@given(st.floats(1e-30, 1e30) | st.integers(-90, 90).map(lambda e: 2.0**e * (1 + 2**-23)))
def test_a_power_of_two_is_exact_and_never_below(scale):
    for dtype in (torch.float32, torch.float64):
        given = torch.tensor(scale, dtype=dtype)
        snapped = snap(given, "power_of_two")
        assert snapped.dtype == dtype
        assert math.frexp(float(snapped))[0] == 0.5
        assert float(given) <= float(snapped) < 2 * float(given)


@pytest.mark.parametrize("exponent", range(-100, 101, 7))
def test_a_power_of_two_stays_itself(exponent):
    scale = torch.tensor(2.0**exponent)
    assert torch.equal(snap(scale, "power_of_two"), scale)


def test_weights_that_are_all_zero_have_a_scale_of_one():
    w = torch.zeros(1, 4, 2)
    w[0, 0, 0] = 3.0
    assert weight_scale(w, Weights()).flatten().tolist() == [pytest.approx(3 / 127), 1.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused_and_counted(bad):
    w = torch.zeros(1, 4, 2)
    w[0, :3, 1] = bad
    with pytest.raises(MappingError, match=r"^layer fc: 3 of 8 weights are NaN or infinite$"):
        weight_scale(w, Weights(), name="fc")


def test_weights_on_the_wrong_side_of_the_zero_point_are_refused():
    weights = Weights.model_validate({"bits": 4, "encoding": {"kind": "offset", "zero_point": 0}})
    assert weight_scale(torch.tensor([[[1.5], [0.0]]]), weights).item() == pytest.approx(0.1)
    with pytest.raises(MappingError, match=r"^layer fc: zero_point = 0 holds \[0, 15\]; weights span \[-0.5, 1.5\]$"):
        weight_scale(torch.tensor([[[1.5], [-0.5]]]), weights, name="fc")
    above = Weights.model_validate({"bits": 4, "encoding": {"kind": "offset", "zero_point": 15}})
    with pytest.raises(MappingError, match=r"^layer fc: zero_point = 15 holds \[-15, 0\]; weights span \[-0.5, 1.5\]$"):
        weight_scale(torch.tensor([[[1.5], [-0.5]]]), above, name="fc")


@given(st.integers(1, 16), st.booleans(), st.integers(1, 8), st.integers(0, 2**32))
def test_digits_times_what_they_weigh_are_the_integers(bits, signed, width, seed):
    form = InputFormat(bits, signed)
    low, high = form.limits
    x = torch.randint(low, high + 1, (3, 7), generator=torch.Generator().manual_seed(seed))
    x[0, 0], x[0, 1] = low, high
    planes = digits(x, form, width)
    weights = digit_weights(form, width)
    assert planes.shape == (len(weights), 3, 7)
    assert int(planes.min()) >= 0
    assert int(planes.max()) < 2**width
    assert torch.equal(sum(p.long() * w for p, w in zip(planes, weights, strict=True)), x)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64])
def test_digits_do_not_depend_on_the_integer_type(dtype):
    x = torch.arange(128, dtype=dtype)
    assert torch.equal(digits(x, InputFormat(8, False), 3), digits(x.int(), InputFormat(8, False), 3))


def test_a_signed_digit_comes_last_and_weighs_negative():
    assert digit_weights(InputFormat(8, True), 3) == (1, 8, 64, -128)
    assert digits(torch.tensor([-128]), InputFormat(8, True), 3).flatten().tolist() == [0, 0, 0, 1]


@given(st.lists(st.integers(-140, 120), min_size=1, max_size=4), st.integers(0, 2**32))
def test_a_histogram_counts_every_value_in_its_bin_however_its_range_grows(exponents, seed):
    generator = torch.Generator().manual_seed(seed)
    batches = [torch.rand(50, generator=generator).ldexp(torch.tensor(e)) for e in exponents]
    histogram = RangeHistogram()
    for batch in batches:
        histogram.add(batch)
    values = [abs(value) for batch in batches for value in batch.tolist()]
    # The least power of two above all, cut into equal bins; exact fractions decide.
    top = Fraction(2) ** math.frexp(max(values))[1]
    expected = torch.zeros(histogram.BINS, dtype=torch.float64)
    for value in values:
        expected[int(Fraction(value) * histogram.BINS / top)] += 1
    assert histogram.peak == max(values)
    assert torch.equal(histogram.counts, expected)


@given(st.integers(0, 2**32), st.integers(1, 7), st.sampled_from(["mse", "percentile", "max"]))
def test_the_order_and_the_cut_of_numbers_change_no_bit_of_their_scale(seed, size, method):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, generator=generator).relu() * torch.rand(200, generator=generator).square()
    x[:50] = 0
    scales = []
    for order in (x, x.flip(0), x[torch.randperm(200, generator=generator)]):
        for cut in (200, size, 1):
            histogram = RangeHistogram()
            for batch in order.split(cut):
                histogram.add(batch)
            scales.append(histogram.scale(5, method, 95.0, "any"))
    assert len(set(scales)) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_zeros_count_wherever_they_come(order):
    torch.manual_seed(0)
    x = torch.relu(torch.randn(2048, 64)) * torch.rand(2048, 1)
    histogram = RangeHistogram()
    for batch in [torch.zeros_like(x), x][::order]:
        histogram.add(batch)
    expected = np.percentile(np.concatenate([np.zeros(x.numel()), x.flatten().numpy()]), 95)
    assert int(histogram.counts.sum()) == 2 * x.numel()
    assert histogram.scale(4, "percentile", 95.0, "any") * 15 == pytest.approx(expected, abs=2 * histogram.width)


def test_an_empty_batch_changes_nothing():
    histogram = RangeHistogram()
    histogram.add(torch.rand(10))
    before = histogram.counts.clone()
    histogram.add(torch.empty(0, 3))
    assert torch.equal(histogram.counts, before)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_activations_that_are_no_numbers_are_refused(bad):
    with pytest.raises(MappingError, match=r"^activations are NaN or infinite$"):
        RangeHistogram().add(torch.tensor([0.5, bad]))


@given(st.integers(2, 10), st.booleans(), st.integers(0, 2**32))
def test_the_scale_of_least_error_is_no_worse_than_the_others(bits, signed, seed):
    x = torch.randn(4000, generator=torch.Generator().manual_seed(seed)) ** 3
    x = x if signed else x.abs()
    histogram = RangeHistogram()
    histogram.add(x)
    low, high = InputFormat(bits, signed).limits

    def error(method: str) -> float:
        scale = histogram.scale(bits, method, 99.9, "any")
        return float((quantize(x, scale, low, high) * scale - x).square().mean())

    assert error("mse") <= 1.05 * min(error("max"), error("percentile"))


def test_the_range_of_a_percentile_holds_that_share():
    histogram = RangeHistogram()
    x = torch.rand(100_000, generator=torch.Generator().manual_seed(0))
    histogram.add(x)
    scale = histogram.scale(8, "percentile", 90.0, "any")
    assert float((x > 255 * scale).float().mean()) == pytest.approx(0.1, abs=0.002)


def test_the_range_of_the_maximum_clips_nothing():
    histogram = RangeHistogram()
    for x in (torch.tensor([0.3, 1.7]), torch.tensor([-5.2])):
        histogram.add(x)
    assert histogram.negative
    assert histogram.scale(8, "max", 99.0, "any") == float(torch.tensor(5.2)) / 127


def test_a_power_of_two_input_scale_is_one():
    histogram = RangeHistogram()
    histogram.add(torch.rand(1000))
    assert math.frexp(histogram.scale(8, "mse", 99.9, "power_of_two"))[0] == 0.5


@given(st.floats(1e-30, 1e30) | st.integers(-90, 90).map(lambda e: 2.0**e * math.sqrt(2)))
def test_the_nearest_power_of_two_is_within_half_an_octave(scale):
    for dtype in (torch.float32, torch.float64):
        given = torch.tensor(scale, dtype=dtype)
        snapped = snap(given, "power_of_two", "nearest")
        assert math.frexp(float(snapped))[0] == 0.5
        assert abs(math.log2(float(snapped)) - math.log2(float(given))) <= 0.5 + 1e-12
        assert torch.equal(snap(snapped, "power_of_two", "nearest"), snapped)


@given(st.integers(2, 24), st.integers(-20, 20), st.integers(0, 2**32))
def test_a_bias_is_a_whole_number_of_its_accumulators_units_and_as_near_as_its_bits_allow(bits, exponent, seed):
    generator = torch.Generator().manual_seed(seed)
    bias = torch.randn(7, generator=generator, dtype=torch.float64) * 2.0**exponent
    units = 2.0 ** torch.randint(-20, 20, (7,), generator=generator)
    units[0] = 0  # nothing but the bias is added there
    rounded = round_bias(bias, units, bits)
    top = 2 ** (bits - 1) - 1
    assert int(rounded.integers.abs().max()) <= top
    step = 2.0 ** rounded.exponents.double()
    assert bool((step >= units).all())
    assert bool(((rounded.value - bias).abs() <= step / 2).all())
    # The step is the accumulator's, or half of it would not hold the largest bias.
    half_clips = round(float(bias.abs().max()) / float(step.min()) * 2) > top
    assert torch.equal(step, units) or half_clips
