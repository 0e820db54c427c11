"""What this machine multiplies with: processor, native paths, GPU, and the reason for what it has not."""

import os
import platform
import shutil
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch

from bitline.errors import MappingError
from bitline.mvm import native

_AVX2 = ("avx2", "fma")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vbmi")
_AMX = ("amx_tile", "amx_int8")
_NEEDS = {"amx": (*_AVX512, *_AMX), "avx512": _AVX512, "avx2": _AVX2, "portable": ("ssse3",)}
"""what native paths ask of an x86 processor, fastest first"""
FEATURES = ("ssse3", *_AVX512, "avx512_vnni", *_AMX)
"""features of an x86 processor that matter here, as Linux names them"""
_X86 = ("x86_64", "AMD64")
_NOT_BUILT = "the native kernels are not built"


@dataclass(frozen=True)
class PathState:
    """A path, and why it does not run here; None where it does."""

    name: str
    why_not: str | None


@dataclass(frozen=True)
class Kernels:
    """Whether the native kernels are built.

    Args:
        built: and loaded.
        why_not: None where they are.
        remedy: what to do about it; None where nothing.
    """

    built: bool
    why_not: str | None = None
    remedy: str | None = None


@dataclass(frozen=True)
class Choice:
    """The path that products on the CPU take.

    Args:
        path: None where the environment names one that does not run here, so that every product fails.
        asked: what the environment variable `native.VARIABLE` says; None where it is unset.
        why: the reason.
    """

    path: str | None
    asked: str | None
    why: str


@dataclass(frozen=True)
class Machine:
    """What decides how fast products are here.

    Args:
        processor: its name.
        features: which of `FEATURES` it has; None where the system does not say.
        threads: of products on the CPU.
        torch: version of PyTorch.
        kernels: whether native kernels are built.
        paths: all that there are, fastest first.
        choice: the path taken.
        gpu: its name; None where PyTorch sees none.
        triton: whether the Triton path runs on that GPU.
    """

    processor: str
    features: dict[str, bool] | None
    threads: int
    torch: str
    kernels: Kernels
    paths: tuple[PathState, ...]
    choice: Choice
    gpu: str | None
    triton: PathState


def machine() -> Machine:
    """Look at this machine; a choice of path that does not run here is reported, not raised."""
    try:
        taken = choice()
    except MappingError as error:
        taken = Choice(None, os.environ.get(native.VARIABLE), str(error))
    flags = cpu_flags()
    return Machine(
        processor=processor(),
        features={name: name in flags for name in FEATURES} if flags else None,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        kernels=_kernels(),
        paths=_paths(flags),
        choice=taken,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        triton=_triton(),
    )


def choice() -> Choice:
    """Return which path products on the CPU take, and why.

    Raises:
        MappingError: the environment names a path that does not run here.
    """
    path, asked = native.chosen_path(), os.environ.get(native.VARIABLE) or None
    if asked:
        return Choice(path, asked, f"the environment says {native.VARIABLE}={asked}")
    if path != native.TENSOR:
        return Choice(path, None, "the fastest that runs here")
    return Choice(path, None, "no native path runs on this processor" if _kernels().built else _NOT_BUILT)


def cpu_flags() -> set[str]:
    """Return the instruction sets that the kernel names; none where it does not say (not Linux)."""
    return set(_cpuinfo("flags").split())


def processor() -> str:
    """Return the name of the processor, or of its kind."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _paths(flags: set[str]) -> tuple[PathState, ...]:
    here = native.paths()
    known = list(_NEEDS) if platform.machine() in _X86 else ["portable"]
    names = [*(name for name in here if name not in known), *known]
    states = [PathState(name, None if name in here else _why_not(name, flags)) for name in names]
    return (*states, PathState(native.TENSOR, None))


def _why_not(path: str, flags: set[str]) -> str:
    """Say why a native path does not run here."""
    module = native._native  # pyright: ignore[reportPrivateUsage]
    if module is None:
        return _NOT_BUILT
    ask = getattr(module, "why_not", None)
    if ask is not None:
        return ask(path)
    lacking = [name for name in _NEEDS.get(path, ()) if flags and name not in flags]
    return f"this processor has no {', '.join(lacking)}" if lacking else "this build has no such path"


def _kernels() -> Kernels:
    if native._native is not None:  # pyright: ignore[reportPrivateUsage]
        return Kernels(True)
    again = "install bitline again with pip install --force-reinstall --no-cache-dir"
    missing = native._missing  # pyright: ignore[reportPrivateUsage]
    if missing and find_spec("bitline.mvm.native._native"):
        return Kernels(False, missing, f"they were built for another Python or another C++ library: {again}")
    compiler = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)
    if compiler is None:
        return Kernels(False, f"{_NOT_BUILT}: there is no C++ compiler", f"install g++ or clang++, then {again}")
    why = f"{_NOT_BUILT}: when bitline was installed there was no C++ compiler, or it failed"
    return Kernels(False, why, f"{compiler} is here now: {again}; with -v pip shows what the compiler says")


def _triton() -> PathState:
    from bitline.mvm import triton

    if triton.available():
        return PathState("triton", None)
    return PathState("triton", "there is no GPU" if find_spec("triton") else "Triton is not installed")


def _cpuinfo(key: str) -> str:
    """Return the first value of a key in /proc/cpuinfo, or an empty string."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    for line in text.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return ""
