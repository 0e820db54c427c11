"""ADC ranges from the distribution of partial sums."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from bitline import seeds
from bitline.chip.adc import Adc
from bitline.mvm import adc as ranges
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import analog_sums, crossbar_mvm, integer_product

_MOST_BINS = 2**14
_COUNTED_SUMS = 2**24
_SAMPLED_SUMS = 2**25
_PERCENTILES = (99.0, 99.5, 99.9, 99.99, 100.0)
_LOW_QUANTILES = (0.0, 0.001, 0.01, 0.05)
_HIGH_STEPS = 64


@dataclass
class SumHistogram:
    """How often each analog sum of ideal cells occurs in one layer.

    Args:
        product: the layer.
        used: which stored columns there are, (groups, stored columns) bool; None: all.
        by_digit: counts, float64, (digits, slices, bins).
        by_column: counts, float64, (groups, stored columns, bins).
        by_column_weighted: the same with each sum counted by the square of what its digit and slice weigh.
        outliers: share of the sample, rounded down, that has no say in `fit` by squared error: those vectors on which
            a candidate range errs most.
        sample: some input vectors, integers, each (1, vectors, groups, rows); what they make is compared exactly.
    """

    product: Product
    used: Tensor | None = None
    outliers: float = 0.0
    by_digit: Tensor = field(init=False)
    by_column: Tensor = field(init=False)
    by_column_weighted: Tensor = field(init=False)
    sample: list[Tensor] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        p = self.product
        most = math.ceil(ranges.largest_sum(p))
        self.least = -most if p.subtracts else 0
        self.width = max(1, math.ceil((most - self.least + 1) / _MOST_BINS))
        bins = (most - self.least) // self.width + 1
        self.by_digit = torch.zeros(len(p.digit_weights), len(p.slice_weights), bins, dtype=torch.float64)
        columns = (p.placement.matmul.groups, p.placement.stored_columns)
        self.by_column = torch.zeros(*columns, bins, dtype=torch.float64)
        self.by_column_weighted = torch.zeros_like(self.by_column)

    @property
    def values(self) -> Tensor:
        """Sum that each bin stands for, level units, (bins,)."""
        centre = self.least + (self.width - 1) / 2
        return torch.arange(self.by_digit.shape[-1], dtype=torch.float64) * self.width + centre

    def add(self, a: Tensor, tile: int | None = None) -> None:
        """Count sums, (groups, digits, vectors, slices, sides, stored columns), of one row tile.

        Args:
            a: the sums.
            tile: whose crossbars these are; None: all are built.
        """
        index = ((a - self.least + 0.5) / self.width).floor().to(torch.int64).cpu()
        importance = self._importance[None, :, None, :, None, None].expand(index.shape).flatten()
        there = None if tile is None or self.product.built is None else self._of_all(self.product.built[tile], index)
        used = there if self.used is None else self._of_all(self.used, index)
        self._count(self.by_digit, index, (1, 3), used)
        self._count(self.by_column, index, (0, 5), there)
        self._count(self.by_column_weighted, index, (0, 5), importance if there is None else importance * there)

    def _of_all(self, columns: Tensor, index: Tensor) -> Tensor:
        """Spread what holds of (groups, stored columns) over all sums, as numbers."""
        return columns.cpu()[:, None, None, None, None, :].expand(index.shape).flatten().double()

    def count(self, rows: Tensor, crossbars: Crossbars, share: float) -> None:
        """Count the sums of some of these input vectors, evenly spread over them.

        Args:
            rows: integers, (images, positions, groups, rows).
            crossbars: the layer with ideal cells, its leak included.
            share: of all that is to be counted.
        """
        vectors = rows.reshape(1, -1, *rows.shape[2:])
        placement = self.product.placement
        most = max(1, round(_COUNTED_SUMS / max(1, placement.conversions_per_vector) * share))
        step = max(1, vectors.shape[1] // most)
        # A stride that shares no factor with the positions visits all of them.
        while step > 1 and math.gcd(step, rows.shape[1]) > 1:
            step -= 1
        self.keep(vectors, share)
        for number, a in enumerate(analog_sums(vectors[:, ::step], crossbars)):
            self.add(a, number % placement.row_tiles)

    def keep(self, vectors: Tensor, share: float) -> None:
        """Keep some integer input vectors, (1, vectors, groups, rows), which are a share of all there will be."""
        most = min(512, max(16, _SAMPLED_SUMS // max(1, self.product.placement.conversions_per_vector)))
        room = min(most - sum(kept.shape[1] for kept in self.sample), math.ceil(most * share))
        if room > 0:
            picked = torch.randperm(vectors.shape[1], generator=seeds.generator("sample", len(self.sample)))[:room]
            self.sample.append(vectors[:, picked.to(vectors.device)])

    def _count(self, counts: Tensor, index: Tensor, axes: tuple[int, int], weights: Tensor | None) -> None:
        """Add to `counts`, (n, m, bins), where n and m are the lengths of two axes of `index`."""
        first, second, bins = counts.shape
        shape = [1] * 6
        shape[axes[0]], shape[axes[1]] = first, second
        base = (torch.arange(first * second) * bins).view(shape)
        counts += torch.bincount((index + base).flatten(), weights, minlength=counts.numel()).view_as(counts)

    @property
    def _importance(self) -> Tensor:
        """Square of what each digit and slice weighs, over the largest, (digits, slices)."""
        digit = torch.tensor(self.product.digit_weights, dtype=torch.float64)[:, None]
        squares = (digit * torch.tensor(self.product.slice_weights, dtype=torch.float64)).square()
        return squares / squares.max()

    def fit(self, adc: Adc, crossbars: Crossbars, exact: Crossbars, weights: Tensor) -> AdcScale:
        """Choose the calibrated range of every ADC.

        `percentile` keeps that share of the sums within the range. `mse` tries several percentiles and the ranges of
        least squared error of single conversions, and keeps what gives the least squared error of the layer's results
        on the sample: conversion errors of neighbouring digits, slices and row tiles go together, which no histogram
        shows.

        Args:
            adc: bits, granularity and method.
            crossbars: the layer with ideal cells, its leak included.
            exact: the layer with ideal cells and without leak.
            weights: of one result column against another, (groups, cols): the squares of their real scales.
        """
        if adc.calibration == "percentile":
            return self.candidate(adc, adc.percentile)
        candidates = [self.candidate(adc, None), *(self.candidate(adc, share) for share in _PERCENTILES)]
        kept = sum(x.shape[1] for x in self.sample)
        kept -= int(self.outliers * kept)
        errors = [
            float(self._result_errors(candidate, crossbars, exact, weights).sort().values[:kept].sum())
            for candidate in candidates
        ]
        return candidates[errors.index(min(errors))]

    def _result_errors(self, scale: AdcScale, crossbars: Crossbars, exact: Crossbars, weights: Tensor) -> Tensor:
        """Squared error of the layer's results on each vector of the sample."""
        rows = torch.cat(self.sample, dim=1).to(crossbars.levels.device)
        scale = replace(scale, lsb=scale.lsb.to(rows.device), offset=scale.offset.to(rows.device))
        error = crossbar_mvm(rows, crossbars, scale) - integer_product(rows, exact)
        return (error.square() * weights.to(rows.device)).sum((0, 2, 3))

    def candidate(self, adc: Adc, percentile: float | None = None) -> AdcScale:
        """Ranges that keep a percentile of the sums or, without one, of least squared error of single conversions.

        Over the row tiles of a result the scatter of conversion errors adds up in power, but their mean adds up as it
        is: with T row tiles an ADC's share is E[e^2] + (T - 1) E[e]^2. Where digits and slices share a range, each
        counts by the square of what it weighs.
        """
        axes = {"layer": (0, 1), "slice": (0,)}.get(adc.granularity, ())
        column = adc.granularity == "column"
        counts = self.by_column if column else self.by_digit
        pooled = counts.sum(axes, keepdim=True) if axes else counts
        if percentile is not None:
            tail = 1 - percentile / 100
            low, high = self._quantile(pooled, tail), self._quantile(pooled, 1 - tail)
        elif column:
            low, high = self._least_error(self.by_column_weighted, torch.ones(()), pooled, (), adc)
        else:
            low, high = self._least_error(counts, self._importance, pooled, axes, adc)
        shape = ranges.shape(adc.granularity, self.product)
        return ranges.from_range(low.view(shape), high.view(shape), self.product, adc)

    def _quantile(self, counts: Tensor, share: float) -> Tensor:
        """Least value that at least `share` of the last axis of counts does not exceed."""
        total = counts.sum(-1, keepdim=True)
        level = torch.clamp(share * total, min=torch.finfo(torch.float64).tiny)
        reached = counts.cumsum(-1) >= level * (1 - 1e-12)
        return self.values[reached.to(torch.int8).argmax(-1)]

    def _least_error(
        self, counts: Tensor, importance: Tensor, pooled: Tensor, axes: tuple[int, ...], adc: Adc
    ) -> tuple[Tensor, Tensor]:
        """Try ranges between the quantiles of `pooled`, (n or 1, m or 1, bins), on `counts`, (n, m, bins)."""
        share = counts / counts.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float64).tiny)
        top, bottom = self._quantile(pooled, 1.0), self._quantile(pooled, 0.0)
        if self.product.subtracts:
            top, lows = torch.maximum(top, -bottom), [torch.zeros_like(top)]
        else:
            lows = [self._quantile(pooled, q) for q in _LOW_QUANTILES]
        best = torch.full_like(top, math.inf)
        low, high = lows[0].clone(), top.clone()
        for candidate_low in lows:
            for step in range(1, _HIGH_STEPS + 1):
                candidate_high = candidate_low + (top - candidate_low) * (step / _HIGH_STEPS)
                error = importance * self._error(share, candidate_low, candidate_high, adc)
                error = error.sum(axes, keepdim=True) if axes else error
                better = error < best
                best = torch.where(better, error, best)
                low, high = torch.where(better, candidate_low, low), torch.where(better, candidate_high, high)
        return low, high

    def _error(self, share: Tensor, low: Tensor, high: Tensor, adc: Adc) -> Tensor:
        """Error power of a row tile's conversions, its part in common with the other row tiles counted T-fold."""
        scale = ranges.from_range(low[..., None], high[..., None], self.product, adc)
        error = scale.convert(self.values).mul_(scale.lsb).add_(scale.offset).sub_(self.values)
        mean = (error * share).sum(-1)
        power = (error.square() * share).sum(-1)
        return power + (self.product.placement.row_tiles - 1) * mean.square()


