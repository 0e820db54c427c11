"""Folders of images: which file is of which split and class."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitline.data.division import spread
from bitline.data.layouts import layouts
from bitline.errors import DataError

log = logging.getLogger(__name__)

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp")
TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation", "eval", "evaluation", "dev")
"""the first of these that is there is used"""


@dataclass(frozen=True)
class File:
    """One image of a folder.

    Args:
        name: below the folder of its split, with slashes; begins with the class.
        place: of the file.
        label: its class, the first folder below that of the split.
    """

    name: str
    place: Path
    label: str


@dataclass(frozen=True)
class Folder:
    """Images of one split; the first ones are of all classes, those of a class are sorted by name."""

    files: tuple[File, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """Sorted."""
        return tuple(sorted({file.label for file in self.files}))


def find(root: Path) -> tuple[Folder, Folder | None]:
    """List the images of a folder: by split and class, or by class alone.

    A folder ``train`` that holds folders, and no image itself, is a split; else each folder is a class. Links are
    followed, wherever they lead, since whoever may put one there made the data set.

    Returns:
        Training images and test images; None: there is no folder of test images.

    Raises:
        DataError: no image, an image outside of any class, a link that leads back to where it lies, or a class of
            which there are test images alone.
    """
    below = {entry.name.lower(): entry for entry in _folders(root)}
    train = next((below[name] for name in TRAIN if name in below and _holds_folders(below[name])), None)
    tests = [below[name] for name in TEST if name in below and _holds_folders(below[name])]
    if train is None and tests:
        raise DataError(
            f"{tests[0]} is a folder of test images, with no folder train beside it; data may be: {layouts()}"
        )
    if train is None:
        return _read(root, root), None
    passed_over = sorted(entry.name for entry in below.values() if entry not in (train, *tests[:1]))
    if passed_over:
        log.warning("%s: not read: %s", root, ", ".join(passed_over))
    found = _read(train, root), _read(tests[0], root) if tests else None
    if found[1] is not None:
        unknown = sorted(set(found[1].classes) - set(found[0].classes))
        if unknown:
            raise DataError(f"{tests[0]} has classes {unknown[:5]} that {train} has not, which has {found[0].classes}")
    return found


def _folders(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _holds_folders(folder: Path) -> bool:
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return any(entry.is_dir() for entry in entries) and not any(_is_image(entry) for entry in entries)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and file.is_file()


def _read(folder: Path, root: Path) -> Folder:
    """List the images of one split of a data set."""
    files: list[File] = []
    others: list[str] = []
    for place in _walk(folder, (os.path.realpath(root), os.path.realpath(folder))):
        name = place.relative_to(folder).as_posix()
        if not _is_image(place):
            others.append(name)
        elif "/" not in name:
            raise DataError(f"{place} is in no folder of a class; data may be: {layouts()}")
        else:
            files.append(File(name, place, name.partition("/")[0]))
    if others:
        log.warning("%s: %d files are no images and not read, for example %s", folder, len(others), others[0])
    if not files:
        raise DataError(f"{folder} holds no image ({', '.join(SUFFIXES)}); data may be: {layouts()}")
    files.sort(key=lambda file: file.name)
    return Folder(tuple(files[number] for number in spread([file.label for file in files])))


def _walk(folder: Path, above: Sequence[str]) -> Iterator[Path]:
    """Give every file below a folder, but hidden ones.

    Args:
        folder: to walk.
        above: where this folder and those above it really lie.
    """
    with os.scandir(folder) as entries:
        listed = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in listed:
        place = folder / entry.name
        if not entry.is_dir():
            yield place
        else:
            real = os.path.realpath(place)
            if real in above:
                raise DataError(f"{place} is a link to {real}, which it lies in: images there have no end")
            yield from _walk(place, (*above, real))
