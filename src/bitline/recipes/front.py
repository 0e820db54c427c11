"""The front of a search: which of its points are trained, and which one is kept."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from optuna.trial import FrozenTrial

from bitline.evaluation.files import load as load_evaluation
from bitline.evaluation.record import Evaluation
from bitline.files import AFTER, BEFORE, FRONT, write_json
from bitline.recipes.records.auto import Auto
from bitline.recipes.records.base import Recipe
from bitline.recipes.records.conventional import Conventional
from bitline.recipes.records.mixed import Mixed
from bitline.recipes.records.psum_aware import PsumAware
from bitline.recipes.records.union import convert

WITHIN = 1.5
"""points below the network it came from that the kept point may be"""
REACH = 10.0
"""points below the best of the proxy that training may make up for"""


def train_front(config: Auto, out: Path, front: Sequence[FrozenTrial], train: Callable[[Recipe], Path]) -> Path:
    """Train points of the front as ``mixed`` recipes; without a new structure, on the chip alone.

    Args:
        config: of the search.
        out: its run directory.
        front: trials to train.
        train: runs a recipe, and returns its run directory with its evaluation.

    Returns:
        The run directory of the point to keep: the cheapest within `WITHIN` points of the network it came from or,
        without one, the most accurate.
    """
    points: list[dict[str, Any]] = []
    for trial in front:
        overrides = (*config.overrides, *trial.user_attrs["overrides"])
        folder = out / f"trial{trial.number:03d}"
        layers = trial.user_attrs["layers"]
        record: type[Recipe] = Mixed if layers else Conventional
        own = {"layers": layers} if layers else {}
        if config.epochs_on_chip and set(layers.values()) <= {"dense"}:  # floating point has nothing to mend
            record, own = PsumAware, {"epochs": 0}
        point = convert(config, record, **own, overrides=overrides, out=folder)
        evaluation = load_evaluation(train(point) / AFTER)
        points.append(_point(trial, evaluation, folder.name))
    goal = load_evaluation(out / BEFORE).accuracy.float - WITHIN
    near = [point for point in points if point["accuracy"] >= goal]
    best = min(near, key=lambda p: p["energy"]) if near else max(points, key=lambda p: p["accuracy"])
    for point in points:
        point["dominated"] = any(_dominates(other, point, config.objectives) for other in points)
    write_json(out / FRONT, {"objectives": list(config.objectives), "points": points, "kept": best["run"]})
    return out / best["run"]


def _point(trial: FrozenTrial, evaluation: Evaluation, run: str) -> dict[str, Any]:
    accuracy, cost = evaluation.accuracy, evaluation.cost
    return {
        "run": run,
        "trial": trial.number,
        "accuracy": accuracy.mean,
        "std": accuracy.std,
        "worst": accuracy.worst,
        "energy": cost.energy_J,
        "area": cost.area_m2,
        "latency": cost.latency_s,
        "tops_per_watt": cost.tops_per_watt,
        "layers": trial.user_attrs["layers"],
        "overrides": trial.user_attrs["overrides"],
    }


def _dominates(a: dict[str, Any], b: dict[str, Any], objectives: Sequence[str]) -> bool:
    """Whether a is nowhere worse than b and somewhere better."""
    better = [
        (a[name] > b[name], a[name] < b[name]) if name == "accuracy" else (a[name] < b[name], a[name] > b[name])
        for name in objectives
    ]
    return any(first for first, _ in better) and not any(second for _, second in better)


def select(front: Sequence[FrozenTrial], most: int, images: int) -> list[FrozenTrial]:
    """Pick trials of the front to train: the best, and others spread evenly over the logarithm of energy.

    The best is the cheapest of those that so few images cannot tell from the most accurate: within one standard error.
    Where there are enough, all lie within `REACH` of the most accurate: training brings no other near it.

    Args:
        front: cheapest first.
        most: trials to pick.
        images: that accuracies come from.
    """
    if len(front) <= most:
        return list(front)
    ranked = sorted(front, key=_accuracy, reverse=True)
    top = _accuracy(ranked[0])
    near = [t for t in front if _accuracy(t) >= top - REACH]
    if len(near) < most:
        return [t for t in front if t in ranked[:most]]
    error = math.sqrt(top * (100 - top) / images)
    best = next(t for t in front if _accuracy(t) >= top - error)
    energy = torch.tensor([float(t.user_attrs["energy_J"]) for t in near]).log()
    steps = torch.linspace(float(energy[0]), float(energy[-1]), most)
    spread = [near[i] for i in dict.fromkeys(int((energy - step).abs().argmin()) for step in steps)]
    return spread if best in spread else [*spread[:-1], best]


def _accuracy(trial: FrozenTrial) -> float:
    return float(trial.user_attrs["accuracy"])
