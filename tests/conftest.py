"""What tests share: a seeded generator, chips small enough to compute by loops, and networks trained once."""

import os

# Before torch is imported, and for the commands that tests start: processes share the cores, not threads.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import HealthCheck, settings

from bitline.chip.description import Chip, check
from bitline.mvm.native import _native
from bitline.physics import kernels

# The same examples on every run; --hypothesis-profile=thorough looks for new ones.
_common = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", _common, derandomize=True, max_examples=100)
settings.register_profile("few", _common, derandomize=True, max_examples=20)
settings.register_profile("thorough", _common, max_examples=3000)
settings.load_profile("steady")


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def small_chip(**sections: Any) -> Chip:
    """An 8 x 16 crossbar of ideal 2-bit cells; keywords replace keys, sections key by key: ``adc={"bits": 3}``."""
    data: dict[str, Any] = {
        "name": "small",
        "node": "32 nm",
        "vdd": "1 V",
        "cell": {"bits": 2, "g_min": "1 uS", "g_max": "100 uS", "read_voltage": "0.2 V"},
        "crossbar": {"rows": 8, "cols": 16},
        "adc": {"bits": 6, "policy": "full", "columns_per_adc": 1},
        "weights": {"bits": 4},
        "inputs": {"bits": 4},
    }
    for key, value in sections.items():
        data[key] = {**data.get(key, {}), **value} if isinstance(value, dict) else value
    return check(data)


@pytest.fixture(scope="session")
def make_chip() -> Callable[..., Chip]:
    return small_chip


@pytest.fixture(scope="module", params=["loops", "tensors"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Draw and write in C++ where it is built, then without it."""
    if request.param == "loops" and _native is None:
        pytest.skip("the native kernels are not built here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "native", _native if request.param == "loops" else None)
        yield request.param


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Make a directory once, for all processes that run tests; what is in it is read only."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "once"
    shared.mkdir(exist_ok=True)

    def made(name: str, make: Callable[[Path], object]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with FileLock(shared / f"{name}.lock"):
            if not done.exists():
                make(folder)
                done.touch()
        return folder

    return made


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes longest, so that no process is left with it at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
