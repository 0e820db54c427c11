"""Find images by name, decode them once, and answer with a `DataSet`."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bitline.data.cache import Decoded, cache_dir, cached
from bitline.data.dataset import DataSet, statistics
from bitline.data.decode import decode
from bitline.data.images import MOST_SIDE
from bitline.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

FORMAT = "1"  # raise when the way of decoding changes, so that old cache entries are not read
NAMED = ("cifar10", "digits")
_HUB_CIFAR10 = "uoft-cs/cifar10"


def load(name: str, *, data_dir: Path | str | None = None, image_size: int | None = None) -> DataSet:
    """Load a data set by name, path or hub name; decoded images are cached and memory-mapped.

    Args:
        name: ``"cifar10"``, ``"digits"`` (8 x 8 px, part of scikit-learn), a path (a folder with train and test
            parquet, a ``train.parquet`` beside its ``test.parquet``, or a folder of images as Hugging Face
            ``imagefolder`` reads it), or the name of a data set on the Hugging Face hub.
        data_dir: where to look for ``cifar10``; default: the environment variable ``BITLINE_DATA``, else bitline's
            cache folder.
        image_size: resize every image to this many px.

    Returns:
        The data set.

    Raises:
        DataError: nothing of that name was found (the places searched are listed), or the images cannot be used.
    """
    if image_size is not None and not 1 <= image_size <= MOST_SIDE:
        raise DataError(f"image_size is {image_size}; allowed: 1 to {MOST_SIDE} px")
    if name == "digits":
        return _digits(image_size)
    if name == "cifar10":
        return _cifar10(data_dir, image_size)
    path = Path(name).expanduser()
    if path.exists():
        return _path(path, name, image_size)
    if name.startswith((".", "/", "~")) or path.suffix == ".parquet":
        raise DataError(f"no such file or folder: {name}")
    return _hub(name, name, name, image_size)


def _digits(image_size: int | None) -> DataSet:
    """Return scikit-learn's 1,797 optical digits (UCI); every fifth image of a class is for testing."""
    from sklearn.datasets import load_digits

    if image_size not in (None, 8):
        raise DataError(f"image_size is {image_size}; digits come as 8 x 8 px only")
    bunch: Any = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, None]  # 0..16 as published
    labels = bunch.target.astype(np.int64)
    rank = np.zeros(len(labels), np.int64)
    for label in range(10):
        rank[labels == label] = np.arange((labels == label).sum())
    test = rank % 5 == 4
    mean, std = statistics(images[~test])
    return DataSet(
        name="digits",
        title="digits 8x8",
        train_images=torch.from_numpy(images[~test]),
        train_labels=torch.from_numpy(labels[~test]),
        test_images=torch.from_numpy(images[test]),
        test_labels=torch.from_numpy(labels[test]),
        classes=tuple("0123456789"),
        mean=mean,
        std=std,
    )


def _cifar10(data_dir: Path | str | None, image_size: int | None) -> DataSet:
    chosen = data_dir or os.environ.get("BITLINE_DATA")
    base = Path(chosen).expanduser() if chosen else cache_dir()
    searched = (base, base / "cifar10")
    for folder in searched:
        files = _parquet(folder)
        if files is not None:
            return _from_parquet(files, "cifar10", "CIFAR-10", image_size)
    try:
        return _hub(_HUB_CIFAR10, "cifar10", "CIFAR-10", image_size)
    except DataError as error:
        places = ", ".join(str(folder) for folder in searched)
        raise DataError(
            f"CIFAR-10 not found: no train and test parquet in {places}; {error}. "
            "Put train.parquet and test.parquet in one of these folders, or set --data-dir or BITLINE_DATA"
        ) from error


def _parquet(folder: Path) -> dict[str, list[Path]] | None:
    """Return the parquet files of train and test in a folder or its ``data`` folder, if both are there."""
    for place in (folder, folder / "data"):
        train = sorted(place.glob("train*.parquet"))
        for other in ("test", "validation", "valid"):
            test = sorted(place.glob(f"{other}*.parquet"))
            if train and test:
                return {"train": train, "test": test}
    return None


