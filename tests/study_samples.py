"""A small network that a chip spoils, and studies as they are written, made up to say one thing or its opposite."""

import copy
import math
from functools import cache
from typing import Any

import torch
from torch import nn

from bitline import chip as chips
from bitline import data as datasets
from bitline.study.grid import best_heights
from bitline.study.lesson_tiles import exponents
from bitline.study.runs import Network

CHIP = chips.load("rram-22nm", ["adc.bits=4"])


@cache
def network() -> Network:
    """Trained in a second; its linear layer has 256 rows."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(256, 32),
        nn.ReLU(),
        nn.Linear(32, 10),
    )
    digits = datasets.load("digits")
    images = digits.normalize(digits.train_images)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    for _ in range(40):
        loss = nn.functional.cross_entropy(model(images), digits.train_labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return Network(model.eval(), digits, "small", "0123456789abcdef")


def study(*, images: int = 1000, exponent: float = 1.0) -> dict[str, Any]:
    """A whole study: three layers, two range policies, three heights, three ways to train."""
    names = ("conv1", "conv2", "conv3", "fc")
    row_tiles = (1, 4, 9, 32)
    layers = [
        {
            "layer": name,
            "kind": "conv2d",
            "rows": 128 * count,
            "cols": 64,
            "groups": 1,
            "row_tiles": count,
            "conversions": 1000 * count,
            "sqnr_dB": {"adc": 25.0 - 3 * i, "programming": 28.0 - i, "both": 24.0 - 3 * i},
            "alone": {"adc": 89.0 - i, "chips": [88.0 - i, 88.5 - i], "mean": 88.25 - i, "std": 0.35},
        }
        for i, (name, count) in enumerate(zip(names, row_tiles, strict=True))
    ]
    tiles = [
        {
            "layer": name,
            "rows": rows,
            "row_tiles": -(-1024 // rows),
            "power": 1e-4 * (1024 / rows) ** exponent,
            "predicted": 1e-4 * 1024 / rows,
            "lsb": 4.0,
        }
        for name in names
        for rows in (64, 128, 256, 512)
    ]
    grid = [
        point(rows, bits, ranges) for rows in (32, 64, 128) for ranges in ("full", "slice_digit") for bits in (4, 6)
    ]
    training = [
        way("unaware", 90.0, 80.0, 75.0),
        way("quantization-aware", 90.0, 80.5, 75.5),
        way("partial-sum-aware", 90.0, 88.0, 87.0),
    ]
    return {
        "study": "partial sums",
        "bitline": "0.1.0",
        "model": "vgg8",
        "chip": CHIP.model_dump(mode="json"),
        "data": {"name": "CIFAR-10", "split": "test", "count": images},
        "seeds": [0, 1],
        "commits": ["0123456789abcdef"],
        "settings": {"images": images, "rows": [32, 64, 128]},
        "layers": layers,
        "tiles": tiles,
        "grid": grid,
        "training": training,
        "exponents": exponents(tiles),
        "best_heights": best_heights(grid),
        "findings": [],
        "not_measured": [],
        "finished": True,
    }


def point(rows: int, bits: int, ranges: str, mean: float | None = None) -> dict[str, Any]:
    """One chip of the grid: few bits want 32 rows, many bits 128."""
    wanted = {4: 32, 6: 128}[bits]
    reached = 85.0 - 8 * abs(math.log2(rows / wanted)) - 3 * (ranges == "full") if mean is None else mean
    return {
        "rows": rows,
        "bits": bits,
        "ranges": ranges,
        "adc": reached + 1,
        "chips": [reached, reached],
        "mean": reached,
        "std": 0.0,
        "worst": reached,
        "energy_J": 1e-6 * bits * 128 / rows,
        "latency_s": 1e-3,
        "area_m2": 1e-6,
        "tops_per_watt": 10.0,
        "conversions": 10**6,
        "crossbars": 10,
    }


def way(what: str, exact: float, adc: float, mean: float) -> dict[str, Any]:
    """One way to train."""
    return {
        "training": what,
        "name": "vgg8",
        "float": exact + 0.5,
        "ideal_integer": exact,
        "adc": adc,
        "chips": [mean - 0.5, mean + 0.5],
        "mean": mean,
        "std": 0.7,
        "worst": mean - 0.5,
        "ranges": "calibrated",
        "trained_for": [],
    }


def changed(**values: Any) -> dict[str, Any]:
    """The sample study with some lessons replaced."""
    return copy.deepcopy({**study(), **values})
