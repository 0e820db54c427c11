"""Encoded images (JPEG, PNG ... in a Hugging Face `Dataset`) to uint8 arrays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitline.data.cache import Decoded, Meta
from bitline.data.dataset import statistics
from bitline.data.images import check_memory, in_mode, open_image
from bitline.errors import DataError

log = logging.getLogger(__name__)

if TYPE_CHECKING:
    from datasets import Dataset
    from PIL.Image import Image

# ITU-T T.81 (JPEG), table K.1: the luminance table that libjpeg scales by the quality asked for.
_JPEG_LUMINANCE = (
    "16 11 10 16 24 40 51 61 "
    "12 12 14 19 26 58 60 55 "
    "14 13 16 24 40 57 69 56 "
    "14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 "
    "24 35 55 64 81 104 113 92 "
    "49 64 78 87 103 121 120 101 "
    "72 92 95 98 112 100 103 99"
)


MOST_CLASSES = 100_000
"""the largest public sets of labels have 21,841"""


def _remark(labels: np.ndarray, classes: Sequence[str], name: str) -> None:
    """Say where classes have no training image, or only one has any."""
    there = len(np.unique(labels))
    if there == 1:
        log.warning("%s: all training images are of class %s", name, classes[int(labels[0])])
    elif there < len(classes):
        log.warning("%s: %d of %d classes have no training image", name, len(classes) - there, len(classes))


def decode(
    train: Dataset, test: Dataset, *, name: str, image_size: int | None, folders: Sequence[Path] = ()
) -> Decoded:
    """Decode both splits to arrays of one size and one number of channels.

    Args:
        train: rows with one image and one label column.
        test: as train.
        name: how to call the data; the encoding is added to it when it is lossy.
        image_size: resize every image to this many px, or None to require one size.
        folders: that images may be read from where rows name files; no file is read without them.

    Returns:
        The arrays, class names and statistics of the training images.

    Raises:
        DataError: no image or label column, labels that are null or out of range, images of several sizes, not square,
            too large, of an unknown kind, or outside the folders.
    """
    columns = _columns(train)
    if _columns(test) != columns:
        raise DataError(f"{name}: train has {columns}, test has {_columns(test)}; expected the same")
    image_column, label_column = columns.image, columns.label
    classes, labels = columns.classes, {"train": train[label_column][:], "test": test[label_column][:]}
    most = min(MOST_CLASSES, len(labels["train"])) if classes is None else len(classes)
    arrays = {f"{split}_labels": _labels(each, most, f"{name}: {split}") for split, each in labels.items()}
    if classes is None:
        classes = tuple(str(n) for n in range(int(arrays["train_labels"].max()) + 1))
        _labels(labels["test"], len(classes), f"{name}: test")
    _remark(arrays["train_labels"], classes, name)
    splits = {
        split: _Images(rows, image_column, f"{name}: {split}", folders)
        for split, rows in (("train", train), ("test", test))
    }
    side, channels, encoding = _survey(splits.values(), name, image_size)
    check_memory(len(train) + len(test), channels, side, name)
    for split, images in splits.items():
        arrays[f"{split}_images"] = images.pixels(channels, side)
    mean, std = statistics(arrays["train_images"])
    return Decoded(arrays, Meta(f"{name} ({encoding})" if encoding else name, classes, mean, std))


@dataclass(frozen=True)
class _Columns:
    """The names of the image and the label column, and the class names if the file has them."""

    image: str
    label: str
    classes: tuple[str, ...] | None


def _columns(rows: Dataset) -> _Columns:
    from datasets import ClassLabel, Image, Value

    features: dict[str, Any] = dict(rows.features)
    images = [
        key
        for key, kind in features.items()
        if isinstance(kind, Image) or (isinstance(kind, dict) and set(kind) == {"bytes", "path"})  # pyright: ignore[reportUnknownArgumentType]
    ]
    labels = [key for key, kind in features.items() if isinstance(kind, ClassLabel)]
    labels = labels or [key for key in ("label", "labels") if isinstance(features.get(key), Value)]
    if len(images) != 1 or len(labels) != 1:
        raise DataError(
            f"expected one image column and one label column; found images {images}, labels {labels} "
            f"among the columns {list(features)}"
        )
    kind = features[labels[0]]
    if isinstance(kind, ClassLabel):
        return _Columns(images[0], labels[0], tuple(str(n) for n in kind.names))
    if not str(kind.dtype).startswith(("int", "uint")):
        raise DataError(f"column {labels[0]!r} holds {kind.dtype}; allowed: integer class numbers, or ClassLabel")
    return _Columns(images[0], labels[0], None)


def _labels(values: list[int | None], most: int, where: str) -> np.ndarray:
    """Check class numbers, which are below `most`, and return them as int64."""
    if not values:
        raise DataError(f"{where} has no rows; expected at least one image")
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise DataError(f"{where}: {len(values) - len(known)} of {len(values)} labels are null")
    if min(known) < 0 or max(known) >= most:
        raise DataError(f"{where}: labels from {min(known)} to {max(known)}; allowed: 0 to {most - 1}")
    return np.asarray(known, np.int64)


class _Images:
    """The encoded images of one split.

    Args:
        rows: with a column of images.
        column: its name.
        where: data and split, for errors.
        folders: that images may be read from.
    """

    def __init__(self, rows: Dataset, column: str, where: str, folders: Sequence[Path]) -> None:
        from datasets import Image as Encoded

        self.column: Any = rows.cast_column(column, Encoded(decode=False))[column]
        self.count, self.where, self.folders = len(rows), where, tuple(folders)

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        """Give what to call each image, and the image with its pixels not yet decoded."""
        for number, record in enumerate(self.column):
            name = f"{self.where} image {number}"
            yield name, open_image(record, name, self.folders)

    def pixels(self, channels: int, side: int) -> np.ndarray:
        """Decode all of them: uint8, (images, channels, side, side)."""
        result = np.empty((self.count, channels, side, side), np.uint8)
        for number, (name, image) in enumerate(self):
            decoded = in_mode(image, "L" if channels == 1 else "RGB", side, name)
            result[number] = np.asarray(decoded).reshape(side, side, channels).transpose(2, 0, 1)
        return result


def _survey(splits: Iterable[_Images], name: str, image_size: int | None) -> tuple[int, int, str]:
    """Read only the headers: return side, channels (1 if every image is grey, else 3), the lossy encoding or ''."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: set[str] = set()
    encodings: set[str] = set()
    for images in splits:
        for _, image in images:
            sizes[image.size] += 1
            modes.add(image.mode)
            encodings.add(_encoding(image))
    unknown = sorted(mode for mode in modes if mode not in {"1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr"})
    if unknown:
        raise DataError(f"{name}: pixel modes {unknown}; allowed: 8-bit grey or colour (L, RGB, RGBA, P, ...)")
    if image_size is None and (len(sizes) > 1 or any(width != height for width, height in sizes)):
        listing = ", ".join(f"{w}x{h} ({n})" for (w, h), n in sizes.most_common(5))
        more = f" and {len(sizes) - 5} other sizes" if len(sizes) > 5 else ""
        raise DataError(
            f"{name}: images must be square and of one size; found {listing}{more}; set image_size to resize"
        )
    side = next(iter(sizes))[0] if image_size is None else image_size
    return side, (1 if modes <= {"1", "L", "LA"} else 3), encodings.pop() if len(encodings) == 1 else ""


def _encoding(image: Image) -> str:
    """Return ``"JPEG q75"`` for a JPEG of libjpeg quality 75, and an empty string for other formats."""
    tables: dict[int, list[int]] | None = getattr(image, "quantization", None)
    if image.format != "JPEG" or not tables:
        return ""
    quality = _jpeg_quality(tuple(sorted(tables[min(tables)])))
    return "JPEG" if quality is None else f"JPEG q{quality}"


@cache
def _jpeg_quality(table: tuple[int, ...]) -> int | None:
    """Return the libjpeg quality that scales table K.1 to this sorted one, or nothing if none does."""
    for quality in range(100, 0, -1):
        scale = 5000 // quality if quality < 50 else 200 - 2 * quality
        scaled = (min(max((entry * scale + 50) // 100, 1), 255) for entry in map(int, _JPEG_LUMINANCE.split()))
        if tuple(sorted(scaled)) == table:
            return quality
    return None
