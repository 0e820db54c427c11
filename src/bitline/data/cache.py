"""Decoded images on disk: written once, memory-mapped and compared with their hash at every later use."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from bitline.errors import DataError, ExportError
from bitline.files import new_file, parse_json, read_tensors, remove_parts

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Meta:
    """What is known of decoded images beside their pixels.

    Args:
        encoding: that loses something, ``"JPEG q75"``; or empty.
        classes: one name per label.
        mean: of the training images per channel, in [0, 1].
        std: as mean.
    """

    encoding: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Decoded:
    """Decoded images.

    Args:
        arrays: by name, see `ARRAYS`; there may be no test images yet.
        meta: what is known of them.
        native: whether they have the size that they came in.
    """

    arrays: dict[str, np.ndarray]
    meta: Meta
    native: bool = True

    @property
    def side(self) -> int:
        """Height and width of an image, px."""
        return self.arrays["train_images"].shape[2]


def cache_dir() -> Path:
    """Return bitline's cache folder: ``$XDG_CACHE_HOME/bitline``, or ``~/.cache/bitline``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bitline"


def cached(
    key: str,
    image_size: int | None,
    decode: Callable[[], Decoded],
    *,
    replaces: Callable[[int], Sequence[str]] | None = None,
) -> Decoded:
    """Return decoded images from the cache, decoding them first if they are absent or damaged.

    An entry is one safetensors file, written beside its place and renamed, so a killed run leaves none half-written.
    Images of the size that they came in have one entry, however that size was asked for.

    Args:
        key: name, unique for the content of the source.
        image_size: that images are resized to, px; None: the size that they came in.
        decode: reads the source; called only when the cache cannot answer.
        replaces: gives the names of entries that an earlier way of decoding left of the same source, for a size; they
            are removed.

    Returns:
        The arrays, memory-mapped copy-on-write: a write stays in memory and never reaches the file.

    Raises:
        DataError: the cache folder cannot be written.
    """
    folder = cache_dir() / "decoded"
    native, resized = folder / f"{key}.safetensors", folder / f"{key}-{image_size}px.safetensors"
    entry = _read(native)
    if entry is not None and image_size in (None, entry.side):
        return entry
    entry = None if image_size is None else _read(resized)
    if entry is not None:
        return entry
    decoded = decode()
    place = native if decoded.native else resized
    remove_parts(folder, [place.name])
    try:
        with new_file(place) as part:
            _write(part, decoded)
    except (ExportError, SafetensorError) as error:
        raise DataError(f"cannot write decoded images to {place} ({error}); set XDG_CACHE_HOME") from error
    for name in replaces(decoded.side) if replaces else ():
        (folder / f"{name}.safetensors").unlink(missing_ok=True)
        shutil.rmtree(folder / name, ignore_errors=True)  # entries were folders once
    entry = _read(place)
    if entry is None:
        raise DataError(f"the decoded images in {place} are damaged as soon as they are written; check the disk")
    return entry


def _write(path: Path, decoded: Decoded) -> None:
    tensors = {name: torch.from_numpy(np.ascontiguousarray(decoded.arrays[name])) for name in ARRAYS}
    meta = json.dumps(asdict(decoded.meta))
    save_file(tensors, str(path), {"meta": meta, "digest": _digest(tensors, meta)})


def _digest(tensors: Mapping[str, torch.Tensor], meta: str) -> str:
    """Return a hash of the content: what is known of the images, and every number of them."""
    digest = hashlib.blake2b(meta.encode(), digest_size=16)
    for name in ARRAYS:
        array = tensors[name].numpy()
        digest.update(f"|{name} {array.dtype} {array.shape}|".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _read(place: Path) -> Decoded | None:
    """Return the entry, or nothing if it is absent, truncated, unreadable or not as it was written."""
    try:
        tensors, metadata = read_tensors(place)
        if metadata["digest"] != _digest(tensors, metadata["meta"]):
            return None
        meta: Any = parse_json(metadata["meta"])
        arrays = {name: tensors[name].numpy() for name in ARRAYS}
        return Decoded(arrays, Meta(meta["encoding"], tuple(meta["classes"]), tuple(meta["mean"]), tuple(meta["std"])))
    except (DataError, ValueError, KeyError, TypeError):
        return None
