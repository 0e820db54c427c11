"""Another programmed chip every few steps, so that a network learns to live on any."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from bitline import seeds
from bitline.nn import IDEAL, program


class Reprogram(Callback):
    """Write the network into cells of another chip before every so many steps.

    Which chip a step sees depends on (seed, step) alone, so that a resumed run sees the same ones. Tests run on ideal
    cells.

    Args:
        network: converted.
        every: steps; 0: ideal cells in training too.
        seed: of the run.
    """

    def __init__(self, network: nn.Module, *, every: int, seed: int) -> None:
        self.network = network
        self.every = every
        self.seed = seed
        self.current = IDEAL

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Program the chip of this step."""
        self._program(seeds.of_step(self.seed, -2, trainer.global_step // self.every) if self.every else IDEAL)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test on ideal cells."""
        self._program(IDEAL)

    def _program(self, seed: int) -> None:
        if seed != self.current:
            program(self.network, seed)
            self.current = seed
