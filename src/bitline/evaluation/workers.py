"""Chips that are evaluated one after the other, or at once in several processes, with the same figures bit for bit."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.machinery import PathFinder
from typing import TYPE_CHECKING

import torch

from bitline.chip.description import Chip
from bitline.errors import DataError
from bitline.evaluation.record import Simulation

if TYPE_CHECKING:
    from bitline.evaluation.on_chip import OnChip

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """One programmed chip to ask.

    Args:
        chip: a variant of that which the network is on.
        seed: of the programmed chip; -1 for ideal cells.
    """

    chip: Chip
    seed: int


Ask = Callable[[Sequence[Job]], Iterator[float]]
"""gives the figures of jobs, in their order, each as soon as it is known"""


@contextmanager
def asking(on_chip: OnChip, workers: int) -> Generator[Ask]:
    """Give what asks the chips of jobs.

    Processes are fresh ones, with as many threads as this one has: what is computed in floats may differ in its last
    bits with the number of threads.

    Args:
        on_chip: the network, calibrated; processes get a copy of it as it is now.
        workers: processes; 1: none but this.

    Raises:
        DataError: a process ended before its time.
    """
    if workers == 1:
        yield lambda jobs: (on_chip.accuracy(job.chip, job.seed) for job in jobs)
        return
    import multiprocessing

    threads, cores = torch.get_num_threads(), os.cpu_count() or 1
    if workers * threads > cores:
        log.info(
            "%d processes of %d threads share %d cores; fewer threads are faster (--threads, torch.set_num_threads)",
            workers,
            threads,
            cores,
        )
    told = (_pickled(on_chip), threads)
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin, told)
    try:
        with _without_main():

            def ask(jobs: Sequence[Job]) -> Iterator[float]:
                for figure, simulation in pool.map(_work, jobs):
                    on_chip.simulations.append(simulation)
                    yield figure

            yield ask
    except BrokenProcessPool as error:
        raise DataError("a worker process ended before its time, perhaps for want of memory; try fewer") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _without_main() -> Generator[None]:
    """Keep new processes from running the script again that began this one: what is needed of it is sent to them."""
    main = sys.modules["__main__"]
    known = {key: getattr(main, key) for key in ("__spec__", "__file__") if hasattr(main, key)}
    try:
        for key in known:
            setattr(main, key, None)
        yield
    finally:
        for key, value in known.items():
            setattr(main, key, value)


def _pickled(on_chip: OnChip) -> bytes:
    """Return a network as bytes; classes of files that another process could not import go with it."""
    import cloudpickle

    own = {type(module).__module__.partition(".")[0] for module in on_chip.model.modules()} - {"__main__"}
    apart = [sys.modules[name] for name in sorted(own) if name in sys.modules and PathFinder.find_spec(name) is None]
    for module in apart:
        cloudpickle.register_pickle_by_value(module)
    try:
        return cloudpickle.dumps(on_chip)
    except Exception as error:  # a user's network may hold anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"the network cannot be sent to another process: {reason[:200]}; use workers=1") from error
    finally:
        for module in apart:
            cloudpickle.unregister_pickle_by_value(module)


_own: OnChip | None = None


def _begin(content: bytes, threads: int) -> None:
    """Be a worker."""
    import pickle
    import signal

    global _own
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    torch.set_num_threads(threads)
    _own = pickle.loads(content)


def _work(job: Job) -> tuple[float, Simulation]:
    assert _own is not None
    figure = _own.accuracy(job.chip, job.seed)
    return figure, _own.simulation.record()
