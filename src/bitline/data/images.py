"""One encoded image: where it may come from, how large it may be, and how it is decoded."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bitline.errors import DataError, shown

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""that Pillow decodes by itself; others start programs or fetch files"""
MOST_BYTES = 2**26
"""of one encoded image"""
MOST_PIXELS = 2**25
"""of one image; a camera's have 24 million"""
MOST_SIDE = 4096
"""px of an image that is resized"""
MOST_MEMORY = 0.5
"""share of this machine's memory that decoded images may take"""


def open_image(record: Mapping[str, Any], name: str, folders: Sequence[Path]) -> Image:
    """Open one image without decoding its pixels.

    Args:
        record: ``bytes`` of the encoded image, or where these are None the ``path`` of its file.
        name: of the image, for errors.
        folders: files are read within these alone. Links in them are followed, since whoever may put a link
            there made the data set.

    Raises:
        DataError: no image, a file elsewhere, an unknown format, or more pixels than an image has.
    """
    from PIL import Image, UnidentifiedImageError

    content = _content(record, name, folders)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of sizes that are refused below
            image = Image.open(io.BytesIO(content), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise DataError(f"{name} is no image of a known format ({', '.join(FORMATS)})") from error
    except Exception as error:  # Pillow raises many kinds on damaged headers
        raise DataError(f"cannot read {name}: {_reason(error)}") from error
    width, height = image.size
    if width * height > MOST_PIXELS:
        raise DataError(f"{name} has {width} x {height} px; allowed: {MOST_PIXELS} in all")
    return image


def in_mode(image: Image, mode: str, side: int, name: str) -> Image:
    """Decode an image.

    Args:
        image: opened.
        mode: ``"L"`` or ``"RGB"``.
        side: height and width that it gets, px.
        name: of the image, for errors.

    Raises:
        DataError: a truncated or damaged image.
    """
    from PIL.Image import Resampling

    try:
        decoded = image.convert(mode)
        return decoded if decoded.size == (side, side) else decoded.resize((side, side), Resampling.BICUBIC)
    except Exception as error:  # Pillow raises many kinds on damaged pixels
        raise DataError(f"cannot decode {name}: {_reason(error)}") from error


def check_memory(count: int, channels: int, side: int, name: str) -> None:
    """Refuse decoded images that take too much memory, before any is decoded.

    Raises:
        DataError: they do.
    """
    needed = count * channels * side**2
    most = int(MOST_MEMORY * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    if needed > most:
        raise DataError(
            f"{name}: {count} images of {channels} x {side} x {side} take {needed / 1e9:.3g} GB decoded; "
            f"allowed: {most / 1e9:.3g} GB, {MOST_MEMORY:.0%} of this machine's memory"
        )


def _content(record: Mapping[str, Any], name: str, folders: Sequence[Path]) -> bytes:
    content, path = record["bytes"], record["path"]
    if content is None:
        if path is None:
            raise DataError(f"{name} has neither bytes nor a path")
        place = Path(path)
        try:
            homes = [home for folder in folders for home in (folder, folder.absolute(), folder.resolve())]
            below = [place.relative_to(home) for home in homes if place.is_relative_to(home)]
            inside = any(".." not in path.parts for path in below)
            if not inside or not place.is_file():
                raise DataError(f"{name} is a file, {shown(path)}; only images within the data set are read")
            size = place.stat().st_size
            content = place.read_bytes() if size <= MOST_BYTES else None
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {name}: {_reason(error)}") from error
    else:
        size = len(content)
    if content is None or size > MOST_BYTES:
        raise DataError(f"{name} has {size} bytes; allowed: {MOST_BYTES}")
    return content


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
