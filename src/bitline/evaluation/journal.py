"""The figures of chips that were asked, kept while an evaluation runs, so that one that is stopped may go on.

They lie in the cache folder under a name that is the digest of all that decides them: the network as it is on the
chip, with its ranges, the chip, and the samples. What is evaluated otherwise has another journal.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from bitline.data.cache import cache_dir
from bitline.errors import BitlineError
from bitline.evaluation.on_chip import OnChip
from bitline.evaluation.workers import Job
from bitline.files import read_json, write_json
from bitline.nn import placement
from bitline.train.hardware import git_commit

log = logging.getLogger(__name__)

Keep = Literal["no", "new", "resume"]
"""whether finished chips are kept, and whether those of an earlier evaluation are taken up"""


@dataclass
class Journal:
    """Figures of finished chips.

    Args:
        path: of the file; None: nothing is kept.
        figures: by job.
    """

    path: Path | None
    figures: dict[str, float] = field(default_factory=dict[str, float])

    @classmethod
    def of(cls, on_chip: OnChip, keep: Keep) -> "Journal":
        """Begin the journal of an evaluation, or go on with it.

        Args:
            on_chip: the network, calibrated. A surrogate is quick and says more than figures: it keeps none.
            keep: whether to.
        """
        if keep == "no" or on_chip.settings.simulation != "exact":
            return cls(None)
        journal = cls(cache_dir() / "evaluations" / f"{digest(on_chip)}.json")
        if keep == "resume":
            journal._take_up()
        else:
            journal.finish()
        return journal

    def _take_up(self) -> None:
        assert self.path is not None
        with suppress(BitlineError):  # none, or damaged: every chip is asked again
            self.figures = {key: float(value) for key, value in read_json(self.path).items()}
        asked = f"{len(self.figures)} figures of chips are taken from the evaluation that was stopped"
        log.info("%s", asked if self.figures else "no chip was finished of just this evaluation; all are asked")

    def through(self, ask: Callable[[Sequence[Job]], Iterator[float]], jobs: Sequence[Job]) -> Iterator[float]:
        """Give the figures of jobs in their order: those that are known, and those that are asked for now.

        Args:
            ask: gives figures of jobs that are not known.
            jobs: all of them.
        """
        keys = [f"{job.chip.fingerprint()} {job.seed}" for job in jobs]
        fresh = ask([job for job, key in zip(jobs, keys, strict=True) if key not in self.figures])
        known = dict(self.figures)
        for key in keys:
            if key in known:
                yield known[key]
                continue
            self.figures[key] = value = next(fresh)
            self._write()
            yield value

    def _write(self) -> None:
        if self.path is not None:
            try:
                write_json(self.path, self.figures)
            except BitlineError:  # a folder that cannot be written to keeps nothing, and hinders nothing
                self.path = None

    def finish(self) -> None:
        """Remove the file: all chips are asked, or the evaluation begins anew."""
        if self.path is not None:
            with suppress(OSError):
                self.path.unlink(missing_ok=True)


def digest(on_chip: OnChip) -> str:
    """Return what tells one evaluation from another: all that decides the figures of its chips."""
    settings, told = on_chip.settings, hashlib.sha256()
    _add(told, version("bitline"), git_commit(), placement(on_chip.model).chip.fingerprint(), str(on_chip.model))
    _add(told, settings.batch_size, settings.bias_correction, on_chip.task.metric.record, on_chip.task.data)
    for name, tensor in sorted(on_chip.model.state_dict().items()):
        _add(told, name, tensor)
    for batch in [*on_chip.task.batches, *on_chip.task.calibration]:
        _add(told, batch)
    return told.hexdigest()[:32]


def digest_of(*values: object) -> str:
    """Return what tells plain values, tensors and collections of both from others."""
    told = hashlib.sha256()
    _add(told, *values)
    return told.hexdigest()[:16]


def _add(told: Any, *values: object) -> None:
    for value in values:
        if isinstance(value, Tensor):
            told.update(f"{value.dtype} {tuple(value.shape)}".encode())
            told.update(value.detach().cpu().contiguous().flatten().numpy().tobytes())
        elif isinstance(value, dict):
            _add(told, *(part for item in value.items() for part in item))
        elif isinstance(value, list | tuple):
            _add(told, *value)
        else:
            told.update(repr(value).encode())
