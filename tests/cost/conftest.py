import tomllib
from pathlib import Path
from typing import Any

import pytest

from bitline.mapping.lower import Matmul


@pytest.fixture(scope="session")
def published() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parents[1] / "oracles" / "cost.toml").read_text("utf-8"))


@pytest.fixture(scope="session")
def vgg8() -> list[Matmul]:
    """VGG-8 on 32 x 32 colour images, by hand."""

    def conv(name: str, channels: int, outputs: int, size: int) -> Matmul:
        return Matmul(name, "conv2d", 9 * channels, outputs, 1, size**2, channels * size**2)

    return [
        conv("conv1", 3, 128, 32),
        conv("conv2", 128, 128, 32),
        conv("conv3", 128, 256, 16),
        conv("conv4", 256, 256, 16),
        conv("conv5", 256, 512, 8),
        conv("conv6", 512, 512, 8),
        Matmul("fc1", "linear", 8192, 1024, inputs=8192),
        Matmul("fc2", "linear", 1024, 10, inputs=1024),
    ]
