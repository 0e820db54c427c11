"""The least-squares fit of a layer: its weights, the data they were fitted to, and how far the two are apart."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bitline.compress.reconstruct.least_squares import Moments
from bitline.compress.reconstruct.statistics import Statistics


@dataclass(frozen=True)
class Fit:
    """Weights of groups, and the data they were fitted to.

    Args:
        moments: of the inputs and wanted outputs.
        weight: float64, (groups, rows, cols).
        order: output channel of each column, the groups one after another, (groups * cols,).
    """

    moments: Moments
    weight: Tensor
    order: Tensor

    def error(self, factors: Tensor, *, offset: bool) -> float:
        """Mean square error relative to the variance of the wanted outputs.

        Args:
            factors: that each output channel is multiplied by afterwards, (out_channels,).
            offset: whether a constant is made good elsewhere.
        """
        weigh = factors.square()[self.order].view_as(self.moments.yy)
        moments = self.moments.centred() if offset else self.moments
        lost = float((moments.error(self.weight) * weigh).sum())
        return lost / max(float((self.moments.centred().yy * weigh).sum()), torch.finfo(torch.float64).tiny)

    def target_statistics(self) -> Statistics:
        """Mean and variance of each wanted output channel."""
        return self._in_order(self.moments.y, self.moments.centred().yy)

    def output_statistics(self) -> Statistics:
        """Mean and variance of each output channel as the weights give it."""
        return self._in_order(self.moments.mean(self.weight), self.moments.variance(self.weight))

    def _in_order(self, mean: Tensor, variance: Tensor) -> Statistics:
        back = self.order.argsort()
        return Statistics(mean.flatten()[back], variance.flatten()[back].clamp_min(0))
