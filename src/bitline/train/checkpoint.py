"""Checkpoints of a training that can be killed at any time."""

from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from bitline.errors import DataError
from bitline.files import new_file


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints beside their place and rename them; read them without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint so that a killed process leaves the old one or the new one."""
        with new_file(Path(path)) as part:
            torch.save(checkpoint, part)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values only, whatever the caller asks for.

        Raises:
            DataError: damaged, or not a checkpoint of bitline.
        """
        try:
            return torch.load(path, map_location=map_location, weights_only=True)
        except Exception as error:  # torch raises many kinds: zip, pickle, runtime ...
            raise DataError(f"cannot read checkpoint {path}: {' '.join(str(error).split())[:200]}") from error


class WithinEpoch(ModelCheckpoint):
    """Checkpoints every so many steps, but for the last step of an epoch.

    From one there Lightning would resume in the next epoch, without testing this one; the checkpoint at the end of the
    epoch follows anyway.
    """

    @property
    def state_key(self) -> str:
        """The same for any number of steps, which may change at a resume."""
        return "WithinEpoch"

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save if it is time to."""
        if batch_idx + 1 < trainer.num_training_batches:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
