"""Checkpoints of a training that can be killed at any time, each with a digest of itself at its end."""

import hashlib
import logging
import os
from pathlib import Path
from typing import Any, cast

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from bitline.errors import DataError, ExportError
from bitline.files import CHECKPOINT, PREVIOUS, new_file
from bitline.models.weights import check_weights

log = logging.getLogger(__name__)

_MARK, _DIGEST = b"\nbitline sha256 ", 64
"""what follows the zip archive that PyTorch writes; its reader passes over it"""
_KEYS = ("state_dict", "bitline", "epoch", "global_step", "loops", "optimizer_states", "lr_schedulers", "callbacks")


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints beside their place and rename them; read them without unpickling code."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint, and keep the one before it; a killed process leaves one of them.

        Raises:
            ExportError: it cannot be written; the one before it stays.
        """
        path = Path(path)
        with new_file(path) as part:
            try:
                torch.save(checkpoint, part)
            except RuntimeError as error:  # of PyTorch's own writer, for example on a full disk
                raise ExportError(f"cannot write {path}: {' '.join(str(error).split())[:200]}") from error
            digest = _digest(part, part.stat().st_size)
            with part.open("ab") as file:
                file.write(_MARK + digest.encode())
            if path.is_file():
                os.replace(path, path.with_name(PREVIOUS))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read tensors and plain values only, whatever the caller asks for.

        Raises:
            DataError: damaged, or not a checkpoint of bitline.
        """
        return load(Path(path), map_location)


def load(path: Path, map_location: Any = None) -> dict[str, Any]:
    """Read a checkpoint: tensors and plain values only.

    Raises:
        DataError: its digest does not fit, or it is damaged or no checkpoint of bitline.
    """
    if not path.is_file():
        raise DataError(f"{path} is no file")
    if (written := _written(path)) is not None and written != _digest(path, path.stat().st_size - _tail()):
        raise DataError(f"{path} is damaged: its SHA-256 is not the one that was written with it")
    try:
        content = torch.load(path, map_location=map_location, weights_only=True)
    except Exception as error:  # torch raises many kinds: zip, pickle, runtime ...
        raise DataError(
            f"{path} is damaged, or holds more than tensors and plain values ({type(error).__name__})"
        ) from error
    absent = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    absent += [key for key in ("optimizer_states", "lr_schedulers") if key not in absent and not content[key]]
    if absent:
        raise DataError(f"{path} is no checkpoint of a training: it has no {', '.join(absent)}")
    return cast("dict[str, Any]", content)


def to_resume(out: Path, module: nn.Module, *, digests: bool) -> Path | None:
    """Return the checkpoint that a run goes on from; None where it has none yet.

    Args:
        out: run directory.
        module: that the checkpoint is of.
        digests: whether all of its checkpoints have one.

    Raises:
        DataError: a damaged one, or one with weights that are not finite; says which other may be used.
    """
    last, previous = out / CHECKPOINT, out / CHECKPOINT.with_name(PREVIOUS)
    path = last if last.exists() or not previous.exists() else previous
    if not path.exists():
        log.info(f"{out} has no checkpoint yet: from the start")
        return None
    try:
        content = _loaded(path, module)
        if _written(path) is None:
            if digests:
                raise DataError(f"{path} is damaged: the SHA-256 that was written with it is gone")
            log.info(f"{path} is of an earlier version, which wrote no SHA-256: it is not checked")
    except DataError as error:
        raise DataError(f"{error}; {_instead(path, previous, module)}") from error
    if path != last:
        log.info(f"{last} is absent: going on from {path} ({_place(content)})")
    return path


def _loaded(path: Path, module: nn.Module) -> dict[str, Any]:
    """Load a checkpoint whose weights are finite; buffers such as masks, and ranges not known yet, need not be."""
    content = load(path)
    check_weights(module, str(path), content["state_dict"])
    return content


def _instead(path: Path, previous: Path, module: nn.Module) -> str:
    """Say what else a run may go on from."""
    try:
        if path != previous and previous.exists():
            place = _place(_loaded(previous, module))
            return f"{previous} ({place}) is whole: remove {path.name}, and --resume goes on from there"
    except DataError:
        pass
    return "no earlier checkpoint is whole: start again with --overwrite"


def _place(content: dict[str, Any]) -> str:
    return f"epoch {content['epoch'] + 1}, step {content['global_step']}"


def _tail() -> int:
    return len(_MARK) + _DIGEST


def _written(path: Path) -> str | None:
    """Digest at the end of a checkpoint; None where it has none."""
    size = path.stat().st_size
    if size <= _tail():
        return None
    with path.open("rb") as file:
        file.seek(size - _tail())
        mark, digest = file.read(len(_MARK)), file.read()
    return digest.decode("ascii", "replace") if mark == _MARK else None


def _digest(path: Path, size: int) -> str:
    """SHA-256 of the first bytes of a file, so many."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while size > 0 and (block := file.read(min(size, 2**20))):
            digest.update(block)
            size -= len(block)
    return digest.hexdigest()


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
