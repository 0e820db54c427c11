"""The analog sums that some input vectors make on ideal cells: how often each occurs, what their conversion errs by."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from bitline import seeds
from bitline.mapping.encode import column_tiles
from bitline.mapping.layer import LayerPlacement
from bitline.mvm import adc as ranges
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import analog_sums

_MOST_BINS = 2**14
_SAMPLED_SUMS, _MOST_SUMS = 2**17, 2**25
_FEWEST, _MOST = 32, 8192
"""vectors of a sample"""
_EACH, _ENOUGH_IMAGES = 32, 16
"""vectors of an image; images that fewer ones are taken for"""


class VectorSample:
    """Which of a known number of input vectors are drawn: one of each of equally long runs, at random.

    Args:
        of: how many there are.
        most: to draw.
    """

    def __init__(self, of: int, most: int) -> None:
        most = min(of, most)
        place = torch.rand(most, generator=seeds.generator("sample"), dtype=torch.float64)
        self.at = ((torch.arange(most) + place) * of / max(1, most)).long()
        self.seen = 0

    def of_next(self, vectors: int) -> Tensor:
        """Numbers of those drawn of the vectors that come next."""
        here = self.at[(self.at >= self.seen) & (self.at < self.seen + vectors)] - self.seen
        self.seen += vectors
        return here


def sample_size(placement: LayerPlacement, columns: int, images: int) -> int:
    """Input vectors whose sums of so many stored columns of a layer are counted.

    The more images pass, the more: what few images in many do to sums decides coarse ranges, and to count sums stays a
    small part of what these images take.
    """
    kinds = placement.digits * placement.chip.slices * placement.chip.converted_sides
    images = max(images, _ENOUGH_IMAGES)
    sums = min(_MOST_SUMS, _SAMPLED_SUMS * images)
    return max(_FEWEST, min(_MOST, _EACH * images, sums // (columns * placement.row_tiles * kinds)))


class Sums(NamedTuple):
    """Sums of one row tile and run of vectors.

    Args:
        start: number of the first vector.
        bins: of each kind of conversion, those of one kind after those of another, int32, (groups, vectors,
            stored columns, kinds); one more where there is no column.
    """

    start: int
    bins: Tensor


@dataclass
class SumHistogram:
    """How often each analog sum of ideal cells occurs in some columns of one layer.

    Args:
        product: the columns that are counted.
        used: which of their stored columns there are, (groups, stored columns) bool; None: all.
        outliers: share of the vectors, rounded down, that has no say in `fit_ranges.fit` by squared error: those on
            which a candidate range errs most.
        vectors: the input vectors, integers, (1, vectors, groups, rows), of all groups of the layer.
        by_digit: counts, float64, (digits, slices, bins).
    """

    product: Product
    used: Tensor | None = None
    outliers: float = 0.0
    vectors: Tensor = field(default_factory=lambda: torch.zeros(1, 0, 1, 1, dtype=torch.uint8))
    by_digit: Tensor = field(init=False)

    def __post_init__(self) -> None:
        p = self.product
        most = math.ceil(ranges.largest_sum(p))
        self.least = -most if p.subtracts else 0
        self.width = max(1, math.ceil((most - self.least + 1) / _MOST_BINS))
        bins = (most - self.least) // self.width + 1
        self.by_digit = torch.zeros(len(p.digit_weights), len(p.slice_weights), bins, dtype=torch.float64)

    @property
    def bins(self) -> int:
        """How many there are."""
        return self.by_digit.shape[-1]

    @property
    def values(self) -> Tensor:
        """Sum that each bin stands for, level units, (bins,)."""
        centre = self.least + (self.width - 1) / 2
        return torch.arange(self.bins, dtype=torch.float64) * self.width + centre

    @property
    def kinds(self) -> tuple[int, int, int]:
        """What tells the conversions of a row tile and column apart: (digits, slices, converted sides)."""
        return len(self.product.digit_weights), len(self.product.slice_weights), len(self.product.side_weights)

    @property
    def weights(self) -> Tensor:
        """What each digit and slice weighs, float64, (digits, slices)."""
        digit = torch.tensor(self.product.digit_weights, dtype=torch.float64)[:, None]
        return digit * torch.tensor(self.product.slice_weights, dtype=torch.float64)

    @property
    def importance(self) -> Tensor:
        """Squares of these weights, over the largest."""
        squares = self.weights.square()
        return squares / squares.max()

    def sums(self, rows: Tensor, crossbars: Crossbars) -> Iterator[Sums]:
        """Compute the sums that input vectors make, of one row tile and run of vectors after the other.

        Args:
            rows: integers, (1, vectors, groups, rows).
            crossbars: with ideal cells, of `product`.
        """
        d, s, k = self.kinds
        base = (torch.arange(d * s * k, dtype=torch.int32) * self.bins).view(d, 1, s, k, 1)
        start, tiles = 0, self.product.placement.row_tiles
        for number, a in enumerate(analog_sums(rows, crossbars)):
            if self.width == 1 and crossbars.integral:
                index = a.cpu().to(torch.int32).add_(base - self.least)
            else:
                index = ((a - self.least + 0.5) / self.width).floor().cpu().to(torch.int32).add_(base)
            there = self._there(number % tiles)
            if there is not None:
                index.masked_fill_(~there[:, None, None, None, None], d * s * k * self.bins)
            yield Sums(start, index.permute(0, 2, 5, 1, 3, 4).flatten(3))
            start += a.shape[2] if number % tiles == tiles - 1 else 0

    def _there(self, tile: int) -> Tensor | None:
        """Which stored columns of a row tile there are, (groups, stored columns); None: all."""
        built = None if self.product.built is None else self.product.built[tile].cpu()
        used = None if self.used is None else self.used.cpu()
        return built if used is None else used if built is None else built & used

    def count(self, found: Iterable[Sums]) -> None:
        """Count sums by digit and slice."""
        counts = torch.zeros(self.bins * math.prod(self.kinds) + 1, dtype=torch.int64)
        for sums in found:
            counts += torch.bincount(sums.bins.flatten(), minlength=len(counts))
        self.by_digit += counts[:-1].view(*self.kinds, -1).sum(2)

    def by_column(self, found: Iterable[Sums]) -> tuple[Tensor, Tensor]:
        """Count sums by stored column.

        Returns:
            (counts, the same with each sum counted by its `importance`), float64, (groups, stored columns, bins).
        """
        groups, stored = self.product.placement.matmul.groups, self.product.placement.stored_columns
        columns = groups * stored
        first = (torch.arange(columns) * self.bins).view(groups, 1, stored, 1)
        importance = self.importance[..., None].expand(self.kinds).flatten()
        plain, weighted = torch.zeros(2, columns * self.bins + 1, dtype=torch.float64)
        for sums in found:
            gone = sums.bins == math.prod(self.kinds) * self.bins
            index = (sums.bins % self.bins + first).masked_fill_(gone, columns * self.bins).flatten()
            plain += torch.bincount(index, minlength=len(plain))
            weighted += torch.bincount(index, importance.expand(sums.bins.shape).flatten(), minlength=len(plain))
        return plain[:-1].view(groups, stored, -1), weighted[:-1].view(groups, stored, -1)

    def errors(self, found: Iterable[Sums], vectors: int, scales: Sequence[AdcScale]) -> Tensor:
        """What results err by under some ranges, looked up sum by sum.

        Args:
            found: all sums of the vectors, exact: of integral levels, and bins one level wide.
            vectors: how many.
            scales: the ranges.

        Returns:
            float64, in units of the highest digit and slice, (groups, vectors, cols, ranges).
        """
        placement, (groups, _, _, stored) = self.product.placement, scales[0].lsb.shape
        table = torch.stack([self._table(scale) for scale in scales], -1)
        own = (torch.arange(groups * stored) * (len(table) // (groups * stored))).view(groups, 1, stored, 1)
        shape = placement.matmul.groups, vectors, placement.stored_columns, len(scales)
        errors = torch.zeros(*shape, dtype=torch.float64)
        for start, index in found:
            index = index if own.numel() == 1 else index + own
            results = F.embedding_bag(index.flatten(0, 2), table, mode="sum")
            errors[:, start : start + index.shape[1]] += results.view(*index.shape[:3], -1)
        if placement.stored_columns == placement.matmul.cols:
            return errors
        cols = placement.matmul.cols
        return errors[:, :, :cols] - errors[:, :, cols:][:, :, column_tiles(placement)]

    def _table(self, scale: AdcScale) -> Tensor:
        """What each bin of each kind errs by, and 0 for no column; of each range of a column one after the other."""
        lsb, offset = scale.lsb.cpu()[..., None], scale.offset.cpu()[..., None]
        code = AdcScale(lsb, offset, scale.low, scale.high).convert(self.values)
        error = (code * lsb + offset - self.values) * (self.weights / self.weights.abs().max())[:, :, None, None]
        error = error.permute(0, 3, 1, 2, 4)[:, :, :, :, None] * torch.tensor(self.product.side_weights)[:, None]
        return F.pad(error.flatten(2), (0, 1)).float().flatten()


def minmax(batch: Iterable[Tensor], crossbars: Crossbars, used: Tensor | None = None) -> AdcScale:
    """Range of the batch at hand: only to compare with tools that do this.

    Args:
        batch: its input vectors, integers, each (images, positions, groups, rows).
        crossbars: the programmed layer.
        used: which stored columns there are, (groups, stored columns) bool; None: all.
    """
    product = crossbars.product
    shape = ranges.shape(product.placement.chip.adc.granularity, product)
    device = crossbars.cells.device
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
