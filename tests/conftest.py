"""What tests share: a seeded generator, and chips small enough to compute by loops."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from bitline.chip.description import Chip, check

# The same examples on every run; --hypothesis-profile=thorough looks for new ones.
_common = settings(deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", _common, derandomize=True, max_examples=100)
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
