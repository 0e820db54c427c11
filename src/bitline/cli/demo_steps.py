"""What the demonstration compares: the best setting that trains nothing, and what a step gains over another."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING

from bitline.report import text
from bitline.report.tables import Cell, Columns, Head, Sheet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from bitline.chip import Chip
    from bitline.data import DataSet
    from bitline.evaluation import Evaluation, Variant

GRANULARITIES = ("layer", "slice", "slice_digit", "column")
CALIBRATIONS = ("mse", "percentile")
TUNING_IMAGES = 300
"""training images that free settings are chosen on"""
TUNING_CHIPS = 2
TUNING_SEED = 1000
"""of the first of these chips, which are none of those that are evaluated"""


@dataclass(frozen=True)
class Free:
    """A setting that trains nothing.

    Args:
        chip: with its ADC ranges.
        in_turn: whether ranges are fitted layer after layer.
        bias_correction: whether biases are set anew on each chip.
        tried: every setting, measured on images and chips for tuning.
    """

    chip: Chip
    in_turn: bool
    bias_correction: bool
    tried: tuple[Variant, ...]

    @property
    def words(self) -> str:
        """What was chosen."""
        adc = self.chip.adc
        turn = "layer after layer" if self.in_turn else "at once"
        biases = ", biases set on each chip with a few images" if self.bias_correction else ""
        return f"one range for each {adc.granularity.replace('_', ' and ')}, by {adc.calibration}, {turn}{biases}"


def best_free(network: nn.Module, data: DataSet, chip: Chip) -> Free:
    """Choose how ADC ranges are fitted, and whether biases are set on each chip; nothing is trained.

    Args:
        network: trained.
        data: whose last training images and, apart from those that are evaluated, whose chips it is chosen on.
        chip: all else of it stays.
    """
    from bitline.chip import replace as changed
    from bitline.evaluation import Settings, put_on_chip, sweep

    kept = replace(data, test_images=data.train_images[-TUNING_IMAGES:], test_labels=data.train_labels[-TUNING_IMAGES:])
    tried: list[tuple[float, tuple[str, ...], bool, bool, Variant]] = []

    def measure(keys: Sequence[tuple[str, ...]], *, in_turn: bool, bias_correction: bool) -> None:
        settings = Settings(chips=TUNING_CHIPS, seed=TUNING_SEED, in_turn=in_turn, bias_correction=bias_correction)
        on_chip = put_on_chip(network, kept, changed(chip, *keys[0]), settings)
        for own, variant in zip(keys, sweep(on_chip, chip, keys), strict=True):
            label = f"{variant.label}{', in turn' if in_turn else ''}{', biases' if bias_correction else ''}"
            named = variant.model_copy(update={"label": label})
            tried.append((variant.mean, own, in_turn, bias_correction, named))

    for calibration, in_turn in product(CALIBRATIONS, (False, True)):
        keys = [(f"adc.granularity={each}", f"adc.calibration={calibration}") for each in GRANULARITIES]
        measure(keys, in_turn=in_turn, bias_correction=False)
    _, keys, in_turn, _, _ = max(tried, key=lambda each: each[0])
    measure([keys], in_turn=in_turn, bias_correction=True)
    _, keys, in_turn, bias_correction, _ = max(tried, key=lambda each: each[0])
    return Free(changed(chip, *keys), in_turn, bias_correction, tuple(variant for *_, variant in tried))


@dataclass(frozen=True)
class Gain:
    """A difference of accuracies on the same chips and images.

    Args:
        points: gained.
        error: its standard error: of the chips, which are paired, and at most of the images.
    """

    points: float
    error: float

    @classmethod
    def of(cls, after: Evaluation, before: Evaluation) -> Gain:
        """Compare two evaluations of the same chips and images."""
        pairs = list(zip(after.accuracy.chips, before.accuracy.chips, strict=True))
        lost = [a - b for a, b in pairs]
        mean, count = sum(lost) / len(lost), len(lost)
        chips = sum((each - mean) ** 2 for each in lost) / max(1, count - 1) / count
        shares = [each.accuracy.on_chip / 100 for each in (after, before)]
        images = sum(1e4 * share * (1 - share) for share in shares) / after.data.count
        return cls(mean, math.sqrt(chips + images))

    @property
    def shows(self) -> bool:
        """Whether it is a gain beyond twice its standard error."""
        return self.points > 2 * self.error

    def __str__(self) -> str:
        return f"{text.decimal(self.points, 1, sign=True)} ± {text.decimal(self.error, 1)}"


@dataclass(frozen=True)
class Step:
    """One network on one chip.

    Args:
        name: of the step.
        evaluation: of it.
        best: the step that it is measured against, the best one before it on such a chip; None for the first.
    """

    name: str
    evaluation: Evaluation
    best: Step | None = None

    @property
    def gain(self) -> Gain | None:
        """Over the best one before."""
        return None if self.best is None else Gain.of(self.evaluation, self.best.evaluation)


def table(steps: Sequence[Step]) -> Sheet:
    """Every step against the best one before it."""
    sheet = Columns()
    sheet.words(Head("step", numeric=False), [f"{i}  {step.name}" for i, step in enumerate(steps, start=1)])
    accuracies = [step.evaluation.accuracy for step in steps]
    spread = [f"{text.decimal(a.mean)} ± {text.decimal(a.std)}" for a in accuracies]
    sheet.add(Head("on the chip", "%"), [Cell(words, a.mean) for words, a in zip(spread, accuracies, strict=True)])
    gains = [("", "") if step.best is None else (str(step.gain), str(1 + steps.index(step.best))) for step in steps]
    sheet.add(Head("gain", "points"), [Cell(gain) for gain, _ in gains])
    sheet.add(Head("over step"), [Cell(over) for _, over in gains])
    sheet.physical(Head("energy"), [step.evaluation.cost.energy_J for step in steps], "J")
    sheet.physical(Head("area"), [step.evaluation.cost.area_m2 for step in steps], "m2")
    return sheet.sheet("Every step against the best before it; ± of a gain: its standard error")


def outcome(steps: Sequence[Step], recipe: str, bits: int) -> list[str]:
    """Say what came of the steps, from the numbers alone.

    Args:
        steps: as found, with better ranges, with pairs of cells, with fewer bits, and those trained.
        recipe: that trained.
        bits: that are few.
    """
    found, ranged, paired, few, trained = steps
    accuracy, won = found.evaluation.accuracy, trained.gain
    assert won is not None
    lost = text.decimal(accuracy.float - accuracy.on_chip, 1)
    said = (
        f"gives {won} points beyond the best setting without it"
        if won.shows
        else f"wins nothing that so many images and chips could show: {won} points over the best setting without it"
    )
    pairs = "" if paired.gain is None or paired.gain.shows else " (within its error)"
    best = max(steps, key=lambda step: step.evaluation.accuracy.on_chip)
    return [
        f"Lost at first: {lost} points of {text.decimal(accuracy.float)} %.",
        f"Better ranges alone: {ranged.gain} points, at {_ratio(ranged.evaluation, found.evaluation)}.",
        f"Pairs of cells: {paired.gain} points{pairs}, at {_ratio(paired.evaluation, ranged.evaluation)}.",
        f"{bits}-bit ADCs need {_ratio(few.evaluation, paired.evaluation)} of those pairs.",
        f"There {recipe} training {said}.",
        f"Most accurate: {best.name}.",
    ]


def _ratio(after: Evaluation, before: Evaluation) -> str:
    """Say how energy and area compare."""
    energy, area = after.cost.energy_J / before.cost.energy_J, after.cost.area_m2 / before.cost.area_m2
    return f"{text.decimal(energy)} times the energy and {text.decimal(area)} times the area"
