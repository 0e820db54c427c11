"""How inputs are spread, and the scale and zero point that integers of a width then take."""

import math
from typing import Literal

import torch
from torch import Tensor

from bitline.errors import MappingError
from bitline.mapping.quantize import InputFormat, Rounding, Scale, quantize, snap

_PLAIN = 100
"""exponents that float32 scales by without leaving its range"""


class RangeHistogram:
    """Distribution of a stream of real numbers: the same for the same numbers, in whatever order and batches they come.

    Magnitudes are counted in equal bins up to a power of two, which doubles as needed: two bins then become one.

    Attributes:
        counts: of each bin, float64.
        exponent: of the power of two where bins end; None while all was zero.
        peak: largest magnitude.
        negative: whether there were numbers below zero.
        below: counts of those below zero.
        low: lowest number, 0 at most.
        high: highest number, 0 at least.
    """

    BINS = 4096

    def __init__(self) -> None:
        self.counts = torch.zeros(self.BINS, dtype=torch.float64)
        self.exponent: int | None = None
        self.peak = self.low = self.high = 0.0
        self.negative = False
        self.below = torch.zeros(self.BINS, dtype=torch.float64)

    @property
    def width(self) -> float:
        """Of a bin."""
        return math.ldexp(1.0, (self.exponent or 0)) / self.BINS

    def add(self, x: Tensor) -> None:
        """Count the magnitudes of one batch, any shape.

        Raises:
            MappingError: NaN or infinite activations.
        """
        if x.numel() == 0:
            return
        x = x.detach().reshape(-1).float()
        low, high = x.aminmax()
        peak = max(abs(low.item()), abs(high.item()))
        if not math.isfinite(peak):
            raise MappingError("activations are NaN or infinite")
        self.negative |= low.item() < 0
        self.low, self.high = min(self.low, low.item()), max(self.high, high.item())
        self.peak = max(self.peak, peak)
        if peak > 0:
            self._reach(math.frexp(peak)[1])
        # Powers of two scale without rounding, so that a number is always in the same bin.
        scaled = x.abs().double() if abs(self.exponent or 0) > _PLAIN else x.abs()
        bins = scaled.cpu().mul_(math.ldexp(float(self.BINS), -(self.exponent or 0))).to(torch.int32)
        self.counts += torch.bincount(bins, minlength=self.BINS)
        if low.item() < 0:
            self.below += torch.bincount(bins[(x < 0).cpu()], minlength=self.BINS)

    def _reach(self, exponent: int) -> None:
        """Have bins up to a power of two at least."""
        if self.exponent is None:  # zeros are in the first bin of any
            self.exponent = exponent
        while self.exponent < exponent:
            self.counts, self.below = _halved(self.counts), _halved(self.below)
            self.exponent += 1

    def scale(
        self,
        bits: int,
        method: Literal["mse", "percentile", "max"],
        percentile: float,
        kind: Scale,
        rounding: Rounding = "up",
    ) -> float:
        """Choose the scale of `bits`-wide integers for what was counted; 1 if all of it was zero."""
        if self.peak == 0:
            return 1.0
        high = InputFormat(bits, self.negative).limits[1] or 1
        edges = torch.arange(1, self.BINS + 1, dtype=torch.float64) * self.width
        match method:
            case "max":
                clip = self.peak
            case "percentile":
                share = self.counts.cumsum(0) / self.counts.sum()
                reached = int(torch.searchsorted(share, percentile / 100).clamp(max=self.BINS - 1))
                clip = min(edges[reached].item(), self.peak)
            case "mse":
                values = edges - self.width / 2
                clips = self.peak * torch.linspace(0.2, 1.0, 81, dtype=torch.float64)
                steps = (clips / high)[:, None]
                error = values - quantize(values, steps, 0, high) * steps
                clip = clips[int((error.square() * self.counts).sum(1).argmin())].item()
        return float(snap(torch.tensor(clip / high, dtype=torch.float64), kind, rounding))

    def affine(
        self,
        bits: int,
        method: Literal["mse", "percentile", "max"],
        percentile: float,
        kind: Scale,
        rounding: Rounding = "up",
    ) -> tuple[float, int]:
        """Choose the scale and the zero point of unsigned integers for what was counted.

        Either end is clipped by itself: at its extreme, where a share of all numbers lies beyond it, or where the
        squared error is least, one end after the other until both stay.

        Returns:
            Scale, and the integer that stands for 0.
        """
        if not self.negative:
            return self.scale(bits, method, percentile, kind, rounding), 0
        edges = torch.arange(1, self.BINS + 1, dtype=torch.float64) * self.width
        above = self.counts - self.below
        low, high = -self.low, self.high
        if method == "percentile":
            beyond = self.counts.sum() * (1 - percentile / 100)
            low, high = (
                min(edges[int((side.flip(0).cumsum(0).flip(0) > beyond).sum().clamp(min=1)) - 1].item(), end)
                for side, end in ((self.below, low), (above, high))
            )
        elif method == "mse":
            low, high = self._least_error(2**bits - 1, edges - self.width / 2, low, high, above)
        most = 2**bits - 1
        scale = float(snap(torch.tensor((low + high) / most, dtype=torch.float64), kind, rounding))
        return scale, min(most, max(0, round(low / scale)))

    def _least_error(self, most: int, values: Tensor, low: float, high: float, above: Tensor) -> tuple[float, float]:
        """Magnitudes of the ends of the range of least squared error."""
        shares = torch.linspace(0.2, 1.0, 81, dtype=torch.float64)
        lowest, highest = low * shares, high * shares

        def errors(lows: Tensor, highs: Tensor) -> Tensor:
            steps = ((lows + highs) / most)[:, None]
            zeros = (lows[:, None] / steps).round().clamp(0, most)
            up = values - torch.minimum((values / steps).round(), most - zeros) * steps
            down = values - torch.minimum((values / steps).round(), zeros) * steps
            return (up.square() * above + down.square() * self.below).sum(1)

        for _ in range(4):
            before = low, high
            high = highest[int(errors(torch.full_like(highest, low), highest).argmin())].item()
            low = lowest[int(errors(lowest, torch.full_like(lowest, high)).argmin())].item()
            if (low, high) == before:
                break
        return low, high


def _halved(counts: Tensor) -> Tensor:
    half = counts.reshape(-1, 2).sum(1)
    return torch.cat([half, torch.zeros_like(half)])
