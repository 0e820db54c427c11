"""ADC ranges from the distribution of partial sums."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bitline.chip.description import Adc
from bitline.mvm import adc as ranges
from bitline.mvm.adc import AdcScale
from bitline.mvm.product import Product

_MOST_BINS = 2**14
_LOW_QUANTILES = (0.0, 0.001, 0.01, 0.05)
_HIGH_STEPS = 64


@dataclass
class SumHistogram:
    """How often each analog sum of ideal cells occurs in one layer.

    Args:
        product: the layer.
        by_digit: counts, float64, (digits, slices, bins).
        by_column: counts, float64, (groups, stored columns, bins).
    """

    product: Product
    by_digit: Tensor = field(init=False)
    by_column: Tensor = field(init=False)

    def __post_init__(self) -> None:
        p = self.product
        self.least = -p.max_sum if p.subtracts else 0
        self.width = max(1, math.ceil((p.max_sum - self.least + 1) / _MOST_BINS))
        bins = (p.max_sum - self.least) // self.width + 1
        self.by_digit = torch.zeros(len(p.digit_weights), len(p.slice_weights), bins, dtype=torch.float64)
        columns = (p.placement.matmul.groups, p.placement.stored_columns)
        self.by_column = torch.zeros(*columns, bins, dtype=torch.float64)

    @property
    def values(self) -> Tensor:
        """Sum that each bin stands for, level units, (bins,)."""
        centre = self.least + (self.width - 1) / 2
        return torch.arange(self.by_digit.shape[-1], dtype=torch.float64) * self.width + centre

    def add(self, a: Tensor) -> None:
        """Count sums, (groups, digits, vectors, slices, sides, stored columns)."""
        index = ((a - self.least) / self.width).floor().to(torch.int64).cpu()
        for counts, axes in ((self.by_digit, (1, 3)), (self.by_column, (0, 5))):
            bins = counts.shape[-1]
            first, second = counts.shape[:2]
            shape = [1] * 6
            shape[axes[0]], shape[axes[1]] = first, second
            base = (torch.arange(first * second) * bins).view(shape)
            counts += torch.bincount((index + base).flatten(), minlength=counts.numel()).view_as(counts)

    def fit(self, adc: Adc) -> AdcScale:
        """Choose the calibrated range of every ADC.

        `percentile` keeps that share of the sums within the range. `mse` minimizes the squared error of the layer's
        result: where digits and slices share a range, each counts by the square of what it weighs.

        Args:
            adc: bits, granularity and method.
        """
        counts = self._pooled(adc)
        flat = counts.flatten(0, -2)
        if adc.calibration == "percentile":
            low, high = self._percentiles(flat, adc.percentile)
        else:
            low, high = self._least_error(flat, adc)
        shape = ranges.shape(adc.granularity, self.product)
        return ranges.from_range(low.view(shape), high.view(shape), self.product, adc)

    def _pooled(self, adc: Adc) -> Tensor:
        if adc.granularity == "column":
            return self.by_column
        weights = torch.ones(self.by_digit.shape[:2], dtype=torch.float64)
        if adc.calibration == "mse":
            digit = torch.tensor(self.product.digit_weights, dtype=torch.float64)[:, None]
            weights = (digit * torch.tensor(self.product.slice_weights, dtype=torch.float64)).square()
        weighted = self.by_digit * weights[..., None]
        match adc.granularity:
            case "layer":
                return weighted.sum((0, 1), keepdim=True)
            case "slice":
                return weighted.sum(0, keepdim=True)
            case _:
                return self.by_digit

    def _percentiles(self, counts: Tensor, percentile: float) -> tuple[Tensor, Tensor]:
        tail = 1 - percentile / 100
        return self._quantile(counts, tail), self._quantile(counts, 1 - tail)

    def _quantile(self, counts: Tensor, share: float) -> Tensor:
        """Least value that at least `share` of each row of counts does not exceed, (rows,)."""
        total = counts.sum(-1, keepdim=True)
        level = torch.clamp(share * total, min=torch.finfo(torch.float64).tiny)
        reached = counts.cumsum(-1) >= level * (1 - 1e-12)
        return self.values[reached.to(torch.int8).argmax(-1)]

    def _least_error(self, counts: Tensor, adc: Adc) -> tuple[Tensor, Tensor]:
        top = self._quantile(counts, 1.0)
        bottom = self._quantile(counts, 0.0)
        if self.product.subtracts:
            top, lows = torch.maximum(top, -bottom), [torch.zeros_like(top)]
        else:
            lows = [self._quantile(counts, q) for q in _LOW_QUANTILES]
        best = torch.full_like(top, math.inf)
        low, high = lows[0].clone(), top.clone()
        for candidate_low in lows:
            for step in range(1, _HIGH_STEPS + 1):
                candidate_high = candidate_low + (top - candidate_low) * (step / _HIGH_STEPS)
                error = self._error(counts, candidate_low, candidate_high, adc)
                better = error < best
                best = torch.where(better, error, best)
                low, high = torch.where(better, candidate_low, low), torch.where(better, candidate_high, high)
        return low, high

    def _error(self, counts: Tensor, low: Tensor, high: Tensor, adc: Adc) -> Tensor:
        scale = ranges.from_range(low[:, None], high[:, None], self.product, adc)
        error = scale.convert(self.values).mul_(scale.lsb).add_(scale.offset).sub_(self.values)
        return error.square_().mul_(counts).sum(-1)
