"""Epochs in which statistics stand for the conversions of a chip, before those that are simulated exactly."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from bitline import seeds
from bitline.nn import IDEAL
from bitline.surrogate import Surrogate, attach, detach, measure
from bitline.surrogate.statistics import from_plain, to_plain

CHIPS = 4
"""programmed, whose conversions and cells the statistics of an epoch are of"""


class SurrogateEpochs(Callback):
    """Let a network on a chip learn from one plain product with noise, in the first epochs of its training.

    Statistics are measured before each of these epochs, on the network as it is then. Cells err as those of a chip of
    their own for each chip seed, but are not programmed: their errors are drawn. Tests are simulated exactly.

    Args:
        network: converted and calibrated.
        images: that statistics are measured on; some for each of `CHIPS` chips.
        epochs: the first so many.
        programmed: whether training sees programmed chips, or ideal cells.
        seed: of the run.
    """

    def __init__(self, network: nn.Module, images: Tensor, *, epochs: int, programmed: bool, seed: int) -> None:
        self.network, self.images, self.epochs = network, images, epochs
        self.programmed, self.seed = programmed, seed
        self._measured: tuple[int, Surrogate] | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Measure where an epoch begins, and say what answers."""
        if trainer.current_epoch >= self.epochs:
            detach(self.network)
            return
        if self._measured is None or self._measured[0] != trainer.current_epoch:
            detach(self.network)
            self._measured = (trainer.current_epoch, self._measure(trainer.current_epoch))
        attach(self.network, self._measured[1], drawn=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Test exactly."""
        detach(self.network)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave nothing behind."""
        detach(self.network)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the network to answer exactly."""
        detach(self.network)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs: statistics of the epoch that it is in."""
        return {} if self._measured is None else {"epoch": self._measured[0], **to_plain(self._measured[1])}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with these statistics."""
        self._measured = (state_dict["epoch"], from_plain(state_dict)) if state_dict else None

    def _measure(self, epoch: int) -> Surrogate:
        chips: Sequence[int] = [seeds.of_step(self.seed, -3, epoch, chip) for chip in range(CHIPS)]
        batches = self.images.chunk(CHIPS)
        return measure(self.network, batches, seed=chips[: len(batches)] if self.programmed else IDEAL)
