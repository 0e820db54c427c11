"""Finished points of a sweep: kept in a folder or the cache, and taken up again by a sweep that measures the same."""

import hashlib
import json
import logging
import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bitline.data.cache import cache_dir
from bitline.differences import differences
from bitline.errors import BitlineError, DataError
from bitline.evaluation.grid import Sweep, points
from bitline.evaluation.journal import digest_of
from bitline.evaluation.on_chip import OnChip
from bitline.evaluation.record import Variant
from bitline.evaluation.result import validated
from bitline.files import LOCK, read_json, write_json
from bitline.lock import locked
from bitline.train.hardware import git_commit

log = logging.getLogger(__name__)

FILE = "sweep.json"
_FREE = ("variants", "model", "float", "format")
"""what two sweeps of the same may differ in: names; figures in floats are compared as such"""


@dataclass(frozen=True)
class Place:
    """Where finished points are kept.

    Args:
        folder: None: none.
        resume: whether to go on with the sweep that is there.
        cached: without a folder: in the cache, until all points are finished.
    """

    folder: Path | None
    resume: bool = False
    cached: bool = False

    def check(self) -> None:
        """Refuse a folder that holds something else, or nothing to go on with.

        Raises:
            DataError: it does.
        """
        if self.folder is None:
            if self.resume and not self.cached:
                raise DataError("resume needs the folder of a sweep, or the cache: out, keep")
            return
        if self.folder.exists() and not self.folder.is_dir():
            raise DataError(f"{self.folder} is a file; choose another folder (--out)")
        if self.resume and not (self.folder / FILE).is_file():
            raise DataError(f"{self.folder} holds no {FILE} to go on with")
        if not self.resume and self.folder.exists() and any(each.name != LOCK for each in self.folder.iterdir()):
            has = (self.folder / FILE).is_file()
            goes_on = "resume=True (--resume) goes on with the sweep in it" if has else "choose another folder (--out)"
            raise DataError(f"{self.folder} is not empty; {goes_on}")

    @contextmanager
    def held(self) -> Generator[None]:
        """Hold the folder, so that no other process writes its points there.

        Raises:
            DataError: another process does, or see `check`.
        """
        self.check()
        if self.folder is None:
            yield
            return
        with locked(self.folder):
            yield

    def open(self, begun: Sweep) -> "Finished":
        """Begin a sweep, or go on with one that measured the same.

        Args:
            begun: the sweep, without any point.

        Raises:
            DataError: what is there is another sweep, which is told by what differs, or damaged.
            ExportError: the folder cannot be written.
        """
        if self.folder is not None:
            return self._in_folder(self.folder / FILE, begun)
        if not self.cached:
            return Finished(None, begun)
        name = json.dumps([_decides(begun), git_commit()], sort_keys=True, default=str)
        file = cache_dir() / "sweeps" / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.json"
        finished = Finished(file, begun, cached=True)
        if self.resume:
            with suppress(BitlineError):  # none, or damaged: every point is measured again
                finished.take(read(file))
            many = len(finished.variants)
            taken = f"{many} points are taken from the sweep that was stopped"
            log.info("%s", taken if many else "no point was finished of just this sweep; all are measured")
        else:
            finished.end()
        return finished

    def _in_folder(self, file: Path, begun: Sweep) -> "Finished":
        finished = Finished(file, begun)
        if self.resume:
            before = read(file)
            other = differences(_decides(begun), _decides(before))
            if not other and not math.isclose(before.float, begun.float, rel_tol=1e-6, abs_tol=1e-6):
                other = differences({"float": begun.float}, {"float": before.float})
            if other:
                listed = ", ".join(map(str, other[:4])) + (", ..." if len(other) > 4 else "")
                raise DataError(f"{file.parent} holds another sweep: {listed}; choose another folder (--out)")
            finished.take(before)
        else:
            finished.write()  # so that there is something to go on with from the start
        return finished


class Finished:
    """The points of a sweep that are finished.

    Args:
        path: of the file that keeps them; None: nothing does.
        begun: the sweep, without any point.
        cached: whether the file goes when the sweep is done, and hinders nothing where it cannot be written.
    """

    def __init__(self, path: Path | None, begun: Sweep, *, cached: bool = False) -> None:
        self.path, self.begun, self.cached = path, begun, cached
        self.variants: dict[tuple[str, ...], Variant] = {}

    def take(self, before: Sweep) -> None:
        """Take up the points of a sweep."""
        self.variants |= {variant.overrides: variant for variant in before.variants}

    def add(self, variant: Variant) -> None:
        """Keep one more."""
        self.variants[variant.overrides] = variant
        self.write()

    def sweep(self) -> Sweep:
        """Return the sweep with the points so far, in the order of the grid."""
        known = [self.variants.get(tuple(keys)) for keys in points(self.begun.vary)]
        return self.begun.model_copy(update={"variants": tuple(variant for variant in known if variant is not None)})

    def write(self) -> None:
        """Write them.

        Raises:
            ExportError: the file cannot be written.
        """
        if self.path is None:
            return
        try:
            write_json(self.path, self.sweep().to_json())
        except BitlineError as error:
            if not self.cached:
                raise
            log.warning("finished points are not kept: %s", error)
            self.path = None

    def end(self) -> None:
        """Remove a file of the cache."""
        if self.path is not None and self.cached:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def read(path: Path) -> Sweep:
    """Read a sweep from its file.

    Raises:
        DataError: absent, damaged, or no sweep.
    """
    return validated(Sweep, read_json(path), f"{path} is no sweep")


def measured(on_chip: OnChip, mapping: Mapping[str, str] | None, ranges: Path | None) -> dict[str, Any]:
    """Say what decides the points of a sweep beside what it shows: settings as they are, all else by a digest."""
    task = on_chip.task
    return {
        "structure": digest_of(str(on_chip.plain)),
        "mapping": dict(mapping or {}),
        "ranges": None if ranges is None else digest_of(ranges.read_bytes()),
        "in_turn": on_chip.settings.in_turn,
        "batch_size": on_chip.settings.batch_size,
        "samples": digest_of(*task.batches),
        "calibration_samples": digest_of(*task.calibration),
    }


def _decides(sweep: Sweep) -> dict[str, Any]:
    content = {key: value for key, value in sweep.to_json().items() if key not in _FREE}
    return {**content, **content.pop("measured")}
