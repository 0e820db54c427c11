"""One process at a time writes in a run directory."""

import logging
import os
import socket
import warnings
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import BaseFileLock, FileLock, SoftFileLock, Timeout

from bitline.errors import DataError, ExportError
from bitline.files import LOCK

log = logging.getLogger(__name__)


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Hold a run directory while something is written in it; the lock of a process that was killed is free.

    Where the file system has no locks, the lock is a file that names its process.

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
        lock = _acquired(path)
    except Timeout:
        raise DataError(f"{folder} is in use by {_owner(path)}: wait until it ends, or choose another --out") from None
    except OSError as error:
        whose = _whose(path) if isinstance(error, PermissionError) else ""
        _remove(made)
        raise ExportError(f"cannot write in {folder}: {error.strerror or error}{whose}") from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)  # before it is released, so that nobody else's goes
        _remove(made)
        lock.release()


def _acquired(path: Path) -> BaseFileLock:
    """Take a lock that whoever may write in the folder may take after us."""
    lock = FileLock(path, timeout=0, mode=0o666)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="flock not supported")  # said below
        lock.acquire()
    _note_owner(path, lock)
    return lock


def _note_owner(path: Path, lock: BaseFileLock) -> None:
    """Write down which process holds a lock."""
    if isinstance(lock, SoftFileLock):  # which has written the same into its file, and reads it
        log.info("%s: this file system has no locks; the file stands for one", path)
    else:
        with suppress(OSError):  # it only helps whoever comes second
            path.write_text(f"{os.getpid()}\n{socket.gethostname()}\n")


def _remove(made: list[Path]) -> None:
    """Take away the folders that were made for a lock, as far as they are empty."""
    with suppress(OSError):
        for place in made:
            place.rmdir()


def _owner(path: Path) -> str:
    """Say which process holds a lock."""
    try:
        process, host, *_ = path.read_text().splitlines()
        return f"process {int(process)} on {host}"
    except (OSError, ValueError):
        return "another process"


def _whose(path: Path) -> str:
    """Say whose a lock is that may not be opened; nothing where there is none."""
    try:
        user = path.owner()
    except (OSError, KeyError):  # no such file, or a user without a name
        user = f"user {path.stat().st_uid}" if path.is_file() else ""
    return f"; {path} belongs to {user}, and names {_owner(path)}" if user else ""
