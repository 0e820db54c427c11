"""Layer by layer: partial sums against ADC ranges, and how much error each cause adds."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bitline.evaluation.causes import Stage
from bitline.evaluation.each_layer import on_each_layer
from bitline.evaluation.record import Cause, NoSums, PartialSums
from bitline.mapping.encode import in_use
from bitline.mvm.adc import AdcScale
from bitline.network.inputs import Inputs
from bitline.nn import IDEAL
from bitline.nn.layer import CrossbarLayer

_MOST_SUMS = 2**25
_PLOT_BINS = 96


@dataclass
class SumStatistics:
    """What one layer's ADCs saw on one chip.

    Args:
        least: lowest sum of the first bin, level units.
        bins: whole levels counted.
        used: which stored columns there are, (groups, stored columns) bool; None: all.
    """

    least: int
    bins: int
    used: Tensor | None = None
    counts: Tensor = field(init=False)
    total: int = 0
    clipped: int = 0
    signal: float = 0.0
    error: float = 0.0

    def __post_init__(self) -> None:
        self.counts = torch.zeros(self.bins, dtype=torch.int64)

    def add(self, a: Tensor, code: Tensor, scale: AdcScale, built: Tensor | None = None) -> None:
        """Count sums and codes, both (groups, digits, vectors, slices, sides, stored columns).

        Args:
            a: sums of one row tile.
            code: what they became.
            scale: ranges of the ADCs.
            built: which stored columns the row tile has, (groups, stored columns) bool; None: all in use.
        """
        lsb, offset = (t[:, :, None, :, None, :].float() for t in (scale.lsb, scale.offset))
        there = self.used if built is None else built
        if there is not None:
            lsb, offset = (t.expand(a.shape).movedim(5, 1)[there] for t in (lsb, offset))
            a, code = a.movedim(5, 1)[there], code.movedim(5, 1)[there]
        read = code * lsb + offset
        self.total += a.numel()
        self.signal += float(a.square().sum(dtype=torch.float64))
        self.error += float((a - read).square_().sum(dtype=torch.float64))
        if scale.low is not None and scale.high is not None:
            nearest = torch.round((a - offset) / lsb)
            self.clipped += int((nearest < scale.low).sum() + (nearest > scale.high).sum())
        index = (a.round() - self.least).clamp_(0, self.bins - 1).to(torch.int64)
        self.counts += torch.bincount(index.flatten().cpu(), minlength=self.bins)

    @property
    def clip_fraction(self) -> float:
        """Share of conversions that clip, [0, 1]."""
        return self.clipped / max(1, self.total)

    @property
    def sqnr_dB(self) -> float | None:  # noqa: N802
        """Power of the sums over that of their conversion error; None where every conversion is exact."""
        return 10 * math.log10(self.signal / self.error) if self.error > 0 and self.signal > 0 else None

    def histogram(self, scale: AdcScale) -> PartialSums:
        """Counts in few enough bins to plot, with the range of the ADCs."""
        used = self.counts.nonzero().flatten()
        first, last = (int(used[0]), int(used[-1])) if len(used) else (0, 0)
        width = math.ceil((last - first + 1) / _PLOT_BINS)
        inside = torch.zeros(math.ceil((last - first + 1) / width) * width, dtype=torch.int64)
        inside[: last - first + 1] = self.counts[first : last + 1]
        low, high = float(self.least + first), float(self.least + last)
        if scale.low is not None and scale.high is not None:
            low = float((scale.offset + scale.low * scale.lsb).min())
            high = float((scale.offset + scale.high * scale.lsb).max())
        return PartialSums(
            bin_low=float(self.least + first),
            bin_width=float(width),
            counts=tuple(inside.view(-1, width).sum(1).tolist()),
            range_low=low,
            range_high=high,
            lsb=float(scale.lsb.median()),
            ranges=scale.lsb.numel(),
        )


@dataclass(frozen=True)
class Diagnosis:
    """What one layer's conversions and errors are.

    Args:
        error_parts: power of the error that each cause adds to the layer's output, over the power of the output.
        adc_clip_fraction: conversions outside the range, [0, 1].
        partial_sum_sqnr_dB: power of the sums over that of their conversion error; None where every one is exact.
        partial_sums: their histogram and range.
    """

    error_parts: dict[Cause, float]
    adc_clip_fraction: float
    partial_sum_sqnr_dB: float | None  # noqa: N815
    partial_sums: PartialSums | NoSums


def diagnose(model: nn.Module, images: Inputs, stages: Sequence[Stage], seed: int) -> dict[str, Diagnosis]:
    """Measure every layer alone: exact inputs, one cause after the other.

    Args:
        model: converted and calibrated; its last stage is the chip it is on.
        images: normalized, (batch, ...); a layer of many partial sums looks at the first few only.
        stages: of the chip.
        seed: of the programmed chip.

    Returns:
        The diagnosis of each layer, by name.
    """
    return on_each_layer(model, images, lambda layer, x: _one_layer(layer, x, stages, seed))


def _one_layer(layer: CrossbarLayer, x: Tensor, stages: Sequence[Stage], seed: int) -> Diagnosis:
    per_image = max(1, layer.whole_placement.conversions_per_vector) * max(1, math.prod(x.shape[2:]))
    x = x[: max(1, _MOST_SUMS // per_image)]
    q = layer.integers(x)
    plain = layer.plain_product(x).double()
    power = float(plain.square().mean()) or 1.0
    last, parts = plain, dict[Cause, float]()
    for stage in stages[:-1]:
        read = layer.read(q, stage.chip, seed if stage.seeded else IDEAL)
        y = layer.real_product(layer.multiply(q, read), x).double()
        parts[stage.cause] = float((y - last).square().mean()) / power
        last = y
    final = stages[-1]
    chip_seed = seed if final.seeded else IDEAL
    read = layer.read(q, final.chip, chip_seed)
    scale, product = read.scale, read.crossbars.product
    top = math.ceil(product.max_sum * 1.5) + 1
    least = -top if product.subtracts else 0
    statistics = SumStatistics(least, top - least + 1, in_use(layer.whole_placement))
    tiles = itertools.cycle(range(product.placement.row_tiles))

    def observer(a: Tensor, code: Tensor) -> None:
        tile = next(tiles)
        statistics.add(a, code, scale, None if product.built is None else product.built[tile])

    y = layer.real_product(layer.multiply(q, read, observer=observer), x).double()
    parts[final.cause] = float((y - last).square().mean()) / power
    sums = statistics.histogram(scale) if statistics.total else NoSums()
    return Diagnosis(parts, statistics.clip_fraction, statistics.sqnr_dB, sums)
