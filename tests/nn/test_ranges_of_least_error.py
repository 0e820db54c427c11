"""Sums are counted and ranges fitted to them; against each sum, and each range that may be tried."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitline.chip.adc import Adc
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.part import part
from bitline.mapping.place import dense
from bitline.mvm import adc
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.fit_ranges import Columns, fit, search_of
from bitline.mvm.product import Product
from bitline.mvm.sum_histogram import SumHistogram, Sums
from bitline.mvm.torch_fast import analog_sums, crossbar_mvm, integer_product


def product(make_chip, **sections: object) -> tuple[Product, Crossbars, Tensor]:
    chip = make_chip(crossbar={"rows": 16, "cols": 16}, **sections)
    placed = Product(dense(Matmul("it", "linear", 24, 5, signed=False), chip))
    generator = torch.Generator().manual_seed(0)
    q = torch.randint(-7, 8, (1, 24, 5), generator=generator)
    x = torch.randint(0, 16, (1, 400, 1, 24), generator=generator)
    return placed, Crossbars(placed, encode(q, placed.placement)), x


def counted(placed: Product, crossbars: Crossbars, x: Tensor) -> tuple[SumHistogram, list[Sums]]:
    histogram = SumHistogram(placed, vectors=x)
    found = list(histogram.sums(x, crossbars))
    histogram.count(found)
    return histogram, found


def all_columns(crossbars: Crossbars) -> Columns:
    placement = crossbars.product.placement
    equal = torch.ones(placement.matmul.groups, placement.matmul.cols)
    return Columns(part(placement), crossbars, crossbars, equal, lambda: crossbars)


@pytest.mark.parametrize("encoding", ["offset", "pair", {"kind": "pair", "subtract": "digital"}, "twos_complement"])
def test_a_histogram_of_sums_counts_every_conversion(make_chip, encoding):
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    histogram, found = counted(placed, crossbars, x)
    sums = list(analog_sums(x, crossbars))
    total = sum(a.numel() for a in sums)
    assert total == 400 * placed.placement.conversions_per_vector
    assert float(histogram.by_digit.sum()) == total
    everything = torch.stack(sums).double()
    mean = (histogram.by_digit * histogram.values).sum() / total
    assert float(mean) == pytest.approx(float(everything.mean()))
    # Digit 1, slice 0: its own row of the histogram.
    mine = everything[:, 0, 1, :, 0].flatten()
    counts = histogram.by_digit[1, 0]
    assert torch.equal((mine - histogram.least).long().bincount(minlength=len(counts)).double(), counts)
    plain, weighted = histogram.by_column(found)
    assert float(plain.sum()) == total
    third = everything[..., 2]
    assert torch.equal((third - histogram.least).long().flatten().bincount(minlength=len(counts)).double(), plain[0, 2])
    squares = (third.shape[-1] * 400 * len(sums) * histogram.importance).sum()
    assert float(weighted[0, 2].sum()) == pytest.approx(float(squares))


@settings(max_examples=30)
@given(
    st.integers(1, 8), st.sampled_from(["layer", "slice", "slice_digit", "column"]), st.sampled_from(["offset", "pair"])
)
def test_a_range_of_least_error_is_at_least_as_good_as_the_full_span_of_the_data(
    make_chip, bits, granularity, encoding
):
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    histogram, found = counted(placed, crossbars, x)

    def error(converter: Adc) -> float:
        scale = fit(histogram, found, converter, all_columns(crossbars))
        return float((crossbar_mvm(x, crossbars, scale) - integer_product(x, crossbars)).square().sum())

    converter = Adc(bits=bits, granularity=granularity, columns_per_adc=1)
    best = error(converter)
    span = error(converter.model_copy(update={"calibration": "percentile", "percentile": 100.0}))
    assert best <= span * (1.0 + 1e-5)
    if bits == 8:
        assert best == 0


@pytest.mark.parametrize("granularity", ["layer", "slice", "slice_digit", "column"])
@pytest.mark.parametrize(
    "weights",
    [
        {"encoding": "offset"},
        {"encoding": {"kind": "offset", "sum": "column"}},
        {"encoding": "pair"},
        {"encoding": {"kind": "pair", "subtract": "digital"}},
        {"encoding": "twos_complement"},
    ],
)
def test_errors_looked_up_are_those_of_the_product(make_chip, granularity, weights):
    placed, crossbars, x = product(make_chip, weights=weights)
    histogram, found = counted(placed, crossbars, x)
    generator = torch.Generator().manual_seed(1)
    scales: list[adc.AdcScale] = []
    for bits in (2, 4):
        converter = Adc(bits=bits, granularity=granularity, columns_per_adc=1)
        size = adc.shape(granularity, placed)
        high = placed.max_sum * (0.3 + 0.7 * torch.rand(size, generator=generator))
        scales.append(adc.from_range(0.1 * high, high, placed, converter))
    looked_up = histogram.errors(found, 400, scales)
    highest = float(histogram.weights.abs().max())
    for number, scale in enumerate(scales):
        real = (crossbar_mvm(x, crossbars, scale) - integer_product(x, crossbars))[0].transpose(0, 1) / highest
        assert float(real.abs().max()) > 1
        assert torch.allclose(looked_up[..., number], real, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("encoding", ["offset", "pair"])
@pytest.mark.parametrize("granularity", ["layer", "slice_digit", "column"])
def test_ranges_of_least_error_are_the_best_of_all_that_are_tried(make_chip, encoding, granularity):
    """Against the error of each range tried, one sum after the other."""
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    x = x[:, :40]
    histogram, _ = counted(placed, crossbars, x)
    everything = torch.stack(list(analog_sums(x, crossbars))).double()[:, :, :, :, :, 0]  # of one side
    converter = Adc(bits=3, granularity=granularity, columns_per_adc=1)
    search = search_of(histogram, converter, all_columns(crossbars))
    chosen = search.least_error()

    def loss(scale: adc.AdcScale) -> Tensor:
        """Of every range, shaped as these."""
        lsb, offset = (t[:, :, None, :, :] for t in (scale.lsb, scale.offset))
        code = ((everything - offset) / lsb).round().clamp(scale.low, scale.high)
        error = code * lsb + offset - everything  # (tiles, groups, digits, vectors, slices, columns)
        tiles, importance = len(error), histogram.importance
        if granularity == "column":
            share = (importance / importance.sum())[:, None, :, None]
            power, mean = ((t.mean((0, 3), keepdim=True)[0] * share).sum((1, 2, 3)) for t in (error.square(), error))
            return (power + (tiles - 1) * mean.square())[:, None, None]
        power, mean = (t.mean((0, 1, 3, 5)) for t in (error.square(), error))
        loss = (importance * (power + (tiles - 1) * mean.square()))[None, :, :, None]
        return loss.sum().view(1, 1, 1, 1) if granularity == "layer" else loss

    best = loss(chosen)
    for low in (0.0, 1.0) if encoding == "offset" else (0.0,):
        for high in torch.linspace(0.1, 1.0, 30) * everything.max():
            size = adc.shape(granularity, placed)
            tried = adc.from_range(torch.full(size, low), torch.full(size, float(high)), placed, converter)
            assert bool((best <= 1.1 * loss(tried) + 1e-9).all())


def test_outliers_have_no_say_in_the_range_of_a_layer_where_told_so(make_chip):
    placed, crossbars, _ = product(make_chip, inputs={"bits": 8})
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 8, (1, 100, *crossbars.levels.shape[:1], placed.placement.matmul.rows), generator=generator)
    x[:, -1] = 255  # of 100 vectors, one with every wordline on
    histogram, found = counted(placed, crossbars, x)
    converter = Adc(bits=3, granularity="layer", columns_per_adc=1)

    def error(outliers: float) -> float:
        histogram.outliers = outliers
        scale = fit(histogram, found, converter, all_columns(crossbars))
        others = x[:, :-1]
        return float((crossbar_mvm(others, crossbars, scale) - integer_product(others, crossbars)).square().sum())

    assert error(0.01) < 0.5 * error(0.0)


@pytest.mark.parametrize("encoding", ["offset", "pair"])
def test_a_percentile_leaves_that_share_outside(make_chip, encoding):
    placed, crossbars, x = product(make_chip, weights={"encoding": encoding})
    histogram, found = counted(placed, crossbars, x)
    sums = torch.stack(list(analog_sums(x, crossbars))).double()
    scale = fit(
        histogram,
        found,
        Adc(bits=8, granularity="layer", calibration="percentile", percentile=95.0, columns_per_adc=1),
        all_columns(crossbars),
    )
    top = float(scale.offset + scale.high * scale.lsb)
    assert float((sums > top).double().mean()) <= 0.05
    assert scale.lsb.shape == (1, 1, 1, 1)


def test_where_digits_share_a_range_each_counts_by_what_it_weighs(make_chip):
    placed, crossbars, x = product(make_chip, inputs={"bits": 8}, dac={"bits": 2})
    x = torch.where(torch.arange(24) % 4 == 0, x * 16, x % 4)  # sums of high digits are far from those of low ones
    histogram, _ = counted(placed, crossbars, x)
    sums = torch.stack(list(analog_sums(x, crossbars))).double()
    weight = torch.tensor(placed.digit_weights)[:, None, None, None, None].double()
    weight = weight * torch.tensor(placed.slice_weights)[None, None, :, None, None]

    def error(scale) -> float:
        code = ((sums - scale.offset.item()) / scale.lsb.item()).round().clamp(scale.low, scale.high)
        return float(((code * scale.lsb.item() + scale.offset.item() - sums) * weight).square().sum())

    converter = Adc(bits=3, granularity="layer", columns_per_adc=1)
    chosen = search_of(histogram, converter, all_columns(crossbars)).least_error()
    candidates = [
        adc.from_range(
            torch.tensor(low).view(1, 1, 1, 1),
            torch.tensor(float(high)).view(1, 1, 1, 1),
            placed,
            Adc(bits=3, columns_per_adc=1),
        )
        for low in (0.0, 1.0)
        for high in range(8, placed.max_sum + 1)
    ]
    assert error(chosen) <= 1.1 * min(map(error, candidates))
