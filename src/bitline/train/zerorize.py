"""Zerorize-recover training: epochs that zero the least important factors, and epochs that let them come back.

S. Huai et al., "CRIMP: Compact & Reliable DNN Inference on In-Memory Processing via Crossbar-Aligned Compression and
Non-ideality Adaptation", ACM TECS 22(5s), 2023, doi:10.1145/3609115; the schedule is that of ZeroBN, arXiv:2607.06922.
A zero epoch answers through the chip, so that the network adapts to it in the same steps.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import update_bn

from bitline import seeds
from bitline.nn import program
from bitline.nn.cells import IDEAL
from bitline.train.bound import bound
from bitline.train.chip_view import ChipView


class Factors(Protocol):
    """What is ranked: batch-norm gammas, or masks of crossbars; see `bitline.compress`."""

    def penalty(self) -> Tensor:
        """L1 norm of the factors."""
        ...

    def measure_importance(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Rank by Taylor importance on images and labels."""
        ...

    def zero(self, ratio: float) -> object:
        """Set the least important share of what the factors stand for to zero."""
        ...


@dataclass(frozen=True)
class Schedule:
    """Which epochs zero and which recover.

    Args:
        epochs: of the phase.
        start: no epoch before this one zeroes.
        interval: epochs from one zero epoch to the next; 1: every one, no recovery.
    """

    epochs: int
    start: int
    interval: int = 2

    @classmethod
    def of(cls, epochs: int, *, start: float = 0.5, interval: int = 2) -> "Schedule":
        """Begin after a share of the epochs, rounded down to a multiple of ten where there are that many."""
        first = int(epochs * start)
        return cls(epochs, first - first % 10 if first >= 10 else first, interval)

    def zeroes(self, epoch: int) -> bool:
        """Whether an epoch zeroes: the last one, and from there backwards at every interval."""
        return epoch >= self.start and (self.epochs - 1 - epoch) % self.interval == 0


class Alternating(nn.Module):
    """A network that answers by itself, or through the chip.

    Args:
        network: in training.
        view: of the same network on the chip.
    """

    calibrated: Tensor

    def __init__(self, network: nn.Module, view: ChipView) -> None:
        super().__init__()
        self.network, self.view = network, view
        self.through_chip = False
        self.register_buffer("calibrated", torch.tensor(-1))

    def forward(self, x: Tensor) -> Tensor:
        """Answer a batch."""
        return self.view(x) if self.through_chip else self.network(x)


class ZerorizeRecover(Callback):
    """Lead a network through zero and recovery epochs.

    Args:
        network: that alternates.
        factors: of its kernels or crossbars; None: nothing is pruned, zero epochs only adapt.
        schedule: of the epochs.
        ratio: gives the share that a zero epoch sets to zero, as factors rank at its end.
        batches: training images that set ranges before each zero epoch.
        statistics: training images whose statistics batch norms have after it.
        reprogram_every: steps between programmed chips in zero epochs; 0: ideal cells.
        seed: of the chips.
        labelled: images and labels on which importance is measured before factors are ranked; none: magnitudes rank.
    """

    def __init__(
        self,
        network: Alternating,
        factors: Factors | None,
        schedule: Schedule,
        *,
        ratio: Callable[[], float],
        batches: Sequence[Tensor],
        statistics: Sequence[Tensor],
        reprogram_every: int,
        seed: int,
        labelled: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> None:
        self.labelled, self.statistics = labelled, statistics
        self.network, self.factors, self.schedule, self.ratio = network, factors, schedule, ratio
        self.batches, self.every, self.seed = batches, reprogram_every, seed
        self.current: int | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Take the way of this epoch; a resume in mid-epoch keeps the ranges that the epoch began with."""
        epoch = trainer.current_epoch
        self.network.through_chip = self.schedule.zeroes(epoch)
        if not self.network.through_chip:
            return
        if int(self.network.calibrated) != epoch:
            self.network.view.calibrate(self.batches)
            self.network.calibrated.fill_(epoch)
            self.current = None
        self._program(seeds.of_step(self.seed, -2, trainer.global_step // self.every) if self.every else IDEAL)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Bound the steps of a zero epoch: a chip with many faults may answer far from anything seen before."""
        if self.network.through_chip:
            bound(optimizer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Zero at the end of a zero epoch, before its network is tested, on ideal cells.

        The statistics of batch norms, constants in the epoch, are measured again for the weights that are left.
        """
        if self.network.through_chip:
            self._program(IDEAL)
            if self.factors is not None:
                if self.labelled:
                    self.factors.measure_importance(self.labelled)
                self.factors.zero(self.ratio())
            network = self.network.network
            update_bn(self.statistics, network, next(network.parameters()).device)

    def penalty(self, weight: float) -> Callable[[], Tensor | None]:
        """Return the L1 term of the loss, which zero epochs are free of."""

        def term() -> Tensor | None:
            if self.factors is None or self.network.through_chip:
                return None
            return weight * self.factors.penalty()

        return term

    def _program(self, seed: int) -> None:
        if seed != self.current:
            program(self.network.view.on_chip, seed)
            self.current = seed
