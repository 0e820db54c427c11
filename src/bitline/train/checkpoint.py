"""Files that are either whole or absent, whenever the process is killed."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from bitline.errors import DataError


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints beside their place and rename them; read them without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint so that a killed process leaves the old one or the new one."""
        replace_file(Path(path), lambda temporary: torch.save(checkpoint, temporary))

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


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file beside its place, flush it to disk and rename it.

    Args:
        path: where the file goes; its folder is created.
        write: writes the path it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object, whole or not at all."""
    text = json.dumps(content, indent=2) + "\n"
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
