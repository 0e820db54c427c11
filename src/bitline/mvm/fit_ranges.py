"""ADC ranges from the sums that a sample of input vectors makes."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from bitline.chip.adc import Adc
from bitline.mapping.part import Part
from bitline.mvm import adc as ranges
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.sum_histogram import SumHistogram, Sums
from bitline.mvm.torch_fast import crossbar_mvm, integer_product

COLUMNS = 64
"""of a layer whose sums are counted and whose results are compared, at least, where it has them"""
_PERCENTILES = (99.0, 99.5, 99.9, 99.99, 100.0)
_LOW_QUANTILES = (0.0, 0.001, 0.01, 0.05)
_HIGH_STEPS = 64
_HELD = 2**19
"""codes of ranges that are tried at once"""
_TABLE = 2**23
"""entries of the tables that errors are looked up in"""
_COLUMN_SUMS = 2**22
_FEWEST_BY_COLUMN = 16


@dataclass(frozen=True)
class Columns:
    """The columns of a layer whose results are compared, and all of them.

    Args:
        part: the former.
        cells: these columns with ideal cells, their leak included.
        exact: the same without leak.
        weights: of one result column of these against another, (groups, cols): the squares of their real scales.
        all_cells: gives all columns with ideal cells, their leak included.
        used: which stored columns of the layer there are, (groups, stored columns) bool; None: all.
    """

    part: Part
    cells: Crossbars
    exact: Crossbars
    weights: Tensor
    all_cells: Callable[[], Crossbars]
    used: Tensor | None = None


def fit(histogram: SumHistogram, found: Sequence[Sums], adc: Adc, columns: Columns) -> AdcScale:
    """Choose the calibrated range of every ADC.

    `percentile` keeps that share of the sums within the range. `mse` tries several percentiles and the ranges of least
    squared error of single conversions, and keeps what gives the least squared error of the results of some columns on
    the sample: conversion errors of neighbouring digits, slices and row tiles go together, which no histogram shows.

    Args:
        histogram: of the sums of some columns.
        found: these sums.
        adc: bits, granularity and method.
        columns: of the layer.
    """
    search = search_of(histogram, adc, columns)
    if adc.calibration == "percentile":
        return search.percentile(adc.percentile)
    candidates = [search.least_error(), *map(search.percentile, _PERCENTILES)]
    errors = _squared_errors(histogram, found, [_narrowed(c, columns.part) for c in candidates], columns)
    kept = len(errors) - int(histogram.outliers * len(errors))
    total = errors.sort(0).values[:kept].sum(0).tolist()
    return candidates[total.index(min(total))]


def _squared_errors(
    histogram: SumHistogram, found: Sequence[Sums], scales: Sequence[AdcScale], columns: Columns
) -> Tensor:
    """Squared error of the results of each vector under each of some ranges, up to a factor, (vectors, ranges)."""
    entries = len(scales) * scales[0].lsb[:, 0, 0].numel() * histogram.by_digit.numel()
    if columns.cells.integral and histogram.width == 1 and entries <= _TABLE:
        error = histogram.errors(found, histogram.vectors.shape[1], scales)
    else:
        rows = histogram.vectors[:, :, columns.part.groups]
        wanted = integer_product(rows, columns.exact)
        errors = [(crossbar_mvm(rows, columns.cells, scale) - wanted)[0].transpose(0, 1) for scale in scales]
        error = torch.stack(errors, -1).cpu()
    return (error.square() * columns.weights.cpu()[:, None, :, None]).sum((0, 2))


def _narrowed(scale: AdcScale, part: Part) -> AdcScale:
    """The ranges of some columns."""

    def taken(x: Tensor) -> Tensor:
        x = x[part.groups] if len(x) > 1 else x
        return x[..., part.stored] if x.shape[3] > 1 else x

    return replace(scale, lsb=taken(scale.lsb), offset=taken(scale.offset))


def search_of(histogram: SumHistogram, adc: Adc, columns: Columns) -> "RangeSearch":
    """The search for ranges, with the counts of sums that decide on them."""
    if adc.granularity != "column":
        axes = {"layer": (0, 1), "slice": (0,)}.get(adc.granularity, ())
        return RangeSearch(histogram.product, adc, histogram.values, histogram.by_digit, histogram.importance, axes)
    cells = columns.all_cells()
    whole = SumHistogram(cells.product, columns.used)
    count = max(_FEWEST_BY_COLUMN, _COLUMN_SUMS // max(1, cells.product.placement.conversions_per_vector))
    step = max(1, histogram.vectors.shape[1] // count)
    plain, weighted = whole.by_column(whole.sums(histogram.vectors[:, ::step], cells))
    return RangeSearch(cells.product, adc, whole.values, plain, torch.ones(()), (), weighted)


@dataclass(frozen=True)
class RangeSearch:
    """Finds ranges from counts of sums.

    Args:
        product: the layer.
        adc: its converters.
        values: sum that each bin stands for, (bins,).
        counts: of sums, (n, m, bins).
        importance: of errors of each n and m.
        axes: of n and m that share a range.
        weighted: counts for squared errors, where not `counts`.
    """

    product: Product
    adc: Adc
    values: Tensor
    counts: Tensor
    importance: Tensor
    axes: tuple[int, ...] = ()
    weighted: Tensor | None = None

    @property
    def _pooled(self) -> Tensor:
        return self.counts.sum(self.axes, keepdim=True) if self.axes else self.counts

    def percentile(self, percent: float) -> AdcScale:
        """Ranges that keep a percentile of the sums."""
        tail, pooled = 1 - percent / 100, self._pooled
        return self._scale(self._quantile(pooled, tail), self._quantile(pooled, 1 - tail))

    def least_error(self) -> AdcScale:
        """Ranges of least squared error of single conversions.

        Over the row tiles of a result the scatter of conversion errors adds up in power, but their mean adds up as it
        is: with T row tiles an ADC's share is E[e^2] + (T - 1) E[e]^2. Where digits and slices share a range, each
        counts by the square of what it weighs.
        """
        pooled = self._pooled
        top, bottom = self._quantile(pooled, 1.0), self._quantile(pooled, 0.0)
        if self.product.subtracts:
            top, lows = torch.maximum(top, -bottom), [torch.zeros_like(top)]
        else:
            lows = [self._quantile(pooled, q) for q in _LOW_QUANTILES]
        best = torch.full_like(top, math.inf)
        low, high = lows[0].clone(), top.clone()
        steps = torch.arange(1, _HIGH_STEPS + 1, dtype=torch.float64).view(-1, 1, 1) / _HIGH_STEPS
        moments = _Moments(self.counts if self.weighted is None else self.weighted, self.values)
        for candidate_low in lows:
            highs = candidate_low + (top - candidate_low) * steps
            error, at = self._errors(moments, candidate_low, highs).min(0)
            better = error < best
            best = torch.where(better, error, best)
            low = torch.where(better, candidate_low, low)
            high = torch.where(better, highs.gather(0, at[None])[0], high)
        return self._scale(low, high)

    def _errors(self, moments: "_Moments", low: Tensor, highs: Tensor) -> Tensor:
        """Error power of a row tile's conversions, its part in common with the other row tiles counted T-fold."""
        least, most = ranges.code_range(self.adc, self.product)
        codes = min(most, len(self.values) * moments.width + 1) - max(least, -len(self.values) * moments.width - 1)
        run = max(1, _HELD // (moments.zeroth[..., 0].numel() * max(1, codes)))
        found: list[Tensor] = []
        for some in highs.split(run):
            scale = ranges.from_range(low.expand(some.shape), some, self.product, self.adc)
            power, mean = moments.errors(scale)
            error = self.importance * (power + (self.product.placement.row_tiles - 1) * mean.square())
            found.append(error.sum([axis + 1 for axis in self.axes], keepdim=True) if self.axes else error)
        return torch.cat(found)

    def _scale(self, low: Tensor, high: Tensor) -> AdcScale:
        shape = ranges.shape(self.adc.granularity, self.product)
        return ranges.from_range(low.view(shape), high.view(shape), self.product, self.adc)

    def _quantile(self, counts: Tensor, share: float) -> Tensor:
        """Least value that at least `share` of the last axis of counts does not exceed."""
        total = counts.sum(-1, keepdim=True)
        level = torch.clamp(share * total, min=torch.finfo(torch.float64).tiny)
        reached = counts.cumsum(-1) >= level * (1 - 1e-12)
        return self.values[reached.to(torch.int8).argmax(-1)]


class _Moments:
    """Sums over the bins below every bin, from which the error of a whole range follows code by code.

    Between the middles of two codes all values have one code. With total moments S0, S1, S2 of the values, the highest
    code c, steps of lsb, and for each middle b between codes the moments s0, s1 of the values below it,
    E[e^2] S0 = S2 - 2 c S1 + c^2 S0 + 2 lsb sum(s1 - b s0) and E[e] S0 = c S0 - S1 - lsb sum(s0).

    Args:
        counts: (n, m, bins).
        values: (bins,), evenly spaced.
    """

    def __init__(self, counts: Tensor, values: Tensor) -> None:
        self.first, self.bins = float(values[0]), len(values)
        self.width = int(values[1] - values[0]) if len(values) > 1 else 1
        self.zeroth = F.pad(counts.cumsum(-1), (1, 0))
        self.first_moment = F.pad((counts * values).cumsum(-1), (1, 0))
        self.second = (counts * values.square()).sum(-1)

    def errors(self, scale: AdcScale) -> tuple[Tensor, Tensor]:
        """Mean square and mean of the error under ranges, (tried, n or 1, m or 1); both (tried, n, m)."""
        assert scale.low is not None
        assert scale.high is not None
        # An LSB is at least one level, so that no code farther out than there are levels is used.
        span = self.bins * self.width + 1
        low, high = max(scale.low, -span), min(scale.high, span)
        lsb, offset = scale.lsb[..., None], scale.offset[..., None]
        middles = offset + lsb * (torch.arange(low, high, dtype=torch.float64) + 0.5)
        below = ((middles - self.first) / self.width).floor_().add_(1).clamp_(0, self.bins).long()
        shape = (len(lsb), *self.zeroth.shape)
        below = below.expand(*shape[:3], below.shape[3])
        s0, s1 = (x.expand(shape).gather(3, below) for x in (self.zeroth, self.first_moment))
        count, total = self.zeroth[..., -1], self.first_moment[..., -1]
        top = scale.offset + scale.lsb * high
        power = self.second - 2 * top * total + top.square() * count + 2 * scale.lsb * (s1 - middles * s0).sum(-1)
        mean = top * count - total - scale.lsb * s0.sum(-1)
        count = count.clamp(min=torch.finfo(torch.float64).tiny)
        return power / count, mean / count
