"""Encoded images (JPEG, PNG ... in a Hugging Face `Dataset`) to uint8 arrays."""

from __future__ import annotations

import io
from collections import Counter
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bitline.data.cache import Decoded, Meta
from bitline.data.dataset import statistics
from bitline.errors import DataError

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


def decode(train: Dataset, test: Dataset, *, name: str, image_size: int | None) -> Decoded:
    """Decode both splits to arrays of one size and one number of channels.

    Args:
        train: rows with one image and one label column.
        test: as train.
        name: how to call the data; the encoding is added to it when it is lossy.
        image_size: resize every image to this many px, or None to require one size.

    Returns:
        The arrays, class names and statistics of the training images.

    Raises:
        DataError: no image or label column, images of several sizes, not square, or of an unknown kind.
    """
    columns = _columns(train)
    if _columns(test) != columns:
        raise DataError(f"{name}: train has {columns}, test has {_columns(test)}; expected the same")
    image_column, label_column = columns.image, columns.label
    classes = columns.classes or tuple(str(n) for n in range(max(train[label_column][:]) + 1))
    splits = {"train": _undecoded(train, image_column), "test": _undecoded(test, image_column)}
    channels, encoding = _survey(splits, image_column, name, image_size)
    arrays: dict[str, np.ndarray] = {}
    for split, rows in splits.items():
        labels = np.asarray(rows[label_column][:], np.int64)
        if labels.size == 0 or labels.min() < 0 or labels.max() >= len(classes):
            raise DataError(f"{name}: {split} has no rows, or labels outside 0 to {len(classes) - 1}")
        arrays[f"{split}_labels"] = labels
        arrays[f"{split}_images"] = _pixels(rows, image_column, channels, image_size)
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


def _undecoded(rows: Dataset, column: str) -> Dataset:
    from datasets import Image

    return rows.cast_column(column, Image(decode=False))


def _open(record: dict[str, Any]) -> Image:
    """Open one image without decoding its pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        content = record["bytes"] if record["bytes"] is not None else Path(record["path"]).read_bytes()
        return Image.open(io.BytesIO(content))
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"cannot read image {record['path']!r}: {error}") from error


def _survey(splits: dict[str, Dataset], column: str, name: str, image_size: int | None) -> tuple[int, str]:
    """Read only the headers: return the channels (1 if every image is grey, else 3) and the lossy encoding or ''."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: set[str] = set()
    encodings: set[str] = set()
    for rows in splits.values():
        for record in rows[column]:
            image = _open(record)
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
    return (1 if modes <= {"1", "L", "LA"} else 3), encodings.pop() if len(encodings) == 1 else ""


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


def _pixels(rows: Dataset, column: str, channels: int, image_size: int | None) -> np.ndarray:
    """Decode one split: uint8, (images, channels, height, width)."""
    from PIL.Image import Resampling

    result: np.ndarray | None = None
    for index, record in enumerate(rows[column]):
        image = _open(record)
        try:
            image = image.convert("L" if channels == 1 else "RGB")
        except (OSError, SyntaxError) as error:  # Pillow's errors for truncated and broken files
            raise DataError(f"cannot decode image {index} {record['path']!r}: {error}") from error
        if image_size is not None and image.size != (image_size, image_size):
            image = image.resize((image_size, image_size), Resampling.BICUBIC)
        pixels = np.asarray(image).reshape(image.size[1], image.size[0], channels)
        if result is None:
            result = np.empty((len(rows), channels, *pixels.shape[:2]), np.uint8)
        result[index] = pixels.transpose(2, 0, 1)
    if result is None:
        raise DataError("a split without rows; expected at least one image")
    return result
