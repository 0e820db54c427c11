"""What the machine can do, and what to write down about it."""

import ctypes
import logging
import os
import platform
import subprocess
from pathlib import Path

import torch

from bitline.errors import DataError
from bitline.mvm.machine import cpu_flags, processor
from bitline.train.config import MOST_THREADS, Device, Precision

log = logging.getLogger(__name__)


def most_threads() -> int:
    """Threads that this machine may be asked for: four for each core, since more only wait for each other."""
    return min(MOST_THREADS, 4 * (os.cpu_count() or 1))


def check_threads(threads: int | None) -> None:
    """Raise DataError where so many threads are not to be asked for; None: as PyTorch finds them."""
    if threads is not None and not 1 <= threads <= most_threads():
        raise DataError(f"threads is {threads}; allowed: 1 to {most_threads()}, four for each core of this machine")


def set_threads(threads: int | None) -> None:
    """Compute on so many threads of the CPU; None: as PyTorch finds them.

    Raises:
        DataError: none, or more than this machine may be asked for.
    """
    check_threads(threads)
    if threads is not None:
        torch.set_num_threads(threads)


def threads_here(threads: int) -> int:
    """Return how many threads stand for those that a configuration, perhaps of a larger machine, asks for."""
    fewer = min(threads, most_threads())
    if fewer < threads:
        log.warning("threads is %d: %d are used, four for each core of this machine", threads, fewer)
    return fewer


def torch_device(name: Device) -> torch.device:
    """Return the torch device that networks run on; ``"auto"``: a GPU where PyTorch sees one.

    Raises:
        DataError: ``"cuda"`` where it sees none.
    """
    here = torch.cuda.is_available()
    if name == "cuda" and not here:
        build = "is built without CUDA" if torch.version.cuda is None else "sees none"
        raise DataError(f"device is 'cuda', a GPU, but PyTorch {torch.__version__} {build} here; allowed: auto, cpu")
    return torch.device("cuda" if here and name != "cpu" else "cpu")


def keep_freed_memory() -> None:
    """Let this process keep what it frees for what it asks for next, with glibc; elsewhere nothing is changed.

    A step of training frees and asks for the same hundreds of megabytes. Given back to the system in between, they come
    again page by page, which takes a tenth of a step. Peak memory grows by about a quarter.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # another C library
        return
    no_maps, trim, at_once = (-4, 0), (-1, 2**31 - 1), (-2, 2**26)  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
    for key, value in (no_maps, trim, at_once):
        mallopt(key, value)


def best_precision(device: torch.device) -> Precision:
    """Return ``bf16-mixed`` where a GPU or the CPU multiplies bf16 natively, else ``32-true``."""
    if device.type == "cuda":
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if cpu_flags() & {"avx512_bf16", "amx_bf16"} else "32-true"


def describe() -> dict[str, str | int]:
    """Return the processor, cores, threads, GPU and PyTorch version."""
    return {
        "processor": processor(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "",
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def git_commit() -> str:
    """Return the commit of the source that runs, with ``+`` if files differ from it; empty outside its checkout."""
    try:
        _git("ls-files", "--error-unmatch", Path(__file__).name)  # an installed copy may lie in another project
        return _git("rev-parse", "HEAD") + ("+" if _git("status", "--porcelain", "--", "..") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
    )
    return done.stdout.strip()
