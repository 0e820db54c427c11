"""One process at a time writes in a run directory."""

import json
import os
import socket
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from bitline.errors import DataError, ExportError
from bitline.files import LOCK


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a run directory while something is written in it; the lock of a process that was killed is free.

    Args:
        folder: made if it is absent, and taken away again where nothing was written in it.

    Raises:
        DataError: another process holds it.
        ExportError: it cannot be made or written to.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder} is a file; choose another --out")
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0)
        lock.acquire()
    except Timeout:
        raise DataError(f"{folder} is in use by {_owner(path)}: wait until it ends, or choose another --out") from None
    except OSError as error:
        _remove(path, made)
        raise ExportError(f"cannot write in {folder}: {error.strerror or error}") from error
    try:
        with suppress(OSError):  # it only helps whoever comes second
            path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        yield
    finally:
        _remove(path, made)  # before it is released, so that nobody else's goes
        lock.release()


def _remove(path: Path, made: list[Path]) -> None:
    """Take away a lock file and the folders that were made for it, as far as they are empty."""
    with suppress(OSError):
        path.unlink(missing_ok=True)
        for place in made:
            place.rmdir()


def _owner(path: Path) -> str:
    """Say which process holds a lock."""
    try:
        owner = json.loads(path.read_text())
        return f"process {int(owner['pid'])} on {owner['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
