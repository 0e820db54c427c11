"""Rows of the table of speed goals: what was aimed at, what it was, what it is, and how near a limit that is."""

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent / "benchmarks" / "results"
HEADER = ["goal", "at most", "before", "now", "", "limit"]
_CONVERSIONS = 157e6
"""of an image of VGG-8"""
_ROW_TILE = 512
"""conversions of 64 vectors and 8 digits in a row tile of a column and slice"""
_CYCLES = {"ideal": 140, "programmed": 320, "read noise": 620}
"""that such a row tile takes at least, see docs/kernels.md"""
_GHZ = 4.3


def _read(name: str) -> Any:
    return json.loads((ROOT / f"{name}.json").read_text())


def _row(goal: str, most: float, before: float | None, now: float, unit: str = " x", limit: str = "") -> list[str]:
    was = "" if before is None else f"{before:.2f}{unit}"
    return [goal, f"{most:g}{unit}", was, f"{now:.2f}{unit}", "met" if now <= most else "missed", limit]


def _kernel_ms(cells: str) -> float:
    """What the conversions of an image of VGG-8 take at least, ms."""
    return _CONVERSIONS / _ROW_TILE * _CYCLES[cells] / (_GHZ * 1e6)


def _limit(cells: str, plain_ms: float, ratio: float, more: float = 0.0) -> str:
    """Say the limit over a plain step or pass, and the share reached; `more`: what is beside the conversions."""
    least = _kernel_ms(cells) / plain_ms + more
    beside = f", {more:.1f} x of it the plain gradient in bf16" if more else ""
    return f"{least:.1f} x{beside}; {100 * least / ratio:.0f} % reached"


def products() -> list[list[str]]:
    """Passes of VGG-8 on programmed cells."""
    result = _read("mvm")
    now, before, plain = result["ratios"], result["before"]["ratios"], result["milliseconds_per_image"]["vgg8/plain"]
    rows = [
        _row(f"VGG-8, {text}", most, before[key], now[key], limit=_limit(cells, plain, now[key]))
        for text, key, most, cells in (
            ("programmed cells", "vgg8/programmed", 5.0, "programmed"),
            ("read noise", "vgg8/read_noise", 8.0, "read noise"),
        )
    ]
    for cells, text in (("calibrated", "ideal"), ("programmed_calibrated", "programmed")):
        full = "vgg8/full" if cells == "calibrated" else "vgg8/programmed"
        ratio = [each[f"vgg8/{cells}"] / each[full] for each in (before, now)]
        rows.append(_row(f"VGG-8, calibrated ranges over full, {text} cells", 1.1, ratio[0], ratio[1]))
    return rows


def programming() -> list[list[str]]:
    """Writing a VGG-16 chip."""
    found = _read("programming")["settings"]
    names = {
        "writing VGG-16, error and faults": ("and faults", 1.0),
        "the same with pairs of cells": ("pairs of cells: programming error and faults", 1.0),
        "everything on": ("and readback, 2 rewrites, remap, flip", 5.0),
        "everything on, pairs of cells": ("pairs of cells: and readback, 2 rewrites, remap, flip", 5.0),
    }
    return [
        _row(text, most, found[key]["before"]["next_cpu_s"], found[key]["next_cpu_s"], " s")
        for text, (key, most) in names.items()
    ]


def calibration() -> list[list[str]]:
    """Calibration over a forward pass of the same images."""
    result = _read("calibration")
    now, before = result["ratios"], result["before"]["ratios"]
    rows: list[list[str]] = []
    for network in dict.fromkeys(key.split("/")[0] for key in now):
        images = max(int(key.split("/")[1]) for key in now if key.startswith(f"{network}/"))
        key = f"{network}/{images}/slice_digit"
        rows.append(_row(f"calibration of {network}, {images} images", 8.0, before.get(key), now[key]))
    return rows


def surrogate() -> list[list[str]]:
    """The surrogate over a plain step in the same precision."""
    now = _read("surrogate")["ratios"]
    before = _read("surrogate").get("before", {}).get("ratios", {})
    kinds = [f"{what}/{word}" for what in ("evaluation", "training") for word in ("fp32", "bf16")]
    return [
        _row(f"surrogate of {network}, {kind.replace('/', ', ')}", 1.3, before.get(key), now[key])
        for network in dict.fromkeys(key.split("/")[0] for key in now)
        for kind in kinds
        if (key := f"{network}/{kind}") in now
    ]


def training() -> list[list[str]]:
    """A training step of VGG-8, and a step of a zero epoch."""
    result = _read("training")
    now, before = result["ratios"], result["before"]["ratios"]
    plain = result["milliseconds_per_step"]["plain"] / result["batch"]
    # Of a plain step two of three products are those of the gradient.
    more = now["vgg8/training_step/plain_bf16"] * 2 / 3
    cases = (
        ("programming error, new chip every step", "training_step", 2.5, "programmed"),
        ("ideal cells", "training_step/ideal_cells", 1.6, "ideal"),
    )
    rows = [
        _row(
            f"training step of VGG-8, {text}",
            most,
            before[f"vgg8/{key}"],
            now[f"vgg8/{key}"],
            limit=_limit(cells, plain, now[f"vgg8/{key}"], more),
        )
        for text, key, most, cells in cases
    ]
    zero = _read("zerorize")
    was = zero.get("before", {}).get("ratios", {})
    names = {
        "new chip every step": "linear",
        "every 8 steps": "linear/chip_every_8",
        "pairs, every 4 steps": "linear/pairs/chip_every_4",
    }
    for text, case in names.items():
        key = f"resnet20/bf16-mixed/{case}"
        rows.append(_row(f"zero epoch of ResNet-20 in bf16, {text}", 2.0, was.get(key), zero["ratios"][key]))
    return rows


def threads() -> list[list[str]]:
    """How many times as fast two threads are as one."""
    result = _read("threads")
    rows: list[list[str]] = []
    for network in ("resnet20", "vgg8"):
        for kind, text in (
            ("forward", "a pass"),
            ("new_chip", "a chip written and asked"),
            ("training_step", "a step"),
        ):
            key = f"{network}/64/{kind}"
            now, before = result["speedups"][key], result["before"]["speedups"].get(key)
            was = "" if before is None else f"{before:.2f}"
            verdict = "met" if now >= 1.8 else "missed"
            rows.append([f"two threads, {network}, {text}", "at least 1.8", was, f"{now:.2f}", verdict, "2"])
    least = min(result["speedups"].values())
    was = f"{min(result['before']['speedups'].values()):.2f}"
    verdict = "met" if least >= 1 else "missed"
    rows.append(["two threads, the worst of all cases", "at least 1", was, f"{least:.2f}", verdict, "2"])
    return rows


def growth() -> list[list[str]]:
    """Exponents over the sizes of networks."""
    largest = max(_read("growth")["exponents"].values())
    return [_row("largest exponent of time and memory over size", 1.0, None, largest, "")]


def rows() -> list[list[str]]:
    """All of them."""
    parts = (programming, calibration, surrogate, training, products, threads, growth)
    return [row for part in parts for row in part()]
