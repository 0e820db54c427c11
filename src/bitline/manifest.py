"""The manifest of a run directory: the SHA-256 of every file that makes up the run.

That of a JSON file is of what it says, since tools for text turn ends of lines; that of any other is of its bytes.
It is written last, so that a run is finished when it has one, and checked whenever the run is read. What trains may
leave no manifest behind yet: `MARK` in the configuration tells such a run from one that an earlier version wrote.
"""

import functools
import hashlib
import json
import logging
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from bitline.errors import DataError
from bitline.files import (
    AFTER,
    BEFORE,
    CHIP,
    CONFIG,
    FRONT,
    LEFT,
    METRICS,
    PRUNING,
    RANGES,
    RECIPE,
    RECORD,
    RUN_MANIFEST,
    TRIALS,
    UNTRAINED,
    WEIGHTS,
    read_json,
    write_json,
)

log = logging.getLogger(__name__)

VERSION = 1
MARK = {"manifest": VERSION}
"""what a configuration says of a run that has a manifest once it is finished"""
DECISIVE = (WEIGHTS, RECORD, CONFIG, METRICS, RECIPE, CHIP, RANGES)
"""files that change what a run is taken for, so that one more of them is a change"""
MISSING = "is missing"
RESULTS = (AFTER, BEFORE, UNTRAINED)
PARTS = (*DECISIVE, *RESULTS, PRUNING, LEFT, TRIALS, FRONT)


def write(folder: Path, *, edited: tuple[str, ...] = ()) -> None:
    """Write the manifest of a run directory from the files that are there.

    Args:
        folder: the run directory.
        edited: files that are not as the run wrote them, and were accepted.

    Raises:
        ExportError: it cannot be written.
    """
    files = {name: _entry(folder / name) for name in PARTS if (folder / name).is_file()}
    _write(folder, files, edited)


def update(folder: Path, name: str) -> None:
    """Take one file that was written anew into the manifest, if the directory has one and the file is part of a run."""
    if name in PARTS and (folder / RUN_MANIFEST).is_file():
        content = _read(folder)
        _write(folder, {**content["files"], name: _entry(folder / name)}, tuple(content.get("edited", ())))


def begun(folder: Path) -> bool:
    """Tell whether a run writes a manifest when it is finished: whether this or a later version began it."""
    for name in (RECIPE, CONFIG):
        if (folder / name).is_file():
            return "manifest" in read_json(folder / name)
    return False


def finished(folder: Path, last: str) -> bool:
    """Tell whether a run is finished.

    Args:
        folder: the run directory.
        last: the file that came last before there were manifests.
    """
    return (folder / RUN_MANIFEST).is_file() or ((folder / last).is_file() and not begun(folder))


def check(folder: Path) -> None:
    """Refuse a run directory that is not as it was written; say so where that cannot be known.

    Raises:
        DataError: files are missing, changed or added, or the manifest is; each is named.
    """
    if not (folder / RUN_MANIFEST).is_file():
        if begun(folder):
            raise DataError(
                f"{folder} has no {RUN_MANIFEST}: the run is not finished (go on with --resume), or the file was lost "
                f"(bitline accept {folder} takes the other files as they are)"
            )
        _say(f"{folder} is of an earlier version, which wrote no {RUN_MANIFEST}: whether its files belong together is "
             "not checked")  # fmt: skip
        return
    if found := changes(folder):
        lost = any(name in DECISIVE and what == MISSING for name, what in found.items())
        raise DataError(
            f"{folder} is not as it was written: {', '.join(f'{name} {what}' for name, what in found.items())}; "
            + (
                "put back what was there"
                if lost
                else f"put back what was there, or take the files as they are with: bitline accept {folder}"
            )
        )
    if found := edited(folder):
        _say(f"{folder} was edited after it was written, and accepted so: {', '.join(found)}")


def edited(folder: Path) -> tuple[str, ...]:
    """Return the files of a run that were edited after it was written, and accepted."""
    return tuple(_read(folder).get("edited", ())) if (folder / RUN_MANIFEST).is_file() else ()


def changes(folder: Path) -> dict[str, str]:
    """Say what is not as the manifest has it, by file.

    Raises:
        DataError: a damaged manifest.
    """
    known = _read(folder)["files"]
    found: dict[str, str] = {}
    for name, entry in known.items():
        path = folder / name
        if not path.is_file():
            found[name] = MISSING
        elif entry not in (_entry(path), _of_bytes(path)):
            found[name] = "was changed"
    return found | {name: "was added" for name in DECISIVE if name not in known and (folder / name).is_file()}


def accept(folder: Path) -> dict[str, str]:
    """Write a new manifest for the files as they are now, and note what was edited.

    Returns:
        What was not as the manifest had it, by file; empty where there was nothing to accept.

    Raises:
        DataError: no run directory, one of a run that is not finished, or one that lacks a file that decides what it
            is taken for.
    """
    known = (folder / RUN_MANIFEST).is_file()
    needed = [WEIGHTS, RECORD, CONFIG, METRICS]
    if not known and (folder / RECIPE).is_file() and begun(folder):  # of a recipe, which evaluates last
        needed.append(AFTER)
    if absent := [name for name in needed if not (folder / name).is_file()]:
        raise DataError(f"{folder} is no run directory that is finished: it has no {', '.join(absent)}")
    if not known:
        write(folder, edited=(RUN_MANIFEST,))
        return {RUN_MANIFEST: "was missing"}
    found = changes(folder)
    if lost := [name for name, what in found.items() if name in DECISIVE and what == MISSING]:
        raise DataError(f"{folder} is another experiment without {', '.join(lost)}; put back what was there")
    if found:
        write(folder, edited=tuple(dict.fromkeys([*_read(folder).get("edited", ()), *found])))
    return found


def _read(folder: Path) -> dict[str, Any]:
    path = folder / RUN_MANIFEST
    content = read_json(path)
    files = content.get("files")
    if content.get("version") != VERSION:
        raise DataError(f"{path} has version {content.get('version')!r}; allowed: {VERSION}")
    if not isinstance(files, dict) or not set(cast("dict[str, Any]", files)) <= set(PARTS):
        raise DataError(f"{path} is damaged: files is no list of what makes up a run")
    return content


def _write(folder: Path, files: dict[str, Any], edited: tuple[str, ...]) -> None:
    versions = {name: version(name) for name in ("bitline", "torch")}
    content = {"version": VERSION, "written_by": versions, "files": files}
    write_json(folder / RUN_MANIFEST, content | ({"edited": list(edited)} if edited else {}))


def _entry(path: Path) -> dict[str, Any]:
    """What the manifest has of a file."""
    if path.suffix == ".json":
        try:
            text = json.dumps(read_json(path), sort_keys=True, separators=(",", ":"))
        except DataError:  # damaged: as its bytes are
            return _of_bytes(path)
        return {"content_sha256": hashlib.sha256(text.encode()).hexdigest()}
    return _of_bytes(path)


def _of_bytes(path: Path) -> dict[str, Any]:
    """What the manifest has of a file that is not JSON, and had of every file in its first days."""
    state = path.stat()
    return {"bytes": state.st_size, "sha256": _digest(path, state.st_size, state.st_mtime_ns, state.st_ino)}


@functools.lru_cache(64)
def _digest(path: Path, *_state: int) -> str:
    """Digest a file, once as long as nothing says that it is another one."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@functools.cache
def _say(line: str) -> None:
    """Say a line once."""
    log.info(line)
