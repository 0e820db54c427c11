"""A bound on how far one batch can move a network."""

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.optim import Optimizer


class BoundedGradient(Callback):
    """Scale the gradient of every parameter group down to a norm, where it is larger.

    A coarse ADC answers a few images far from anything that its ranges were made for; their loss is not the network's.

    Args:
        norm: Euclidean, of one group.
    """

    def __init__(self, norm: float = 1.0) -> None:
        self.norm = norm

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Bound each group by itself: the gradients of weights and of ADC ranges are not of one size."""
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], self.norm)
