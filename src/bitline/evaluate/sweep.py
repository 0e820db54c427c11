"""One network on chips that differ in a few keys: accuracy with spread beside cost."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from bitline.chip.description import Chip
from bitline.chip.files import replace
from bitline.evaluate.causes import stages
from bitline.evaluate.run import OnChip
from bitline.nn import IDEAL


def sweep(
    on_chip: OnChip,
    chip: Chip,
    overrides: Sequence[Sequence[str]],
    *,
    done: Callable[[dict[str, Any]], None] | None = None,
) -> list[dict[str, Any]]:
    """Measure a network on variants of a chip, all with the same chip seeds.

    Args:
        on_chip: the network, with the settings that say how many chips and images.
        chip: to vary.
        overrides: of each variant, ``["adc.bits=6", "crossbar.rows=64"]`` and the like.
        done: told of each row as it is finished.

    Returns:
        A row a variant: ``label``, ``overrides``, ``chips``, ``mean``, ``std``, ``worst`` (percent) and ``energy_J``,
        ``latency_s``, ``area_m2``, ``tops_per_watt``, ``crossbars``, ``conversions``.
    """
    rows: list[dict[str, Any]] = []
    for keys in overrides:
        variant = replace(chip, *keys)
        on_chip.placed_on(variant)
        seeds = on_chip.settings.seeds
        if any(stage.seeded for stage in stages(variant)):
            chips = [on_chip.accuracy(variant, seed) for seed in seeds]
        else:  # one chip is like another
            chips = len(seeds) * [on_chip.accuracy(variant, IDEAL)]
        cost = on_chip.price()
        row = {
            "label": ", ".join(keys),
            "overrides": list(keys),
            "chips": chips,
            "mean": statistics.fmean(chips),
            "std": statistics.stdev(chips) if len(chips) > 1 else 0.0,
            "worst": min(chips),
            "energy_J": cost.energy_J,
            "latency_s": cost.latency_s,
            "area_m2": cost.area_m2,
            "tops_per_watt": cost.tops_per_watt,
            "crossbars": cost.crossbars,
            "conversions": cost.conversions,
        }
        rows.append(row)
        if done is not None:
            done(row)
    return rows


def cheapest(rows: Sequence[dict[str, Any]], *, within: float) -> dict[str, Any]:
    """Return the row of least energy whose mean accuracy is at most `within` points below the best."""
    best = max(row["mean"] for row in rows)
    return min((row for row in rows if row["mean"] >= best - within), key=lambda row: row["energy_J"])