def minmax(batch: Iterable[Tensor], crossbars: Crossbars, used: Tensor | None = None) -> AdcScale:
    """Range of the batch at hand: only to compare with tools that do this.

    Args:
        batch: its input vectors, integers, each (images, positions, groups, rows).
        crossbars: the programmed layer.
        used: which stored columns there are, (groups, stored columns) bool; None: all.
    """
    product = crossbars.product
    shape = ranges.shape(product.placement.chip.adc.granularity, product)
    device = crossbars.levels.device
    low, high = torch.full(shape, math.inf, device=device), torch.full(shape, -math.inf, device=device)
    axes = [2, 4, *(axis for axis, size in zip((0, 1, 3, 5), shape, strict=True) if size == 1)]
    for rows in batch:
        for number, a in enumerate(analog_sums(rows, crossbars)):
            there = used if product.built is None else product.built[number % product.placement.row_tiles]
            if there is None:
                least, most = a, a
            else:
                gone = ~there.to(device)[:, None, None, None, None]
                least, most = a.masked_fill(gone, math.inf), a.masked_fill(gone, -math.inf)
            low = torch.minimum(low, least.amin(axes, keepdim=True)[:, :, 0, :, 0])
            high = torch.maximum(high, most.amax(axes, keepdim=True)[:, :, 0, :, 0])
    # Where there is no sum the range does not matter, but must be one.
    nothing = low > high
    return ranges.from_range(low.masked_fill(nothing, 0), high.masked_fill(nothing, 0), product)
