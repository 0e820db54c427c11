"""Two layers in a row fitted to one dense layer: channels in groups, then a 1x1 convolution over what they gave.

The two are fitted in turns, each by least squares while the other stands still. The second has a closed solution; the
weights of the first all act together, so it takes some steps of preconditioned conjugate gradients (M. Hestenes and
E. Stiefel, 1952, doi:10.6028/jres.049.044). No step raises the error on the data.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bitline.compress.reconstruct.alternate import alternate
from bitline.compress.reconstruct.least_squares import TINY, Folds, Moments, solve

STEPS = 10
"""of conjugate gradients in each round"""


@dataclass(frozen=True)
class TwoStage:
    """Two layers without anything between them.

    Args:
        first: weights of the groups, float64, (groups, rows, cols).
        second: weights of the parts of the 1x1 convolution, float64, (parts, inputs, cols).
        between: which output of the first layer each input of the second is, (groups * cols of the first,).
    """

    first: Tensor
    second: Tensor
    between: Tensor

    @property
    def spread(self) -> Tensor:
        """The second layer as one matrix, its rows in the order of the first layer's outputs."""
        return torch.block_diag(*self.second)[self.between.argsort()]

    @property
    def whole(self) -> Tensor:
        """The one matrix that both make, (1, rows, cols)."""
        parts = self.spread.unflatten(0, self.first.shape[::2])
        return (self.first @ parts).flatten(0, 1).unsqueeze(0)


def fit_both(folds: Folds, start: TwoStage, factors: Tensor, *, offset: bool) -> TwoStage:
    """Bring two layers closer to wanted outputs, by as many rounds as help on held-out data.

    Args:
        folds: moments of all inputs and all wanted outputs as one group.
        start: layers at hand.
        factors: that each output counts with, (outputs,).
        offset: whether an offset is free, so that only what varies counts.

    Returns:
        Two layers whose error on all data is at most that of `start`.
    """
    weigh = factors.square()

    def turn(moments: Moments, now: TwoStage, ridge: float) -> TwoStage:
        return _first(moments, _second(moments, now, ridge), weigh, ridge)

    return alternate(folds, start, factors, turn, offset=offset)


def _second(moments: Moments, now: TwoStage, ridge: float) -> TwoStage:
    parts = len(now.second)
    zz = _read(_given(moments.xx[0], now.first), now.first)[now.between][:, now.between]
    zy = _read(moments.xy[0], now.first)[now.between]
    return replace(now, second=solve(_diagonal(zz, parts), _diagonal(zy, parts), now.second, ridge))


def _first(moments: Moments, now: TwoStage, weigh: Tensor, ridge: float) -> TwoStage:
    xx, groups, rows = moments.xx[0], len(now.first), now.first.shape[1]
    spread = now.spread
    acts = (spread * weigh) @ spread.t()  # how changes of two channels add up in the outputs, (channels, channels)
    own = acts.diagonal().clamp_min(acts.diagonal().max() * 1e-6 + TINY).view(groups, 1, -1)
    near = _diagonal(xx, groups)
    penalty = ridge * near.diagonal(dim1=1, dim2=2).mean() + TINY
    factor = torch.linalg.cholesky(near + penalty * torch.eye(rows, dtype=xx.dtype, device=xx.device))
    residual = _diagonal((moments.xy[0] - _given(xx, now.first) @ spread) * weigh @ spread.t(), groups)
    first, step, before = now.first, torch.zeros_like(now.first), 0.0
    for _ in range(STEPS):
        preconditioned = torch.cholesky_solve(residual, factor) / own
        slope = float((residual * preconditioned).sum())
        if slope <= 0:
            break
        step = preconditioned + (step * (slope / before) if before else 0)
        bent = _diagonal(_given(xx, step) @ acts, groups) + penalty * own * step
        length = slope / max(float((step * bent).sum()), TINY)
        first, residual, before = first + length * step, residual - length * bent, slope
    return replace(now, first=first)


def _given(matrix: Tensor, weight: Tensor) -> Tensor:
    """Multiply by the weights of groups as one matrix from the right."""
    return torch.einsum("mgr,gro->mgo", matrix.unflatten(1, weight.shape[:2]), weight).flatten(1)


def _read(matrix: Tensor, weight: Tensor) -> Tensor:
    """Multiply by the weights of groups as one matrix, transposed, from the left."""
    return torch.einsum("grm,gro->gom", matrix.unflatten(0, weight.shape[:2]), weight).flatten(0, 1)


def _diagonal(matrix: Tensor, groups: int) -> Tensor:
    """Cut the blocks on the diagonal out of a matrix, as (groups, rows, cols)."""
    return matrix.unflatten(1, (groups, -1)).unflatten(0, (groups, -1)).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
