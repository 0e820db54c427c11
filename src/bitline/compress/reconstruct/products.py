"""Kernels as sums of a few products, channels times positions, fitted to what dense kernels answer.

Each output has factors of its own, and given one of the two the other is a small least-squares problem with a closed
solution: rows of the pointwise factor see the input through a depthwise kernel, and the other way round.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bitline.compress.reconstruct.alternate import alternate
from bitline.compress.reconstruct.least_squares import TINY, Folds, Moments, solve

SMOOTHING = 1e-2
"""share of the inputs' mean power that is added to each, where data weigh kernels"""
ENTRIES = 2**24
"""of the matrices of outputs that are solved at once"""


@dataclass(frozen=True)
class Products:
    """A pointwise layer and a depthwise one without anything between them.

    Args:
        pointwise: float64, (outputs, maps, inputs).
        depthwise: float64, (outputs, maps, positions).
    """

    pointwise: Tensor
    depthwise: Tensor

    @property
    def whole(self) -> Tensor:
        """The dense matrix that both make, input by input, (1, inputs * positions, outputs)."""
        return torch.einsum("omi,omk->iko", self.pointwise, self.depthwise).flatten(0, 1).unsqueeze(0)

    def balanced(self) -> "Products":
        """Scale the maps so that the weights before and behind each reach equally far.

        That makes both layers easy to quantize (cross-layer equalization: M. Nagel et al., ICCV 2019,
        arXiv:1906.04721).
        """
        before, after = self.pointwise.abs().amax(2, keepdim=True), self.depthwise.abs().amax(2, keepdim=True)
        known = (before > 0) & (after > 0)
        scale = torch.where(known, after / before.where(known, 1), 1).sqrt()
        return Products(self.pointwise * scale, self.depthwise / scale)


def approximate(kernels: Tensor, moments: Moments, factors: Tensor, maps: int) -> tuple[Products, float]:
    """Approximate the kernels of each output, and say what share of their weighted power that keeps.

    An error counts as if the inputs' moments were those of channels times those of positions.

    Args:
        kernels: dense, float64, (outputs, inputs, positions).
        moments: of all inputs, input by input.
        factors: that each output counts with.
        maps: products for each output.
    """
    xx = moments.xx[0].unflatten(1, kernels.shape[1:]).unflatten(0, kernels.shape[1:])
    channels, places = torch.einsum("ikjk->ij", xx), torch.einsum("ikil->kl", xx)
    channels = channels + torch.eye(len(channels)).to(xx) * (SMOOTHING * channels.diagonal().mean() + TINY)
    power, axes = torch.linalg.eigh(places)
    root = (power.clamp_min(0) + SMOOTHING * power.mean() + TINY).sqrt()
    weighted = kernels @ axes * root
    values, vectors = torch.linalg.eigh(weighted.transpose(1, 2) @ channels @ weighted)
    chosen = vectors[:, :, -maps:].transpose(1, 2)  # (outputs, maps, positions), orthonormal
    values = values.clamp_min(0) * factors.square().unsqueeze(1)
    kept = values[:, -maps:].sum() / values.sum().clamp_min(TINY)
    return Products(chosen @ weighted.transpose(1, 2), (chosen / root) @ axes.t()), float(kept)


def fit_products(folds: Folds, start: Products, factors: Tensor, *, offset: bool) -> Products:
    """Bring the two layers closer to wanted outputs; arguments and result as those of `alternate`."""
    return alternate(folds, start, factors, _turn, offset=offset)


def _turn(moments: Moments, now: Products, ridge: float) -> Products:
    """Solve for the pointwise factors, then for the depthwise ones."""
    shape = now.pointwise.shape[2], now.depthwise.shape[2]
    xx = moments.xx[0].unflatten(1, shape).unflatten(0, shape).permute(0, 2, 1, 3)  # (inputs, inputs, positions...)
    pairs, xy = xx.flatten(2).flatten(0, 1), moments.xy[0].unflatten(0, shape)
    now = replace(now, pointwise=_solve(pairs, xy, now.depthwise, now.pointwise, ridge))
    return replace(now, depthwise=_solve(pairs.t(), xy.transpose(0, 1), now.pointwise, now.depthwise, ridge))


def _solve(xx: Tensor, xy: Tensor, given: Tensor, start: Tensor, ridge: float) -> Tensor:
    """Solve for one factor of every output.

    Args:
        xx: (values of the factor ** 2, values of the other ** 2).
        xy: (values of the factor, values of the other, outputs).
        given: the other factor, (outputs, maps, its values).
        start: the factor at hand, (outputs, maps, values).
        ridge: penalty.
    """
    maps, size = start.shape[1:]
    solutions: list[Tensor] = []
    each = max(1, ENTRIES // max((maps * size) ** 2, (maps * given.shape[2]) ** 2))
    for other, own, y in zip(given.split(each), start.split(each), xy.split(each, 2), strict=True):
        products = torch.einsum("omf,ong->omnfg", other, other).flatten(3)
        zz = (products @ xx.t()).unflatten(3, (size, size)).transpose(2, 3).flatten(3).flatten(1, 2)
        zy = torch.einsum("afo,omf->oma", y, other).flatten(1).unsqueeze(2)
        solutions.append(solve(zz, zy, own.flatten(1).unsqueeze(2), ridge).view_as(own))
    return torch.cat(solutions)
