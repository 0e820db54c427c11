"""A bound on how far one batch can move a network."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer

NORM = 1.0
"""Euclidean, of the gradient of one parameter group; assumed"""


def bound(optimizer: Optimizer, norm: float = NORM) -> None:
    """Scale the gradient of every parameter group down to a norm, where it is larger.

    Each by itself: the gradients of weights and of ADC ranges or of pruning factors are not of one size. Lightning's
    ``gradient_clip_val`` takes the norm of all groups together, and a large gradient of the ranges would stop the
    weights; it also bounds every step, where zerorize-recover bounds those of zero epochs alone.
    """
    for group in optimizer.param_groups:
        nn.utils.clip_grad_norm_(group["params"], norm)


class BoundedGradient(Callback):
    """Bound the gradient of every step.

    A coarse ADC answers a few images far from anything that its ranges were made for; their loss is not the network's.

    Args:
        norm: Euclidean, of one group.
    """

    def __init__(self, norm: float = NORM) -> None:
        self.norm = norm

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Bound what the optimizer is about to follow."""
        bound(optimizer, self.norm)