def _path(path: Path, name: str, image_size: int | None) -> DataSet:
    title = path.resolve().stem
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{path}: a {path.suffix or 'plain'} file; allowed: .parquet, or a folder")
        files = _parquet(path.parent)
        if files is None or path not in files["train"]:
            raise DataError(f"{path}: expected a train*.parquet beside a test*.parquet in {path.parent}")
        return _from_parquet(files, name, title, image_size)
    files = _parquet(path)
    if files is not None:
        return _from_parquet(files, name, title, image_size)
    linked = next((p for p in path.rglob("*") if p.is_symlink() and p.is_dir()), None)
    if linked is not None:
        raise DataError(f"{linked} is a link to a folder, which is not followed; link the images in it one by one")
    every = sorted(p for p in path.rglob("*") if p.is_file())
    if not every:
        raise DataError(f"{path}: an empty folder; expected train and test parquet, or folders of images")

    def read(scratch: str) -> tuple[Dataset, Dataset]:
        from datasets import load_dataset

        return _splits(load_dataset("imagefolder", data_dir=str(path), cache_dir=scratch), str(path))

    return _decoded(_fingerprint(every), read, name, title, image_size, folders=(path,))


def _from_parquet(files: dict[str, list[Path]], name: str, title: str, image_size: int | None) -> DataSet:
    def read(scratch: str) -> tuple[Dataset, Dataset]:
        from datasets import load_dataset

        listing = {split: [str(p) for p in paths] for split, paths in files.items()}
        return _splits(load_dataset("parquet", data_files=listing, cache_dir=scratch), str(files["train"][0].parent))

    every = [p for paths in files.values() for p in paths]
    return _decoded(_fingerprint(every), read, name, title, image_size)


def _hub(hub_name: str, name: str, title: str, image_size: int | None) -> DataSet:
    from datasets import config, load_dataset
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(hub_name, timeout=10)  # one quick question; load_dataset would retry for half a minute
        splits = load_dataset(hub_name)
    except Exception as error:  # the hub's client raises many kinds: connection, missing, gated ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(
            f"no data set {hub_name!r} from the Hugging Face hub: {reason} (HF_HUB_OFFLINE=1 uses what was downloaded "
            f"before); allowed beside hub names: {', '.join(NAMED)}, and a path that exists"
        ) from error
    train, test = _splits(splits, hub_name)
    fingerprint = f"{train._fingerprint}-{test._fingerprint}"  # pyright: ignore[reportPrivateUsage]
    folders = (Path(constants.HF_HUB_CACHE), Path(config.HF_DATASETS_CACHE))
    return _decoded(fingerprint, lambda _: (train, test), name, title, image_size, folders=folders)


def _splits(splits: Any, place: str) -> tuple[Dataset, Dataset]:
    """Return train and test; validation stands in for an absent test."""
    test = next((split for split in ("test", "validation", "valid") if split in splits), None)
    if "train" not in splits or test is None:
        raise DataError(f"{place}: found splits {sorted(splits)}; expected train and test")
    return splits["train"], splits[test]


def _fingerprint(files: list[Path]) -> str:
    """Return a hash of the paths, sizes and modification times."""
    digest = hashlib.sha256()
    for file in files:
        status = file.stat()
        link = f"{file.absolute()}|" if file.is_symlink() else ""  # its name says the label
        digest.update(f"{link}{file.resolve()}|{status.st_size}|{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _decoded(
    fingerprint: str,
    read: Callable[[str], tuple[Dataset, Dataset]],
    name: str,
    title: str,
    image_size: int | None,
    folders: Sequence[Path] = (),
) -> DataSet:
    def work() -> Decoded:
        import datasets

        quiet = datasets.is_progress_bar_enabled()
        datasets.disable_progress_bars()
        log.info("decoding %s, once; later runs read it from %s", title, cache_dir())
        try:
            with tempfile.TemporaryDirectory(prefix="bitline-") as scratch:
                train, test = read(scratch)
                return decode(train, test, name=title, image_size=image_size, folders=folders)
        except DataError:
            raise
        except Exception as error:  # damaged parquet, wrong schema ...: pyarrow and datasets raise many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"cannot read {name}: {reason[:300]}") from error
        finally:
            if quiet:
                datasets.enable_progress_bars()

    text = "|".join((FORMAT, fingerprint, title, str(image_size)))
    stem = "".join(c if c.isalnum() else "-" for c in title.lower())[:40]
    entry = cached(f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}", work)
    tensors = {name: torch.from_numpy(array) for name, array in entry.arrays.items()}
    meta = entry.meta
    return DataSet(name=name, title=meta.title, classes=meta.classes, mean=meta.mean, std=meta.std, **tensors)
