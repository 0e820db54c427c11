"""Find images by name, decode them once, and answer with a `DataSet`."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bitline.data.cache import Decoded, cache_dir, cached
from bitline.data.columns import Columns, Rows, rows
from bitline.data.dataset import DataSet, statistics
from bitline.data.decode import decode
from bitline.data.division import check_share, for_testing
from bitline.data.folders import Folder, find
from bitline.data.identity import earlier, fingerprint_1, identity
from bitline.data.images import MOST_SIDE
from bitline.data.layouts import layouts
from bitline.errors import DataError
from bitline.extras import need
from bitline.files import near

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger(__name__)

FORMAT = "3"  # raise when the way of decoding changes, so that old cache entries are not read
NAMED = ("cifar10", "digits")
_HUB_CIFAR10 = "uoft-cs/cifar10"
_SPLIT = "split=0.2 (--split 0.2) to set some apart"


def load(
    name: str,
    *,
    data_dir: Path | str | None = None,
    image_size: int | None = None,
    split: float | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
) -> DataSet:
    """Load a data set by name, path or hub name; decoded images are cached and memory-mapped.

    Args:
        name: ``"cifar10"``, ``"digits"``, a path, or the name of a data set on the Hugging Face hub: what a path may
            hold stands in `bitline.data.LAYOUTS`.
        data_dir: where to look for ``cifar10``; default: the environment variable ``BITLINE_DATA``, else bitline's
            cache folder.
        image_size: resize every image to this many px.
        split: share of the images of each class that is set apart for testing, where there are no test images: the
            same ones every time, whatever their order.
        image_column: of a table; default: the only one with images.
        label_column: of a table; default: the only one with class names, else ``label`` or ``labels``, else the only
            one of whole numbers or texts. Texts are sorted to classes.

    Returns:
        The data set.

    Raises:
        DataError: nothing of that name was found (the places searched are listed), or the images cannot be used.
    """
    if image_size is not None and not 1 <= image_size <= MOST_SIDE:
        raise DataError(f"image_size is {image_size}; allowed: 1 to {MOST_SIDE} px")
    check_share(split)
    asked = _Asked(name, image_size, split, Columns(image_column, label_column))
    if name == "digits":
        return _digits(asked)
    if name == "cifar10":
        return _cifar10(data_dir, asked)
    path = Path(name).expanduser()
    if path.exists():
        return _path(path, asked)
    absent = f"no such file or folder: {name}{near(path, NAMED)}"
    local = name.startswith((".", "/", "~")) or path.suffix == ".parquet" or name.count("/") > 1
    if local or (path.parent != Path() and path.parent.is_dir()):
        raise DataError(absent)
    try:
        return _hub(name, name, asked)
    except _NotOnHubError as error:
        raise DataError(f"{absent}; {error}") from error


class _NotOnHubError(DataError):
    """The hub gives no data set of a name."""


@dataclass(frozen=True)
class _Asked:
    """What `load` was asked for."""

    name: str
    image_size: int | None
    split: float | None
    columns: Columns

    def refuse_columns(self, what: str) -> None:
        """Refuse names of columns where there are none."""
        for key, value in (("image_column", self.columns.image), ("label_column", self.columns.label)):
            if value is not None:
                raise DataError(f"{key} is {value!r}, but {what} has no columns: leave it out")

    def refuse_split(self, what: str) -> None:
        """Refuse to take test images from training images where there are some."""
        if self.split is not None:
            raise DataError(f"split is {self.split:g}, but {what} has test images of its own: leave it out")


def _digits(asked: _Asked) -> DataSet:
    """Return 1,797 optical digits; every fifth image of a class is for testing.

    The test images of E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
    Repository, 1998, doi:10.24432/C50P49, CC BY 4.0; levels 0 to 16, as scikit-learn has them too.
    """
    asked.refuse_columns("digits")
    asked.refuse_split("digits")
    if asked.image_size not in (None, 8):
        raise DataError(f"image_size is {asked.image_size}; digits come as 8 x 8 px only")
    with np.load(Path(__file__).with_name("digits.npz")) as stored:
        images = np.rint(stored["images"] * (255 / 16)).astype(np.uint8)[:, None]
        labels = stored["labels"].astype(np.int64)
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


def _cifar10(data_dir: Path | str | None, asked: _Asked) -> DataSet:
    chosen = data_dir or os.environ.get("BITLINE_DATA")
    base = Path(chosen).expanduser() if chosen else cache_dir()
    searched = (base, base / "cifar10")
    for folder in searched:
        files = _parquet(folder)
        if files is not None and "test" in files:
            return _from_parquet(files, "CIFAR-10", asked)
    try:
        return _hub(_HUB_CIFAR10, "CIFAR-10", asked)
    except DataError as error:
        places = ", ".join(str(folder) for folder in searched)
        raise DataError(
            f"CIFAR-10 not found: no train and test parquet in {places}; {error}. "
            "Put train.parquet and test.parquet in one of these folders, or set --data-dir or BITLINE_DATA"
        ) from error


def _parquet(folder: Path) -> dict[str, list[Path]] | None:
    """Return the parquet files of train, and of test if there are any, of a folder or its ``data`` folder."""
    for place in (folder, folder / "data"):
        every = sorted(place.glob("*.parquet"))
        tests = {other: [p for p in every if p.name.startswith(other)] for other in ("test", "validation", "valid")}
        test = next((files for files in tests.values() if files), [])
        train = [p for p in every if p.name.startswith("train")]
        if train and test:
            return {"train": train, "test": test}
        if every and not test:
            return {"train": train or every}
    return None


def _path(path: Path, asked: _Asked) -> DataSet:
    title = path.resolve().stem
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{path}: a {path.suffix or 'plain'} file; allowed: .parquet, or a folder")
        files = _parquet(path.parent)
        if asked.split is not None and (files is None or "test" not in files or path not in files["train"]):
            files = {"train": [path]}
        if files is None or path not in files["train"]:
            raise DataError(f"{path}: expected a train*.parquet beside a test*.parquet in {path.parent}, or {_SPLIT}")
        return _from_parquet(files, title, asked)
    files = _parquet(path)
    if files is not None:
        return _from_parquet(files, title, asked)
    if not any(path.iterdir()):
        raise DataError(f"{path}: an empty folder; data may be: {layouts()}")
    asked.refuse_columns(f"{path}, a folder of images,")
    train, test = find(path)
    named = {"train": train} if test is None else {"train": train, "test": test}
    every = {f"{split}/{file.name}": file.place for split, folder in named.items() for file in folder.files}
    classes = train.classes

    def read(_: str) -> tuple[Rows, Rows | None]:
        return _rows_of(train, classes), None if test is None else _rows_of(test, classes)

    before = partial(_walked, path)
    names, has_test = [file.name for file in train.files], test is not None
    source = _Source(identity(every), before, title, read, has_test=has_test, names=names, folders=(path,))
    return _decoded(source, asked)


def _walked(path: Path) -> str:
    return fingerprint_1(sorted(p for p in path.rglob("*") if p.is_file()))


def _rows_of(folder: Folder, classes: tuple[str, ...]) -> Rows:
    numbers = {label: number for number, label in enumerate(classes)}
    images = [{"bytes": None, "path": str(file.place)} for file in folder.files]
    return Rows(images, [numbers[file.label] for file in folder.files], classes)


def _from_parquet(files: dict[str, list[Path]], title: str, asked: _Asked) -> DataSet:
    need("a table of images", "data")

    def read(scratch: str) -> tuple[Rows, Rows | None]:
        from datasets import load_dataset

        listing = {split: [str(p) for p in paths] for split, paths in files.items()}
        with _no_bars():
            tables: Any = load_dataset("parquet", data_files=listing, cache_dir=scratch)
            return _both({split: tables[split] for split in files}, title, asked.columns)

    every = {f"{split}/{n}": p for split, paths in files.items() for n, p in enumerate(paths)}
    before = partial(fingerprint_1, [p for paths in files.values() for p in paths])
    return _decoded(_Source(identity(every), before, title, read, has_test="test" in files), asked)


@contextmanager
def _no_bars() -> Generator[None]:
    """Read tables without progress bars."""
    import datasets

    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _both(tables: Mapping[str, Dataset], title: str, columns: Columns) -> tuple[Rows, Rows | None]:
    train = rows(tables["train"], columns, f"{title}: train")
    return train, rows(tables["test"], columns, f"{title}: test") if "test" in tables else None


def _hub(hub_name: str, title: str, asked: _Asked) -> DataSet:
    need(f"data {hub_name!r}, no path that exists, would come from the Hugging Face hub, which", "data")
    from datasets import config, load_dataset
    from huggingface_hub import HfApi, constants

    try:
        if not constants.HF_HUB_OFFLINE:
            HfApi().dataset_info(hub_name, timeout=10)  # one quick question; load_dataset would retry for half a minute
        splits: Any = load_dataset(hub_name)
    except Exception as error:  # the hub's client raises many kinds: connection, missing, gated ...
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise _NotOnHubError(
            f"no data set {hub_name!r} from the Hugging Face hub: {reason} (HF_HUB_OFFLINE=1 uses what was downloaded "
            f"before); allowed beside hub names: {', '.join(NAMED)}, and a path that exists"
        ) from error
    test = next((split for split in ("test", "validation", "valid") if split in splits), None)
    if "train" not in splits:
        raise DataError(f"{hub_name}: found splits {sorted(splits)}; expected train and test")
    tables = {"train": splits["train"], **({} if test is None else {"test": splits[test]})}
    fingerprint = "-".join(table._fingerprint for table in tables.values())

    def quietly(_: str) -> tuple[Rows, Rows | None]:
        with _no_bars():
            return _both(tables, title, asked.columns)

    source = _Source(
        fingerprint,
        lambda: fingerprint,
        title,
        quietly,
        has_test=test is not None,
        folders=(Path(constants.HF_HUB_CACHE), Path(config.HF_DATASETS_CACHE)),
    )
    return _decoded(source, asked)


@dataclass(frozen=True)
class _Source:
    """Encoded images that were found.

    Args:
        identity: a name for what they are.
        earlier: the name that they had in format 1.
        title: how to call them.
        read: gives the rows of train and test; it may use the folder that it is given.
        has_test: whether there are test images.
        names: of the training images, by which some are set apart; None: their numbers.
        folders: that images may be read from.
    """

    identity: str
    earlier: Callable[[], str]
    title: str
    read: Callable[[str], tuple[Rows, Rows | None]]
    has_test: bool
    names: Sequence[str] | None = None
    folders: Sequence[Path] = ()


def _decoded(source: _Source, asked: _Asked) -> DataSet:
    title = source.title
    if source.has_test:
        asked.refuse_split(asked.name)
    elif asked.split is None:
        raise DataError(f"{asked.name} has training images alone; expected train and test, or {_SPLIT}")

    def work() -> Decoded:
        log.info("decoding %s, once; later runs read it from %s", title, cache_dir())
        try:
            with tempfile.TemporaryDirectory(prefix="bitline-") as scratch:
                train, test = source.read(scratch)
                return decode(train, test, name=title, image_size=asked.image_size, folders=source.folders)
        except DataError:
            raise
        except Exception as error:  # damaged parquet, wrong schema ...: pyarrow and datasets raise many kinds
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise DataError(f"cannot read {asked.name}: {reason[:300]}") from error

    columns = (asked.columns.image, asked.columns.label)
    key = hashlib.sha256("|".join((FORMAT, source.identity, *map(str, columns))).encode()).hexdigest()[:32]
    entry = cached(
        f"images-{key}",
        asked.image_size,
        work,
        replaces=lambda side: [earlier(source.earlier(), title, size) for size in (None, asked.image_size, side)],
    )
    arrays, meta = entry.arrays, entry.meta
    mean, std = meta.mean, meta.std
    if asked.split is not None:
        labels = arrays["train_labels"]
        names = source.names or [str(number) for number in range(len(labels))]
        test = for_testing(names, labels, asked.split)
        arrays = {
            f"{split}_{what}": arrays[f"train_{what}"][chosen]
            for split, chosen in (("train", ~test), ("test", test))
            for what in ("images", "labels")
        }
        mean, std = statistics(arrays["train_images"])
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    shown = f"{title} ({meta.encoding})" if meta.encoding else title
    return DataSet(name=asked.name, title=shown, classes=meta.classes, mean=mean, std=std, **tensors)
