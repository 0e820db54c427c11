"""Decoded images on disk: written once, checked and memory-mapped at every later use."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitline.errors import DataError

ARRAYS = ("train_images", "train_labels", "test_images", "test_labels")


@dataclass(frozen=True)
class Meta:
    """What is known of decoded images beside their pixels; the fields are those of `DataSet`."""

    title: str
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Decoded:
    """Arrays by name (see `ARRAYS`) and what is known of them."""

    arrays: dict[str, np.ndarray]
    meta: Meta


def cache_dir() -> Path:
    """Return bitline's cache folder: ``$XDG_CACHE_HOME/bitline``, or ``~/.cache/bitline``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "bitline"


def cached(key: str, decode: Callable[[], Decoded]) -> Decoded:
    """Return decoded images from the cache, decoding them first if they are absent or damaged.

    A new entry is written beside its place and renamed, so a killed run leaves none half-written.

    Args:
        key: folder name, unique for the content of the source and the way it is decoded.
        decode: reads the source; called only when the cache cannot answer.

    Returns:
        The arrays, memory-mapped copy-on-write: a write stays in memory and never reaches the file.

    Raises:
        DataError: the cache folder cannot be written.
    """
    place = cache_dir() / "decoded" / key
    found = _read(place)
    if found is not None:
        return found
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=place.parent))
    except OSError as error:
        raise DataError(f"cannot write decoded images to {place.parent} ({error}); set XDG_CACHE_HOME") from error
    try:
        _write(temporary, decode())
        _replace(temporary, place)
    except OSError as error:
        raise DataError(f"cannot write decoded images to {place} ({error}); set XDG_CACHE_HOME") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    written = _read(place)
    if written is None:
        raise DataError(f"the decoded images in {place} are damaged as soon as they are written; check the disk")
    return written


def _write(folder: Path, decoded: Decoded) -> None:
    sizes: dict[str, int] = {}
    for name in ARRAYS:
        path = folder / f"{name}.npy"
        np.save(path, np.ascontiguousarray(decoded.arrays[name]))
        sizes[name] = path.stat().st_size
    record = {"sizes": sizes, "meta": asdict(decoded.meta)}
    (folder / "meta.json").write_text(json.dumps(record, indent=2), encoding="utf-8")


def _replace(temporary: Path, place: Path) -> None:
    """Rename a finished entry into its place; a damaged one there is moved away, a sound one wins."""
    try:
        os.rename(temporary, place)
    except OSError:
        if _read(place) is not None:  # another process was quicker
            return
        away = Path(tempfile.mkdtemp(prefix=".damaged-", dir=place.parent))
        os.rename(place, away / "entry")
        shutil.rmtree(away, ignore_errors=True)
        os.rename(temporary, place)


def _read(place: Path) -> Decoded | None:
    """Return the entry, or nothing if it is absent, truncated or unreadable."""
    try:
        record: dict[str, Any] = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        arrays: dict[str, np.ndarray] = {}
        for name in ARRAYS:
            path = place / f"{name}.npy"
            if path.stat().st_size != record["sizes"][name]:
                return None
            arrays[name] = np.load(path, mmap_mode="c", allow_pickle=False)
        meta = record["meta"]
        return Decoded(arrays, Meta(meta["title"], tuple(meta["classes"]), tuple(meta["mean"]), tuple(meta["std"])))
    except (OSError, ValueError, KeyError, TypeError):
        return None
