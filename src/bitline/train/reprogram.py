"""Another programmed chip every few steps, so that a network learns to live on any."""

from contextlib import ExitStack
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from bitline import seeds
from bitline.nn import IDEAL, crossbar_layers, on, program


class Reprogram(Callback):
    """Write the network into cells of another chip before every so many steps.

    Which chip a step sees depends on (seed, step) alone, and layers keep how often they were read, so that a resumed
    run sees the same chips and the same noise. Tests run on ideal cells; training goes on as it would without them.

    Args:
        network: converted.
        every: steps; 0: ideal cells in training too.
        seed: of the run.
    """

    def __init__(self, network: nn.Module, *, every: int, seed: int) -> None:
        self.network = network
        self.every = every
        self.seed = seed
        self._test = ExitStack()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Program the chip of this step."""
        chip_of_step(self.network, trainer.global_step, every=self.every, seed=self.seed)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test on ideal cells."""
        self._test.enter_context(on(self.network))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the chip of the last step."""
        self._test.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Go back to it too if a test fails."""
        self._test.close()


def chip_of_step(network: nn.Module, step: int, *, every: int, seed: int) -> None:
    """Have a network on the chip of a step of training; one that is on it already is not programmed again.

    Args:
        network: converted.
        step: of the run.
        every: steps on the same chip; 0: ideal cells.
        seed: of the run.
    """
    chip = seeds.of_step(seed, -2, step // every) if every else IDEAL
    if any(int(layer.chip_seed) != chip for layer in crossbar_layers(network).values()):
        program(network, chip)
