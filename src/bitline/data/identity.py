"""A name for what files hold, wherever they lie."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

MOST_BYTES = 2**30
"""that are read: a second"""
MOST_FILES = 1000
"""that are opened"""


def identity(files: Mapping[str, Path]) -> str:
    """Return a hash of files: the same for the same files by another path.

    Few files of little size are known by their content, so copies are the same too. Others are known by size, time of
    change and number in the file system, and a copy is another.

    Args:
        files: by a name that says what they are for, for example ``"train/cat/0.png"``.
    """
    digest = hashlib.blake2b(digest_size=16)
    states = {name: file.stat() for name, file in files.items()}
    whole = len(files) <= MOST_FILES and sum(state.st_size for state in states.values()) <= MOST_BYTES
    for name, file in sorted(files.items()):
        state = states[name]
        digest.update(f"|{name!r} {state.st_size}|".encode("utf-8", "surrogateescape"))
        if whole and file.is_file():
            with file.open("rb") as content:
                while block := content.read(2**20):
                    digest.update(block)
        else:
            digest.update(f"{state.st_mtime_ns} {state.st_ino}".encode())
    return digest.hexdigest()


def earlier(fingerprint: str, title: str, image_size: int | None) -> str:
    """Name the cache entry that format 1 had, where a title and a size asked for were part of the name.

    Args:
        fingerprint: of `fingerprint_1`, or what the hub's client gave.
        title: of the data, without their encoding.
        image_size: px; None: none was asked for.
    """
    text = "|".join(("1", fingerprint, title, str(image_size)))
    stem = "".join(c if c.isalnum() else "-" for c in title.lower())[:40]
    return f"{stem}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def fingerprint_1(files: Iterable[Path]) -> str:
    """Return the hash of paths, sizes and times of change that format 1 knew files by."""
    digest = hashlib.sha256()
    for file in files:
        state = file.stat()
        link = f"{file.absolute()}|" if file.is_symlink() else ""
        digest.update(f"{link}{file.resolve()}|{state.st_size}|{state.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()
