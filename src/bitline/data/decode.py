"""Encoded images (JPEG, PNG ...) to uint8 arrays."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitline.data.cache import Decoded, Meta
from bitline.data.columns import Rows
from bitline.data.dataset import statistics
from bitline.data.images import check_memory, in_mode, open_image
from bitline.errors import DataError, shown

log = logging.getLogger(__name__)

if TYPE_CHECKING:
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
    train: Rows, test: Rows | None, *, name: str, image_size: int | None, folders: Sequence[Path] = ()
) -> Decoded:
    """Decode both splits to arrays of one size and one number of channels.

    Args:
        train: encoded images and labels.
        test: as train; None: there are none yet.
        name: of the data, for errors.
        image_size: resize every image to this many px, or None to require one size.
        folders: that images may be read from where rows name files; no file is read without them.

    Returns:
        The arrays, class names and statistics of the training images.

    Raises:
        DataError: labels that are null, broken or out of range, images of several sizes, not square, too large, of an
            unknown kind, or outside the folders.
    """
    splits = {"train": train} if test is None else {"train": train, "test": test}
    classes, arrays = _labels(splits, name)
    _remark(arrays["train_labels"], classes, name)
    images = {split: _Images(rows, f"{name}: {split}", folders) for split, rows in splits.items()}
    found = _survey(images.values(), name, image_size)
    side, channels = found.side, found.channels
    check_memory(sum(len(rows.labels) for rows in splits.values()), channels, side, name)
    for split, encoded in images.items():
        arrays[f"{split}_images"] = encoded.pixels(channels, side)
    if test is None:
        arrays["test_images"] = np.empty((0, channels, side, side), np.uint8)
        arrays["test_labels"] = np.empty(0, np.int64)
    mean, std = statistics(arrays["train_images"])
    return Decoded(arrays, Meta(found.encoding, classes, mean, std), native=found.native)


def _labels(splits: Mapping[str, Rows], name: str) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the class names, and the class numbers of each split as int64."""
    for split, rows in splits.items():
        _check_labels(rows.labels, f"{name}: {split}")
    train = splits["train"]
    if any(rows.classes != train.classes for rows in splits.values()):
        listed = ", ".join(f"{split} {rows.classes}" for split, rows in splits.items())
        raise DataError(f"{name}: classes differ: {shown(listed, 300)}")
    if isinstance(train.labels[0], str):  # and so are all: a table has one kind of column
        classes = tuple(sorted(set(train.labels)))
        numbers = {text: number for number, text in enumerate(classes)}
        unknown = sorted({text for rows in splits.values() for text in rows.labels if text not in numbers})
        if unknown:
            raise DataError(f"{name}: test: labels {shown(unknown)} are of no training image")
        if len(classes) > MOST_CLASSES:
            raise DataError(f"{name}: {len(classes)} different labels; allowed: {MOST_CLASSES}")
        return classes, {
            f"{split}_labels": np.asarray([numbers[text] for text in rows.labels], np.int64)
            for split, rows in splits.items()
        }
    most = min(MOST_CLASSES, len(train.labels)) if train.classes is None else len(train.classes)
    arrays = {split: _numbers(rows.labels, most, f"{name}: {split}") for split, rows in splits.items()}
    classes = train.classes or tuple(str(n) for n in range(int(arrays["train"].max()) + 1))
    for split, rows in splits.items():
        _numbers(rows.labels, len(classes), f"{name}: {split}")
    return classes, {f"{split}_labels": array for split, array in arrays.items()}


def _check_labels(values: Sequence[Any], where: str) -> None:
    if not values:
        raise DataError(f"{where} has no rows; expected at least one image")
    null = sum(value is None for value in values)
    if null:
        raise DataError(f"{where}: {null} of {len(values)} labels are null")


def _numbers(values: Sequence[float], most: int, where: str) -> np.ndarray:
    """Check class numbers, which are whole and below `most`, and return them as int64."""
    broken = next((value for value in values if isinstance(value, float) and not value.is_integer()), None)
    if broken is not None:
        raise DataError(f"{where}: a label is {broken}; allowed: whole numbers or texts")
    if min(values) < 0 or max(values) >= most:
        raise DataError(f"{where}: labels from {min(values)} to {max(values)}; allowed: 0 to {most - 1}")
    return np.asarray([int(value) for value in values], np.int64)


class _Images:
    """The encoded images of one split.

    Args:
        rows: with encoded images.
        where: data and split, for errors.
        folders: that images may be read from.
    """

    def __init__(self, rows: Rows, where: str, folders: Sequence[Path]) -> None:
        self.rows, self.where, self.folders = rows, where, tuple(folders)

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        """Give what to call each image, and the image with its pixels not yet decoded."""
        for number, record in enumerate(self.rows.images):
            name = f"{self.where} image {number}"
            yield name, open_image(record, name, self.folders)

    def pixels(self, channels: int, side: int) -> np.ndarray:
        """Decode all of them: uint8, (images, channels, side, side)."""
        result = np.empty((len(self.rows.labels), channels, side, side), np.uint8)
        for number, (name, image) in enumerate(self):
            decoded = in_mode(image, "L" if channels == 1 else "RGB", side, name)
            result[number] = np.asarray(decoded).reshape(side, side, channels).transpose(2, 0, 1)
        return result


@dataclass(frozen=True)
class _Survey:
    """What images have in common.

    Args:
        side: height and width that they get, px.
        channels: 1 if every image is grey, else 3.
        encoding: that loses something, ``"JPEG q75"``; or empty.
        native: whether all have that size already.
    """

    side: int
    channels: int
    encoding: str
    native: bool


def _survey(splits: Iterable[_Images], name: str, image_size: int | None) -> _Survey:
    """Read only the headers."""
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
    channels = 1 if modes <= {"1", "L", "LA"} else 3
    return _Survey(side, channels, encodings.pop() if len(encodings) == 1 else "", native=set(sizes) == {(side, side)})


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
