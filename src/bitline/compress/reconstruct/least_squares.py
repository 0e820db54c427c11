"""Least squares from second moments: a layer's weights that come closest to wanted outputs on data.

Only moments are kept, so memory does not grow with the data. The penalty draws towards the weights at hand, not towards
zero: the error on the data can only fall, and where data say nothing the weights stay as they are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bitline.errors import ConversionError

TINY = torch.finfo(torch.float64).tiny ** 0.5
"""keeps a matrix of zeros from being singular"""
RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""penalties tried, relative to the mean power of the inputs"""


@dataclass(frozen=True)
class Moments:
    """Second moments of inputs x and wanted outputs y of every group, float64.

    Args:
        xx: (groups, rows, rows).
        xy: (groups, rows, cols).
        yy: (groups, cols).
        x: means, (groups, rows).
        y: means, (groups, cols).
        count: vectors.
    """

    xx: Tensor
    xy: Tensor
    yy: Tensor
    x: Tensor
    y: Tensor
    count: int

    @staticmethod
    def of(x: Tensor, y: Tensor) -> "Moments":
        """Measure vectors, (vectors, groups, rows) and (vectors, groups, cols)."""
        x, y = x.double().transpose(0, 1), y.double().transpose(0, 1)
        n = x.shape[1]
        xt = x.transpose(1, 2)
        return Moments(xt @ x / n, xt @ y / n, y.square().mean(1), x.mean(1), y.mean(1), n)

    def __add__(self, other: "Moments") -> "Moments":
        """Pool with the moments of other vectors."""
        n = self.count + other.count
        a, b = self.count / n, other.count / n
        return Moments(
            self.xx * a + other.xx * b,
            self.xy * a + other.xy * b,
            self.yy * a + other.yy * b,
            self.x * a + other.x * b,
            self.y * a + other.y * b,
            n,
        )

    def centred(self) -> "Moments":
        """Return the moments about the means: what counts where an offset is free."""
        return Moments(
            self.xx - self.x.unsqueeze(2) * self.x.unsqueeze(1),
            self.xy - self.x.unsqueeze(2) * self.y.unsqueeze(1),
            self.yy - self.y.square(),
            torch.zeros_like(self.x),
            torch.zeros_like(self.y),
            self.count,
        )

    def mapped(self, matrix: Tensor) -> "Moments":
        """Return the moments of x @ matrix, (groups, rows, others), in the place of those of x."""
        mt = matrix.transpose(1, 2)
        return Moments(
            mt @ self.xx @ matrix, mt @ self.xy, self.yy, (self.x.unsqueeze(1) @ matrix).squeeze(1), self.y, self.count
        )

    def error(self, weight: Tensor) -> Tensor:
        """Mean square of y - x @ weight, (groups, cols), for weights (groups, rows, cols)."""
        return (self.yy - 2 * (weight * self.xy).sum(1) + (weight * (self.xx @ weight)).sum(1)).clamp_min(0)

    def variance(self, weight: Tensor) -> Tensor:
        """Variance of x @ weight, (groups, cols)."""
        return ((weight * (self.xx @ weight)).sum(1) - self.mean(weight).square()).clamp_min(0)

    def mean(self, weight: Tensor) -> Tensor:
        """Mean of x @ weight, (groups, cols)."""
        return (self.x.unsqueeze(1) @ weight).squeeze(1)


class Folds(NamedTuple):
    """Moments of most vectors, on which weights are tried, and of the rest, on which they are judged."""

    part: Moments
    held_out: Moments

    @property
    def all(self) -> Moments:
        """Moments of all vectors."""
        return self.part + self.held_out


def measure(pairs: Iterable[tuple[Tensor, Tensor]]) -> Folds:
    """Measure inputs and wanted outputs, holding out the last quarter of each pair.

    Args:
        pairs: (vectors, groups, rows) and (vectors, groups, cols).

    Raises:
        ConversionError: NaN or infinite values.
    """
    folds: Folds | None = None
    for x, y in pairs:
        cut = len(x) - len(x) // 4
        part = Moments.of(x[:cut], y[:cut])
        held_out = Moments.of(x[cut:], y[cut:]) if cut < len(x) else part
        folds = Folds(part, held_out) if folds is None else Folds(folds.part + part, folds.held_out + held_out)
    assert folds is not None
    if not all(bool(t.isfinite().all()) for m in folds for t in (m.xx, m.yy)):
        raise ConversionError("activations are NaN or infinite, so that no weights can be fitted to them")
    return folds


def solve(xx: Tensor, xy: Tensor, start: Tensor, ridge: float) -> Tensor:
    """Find the weights closest to the wanted outputs, drawn towards those at hand.

    Args:
        xx: moments of the inputs, as they are or centred, (groups, rows, rows).
        xy: the same with the wanted outputs, (groups, rows, cols).
        start: weights at hand, float64, (groups, rows, cols).
        ridge: penalty on a changed weight, relative to the mean power of an input.

    Returns:
        Weights whose error is at most that of `start`.
    """
    penalty = ridge * xx.diagonal(dim1=1, dim2=2).mean(1) + TINY
    eye = torch.eye(start.shape[1], dtype=start.dtype, device=start.device)
    factor = torch.linalg.cholesky(xx + penalty.view(-1, 1, 1) * eye)
    return start + torch.cholesky_solve(xy - xx @ start, factor)


def fit(folds: Folds, start: Tensor, *, offset: bool) -> Tensor:
    """Choose the penalty that does best on held-out data, then solve on all; nothing changes where none does better.

    Args:
        folds: moments of the data.
        start: weights at hand, float64, (groups, rows, cols).
        offset: whether an offset is free, so that only what varies counts.

    Returns:
        Weights whose error on all data is at most that of `start`.
    """
    part, held_out, everything = (m.centred() if offset else m for m in (*folds, folds.all))
    scores = {ridge: float(held_out.error(solve(part.xx, part.xy, start, ridge)).sum()) for ridge in RIDGES}
    best = min(scores, key=lambda ridge: scores[ridge])
    if scores[best] >= float(held_out.error(start).sum()):
        return start
    return solve(everything.xx, everything.xy, start, best)
