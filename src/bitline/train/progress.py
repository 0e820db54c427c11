"""How far an epoch is, in one short line of a terminal."""

import sys
import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

_EVERY = 0.2  # s between two looks


class ProgressLine(Callback):
    """Write ``epoch 3/15  47 %`` over itself, and take it away before anything else is said."""

    def __init__(self) -> None:
        self._shown = 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far the epoch is."""
        if time.monotonic() - self._shown >= _EVERY:
            self._shown = time.monotonic()
            share = (batch_idx + 1) / max(1, int(trainer.num_training_batches))
            self._write(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {share:.0%}")

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the line away."""
        self._write("")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the line away."""
        self._write("")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the line away."""
        self._write("")

    def _write(self, words: str) -> None:
        sys.stderr.write(f"\r\x1b[K{words}")
        sys.stderr.flush()
