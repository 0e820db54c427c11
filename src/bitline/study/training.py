"""Lesson 3: the same network trained without the chip, with its integers, and with its partial sums."""

from typing import Any

from bitline.chip.description import Chip
from bitline.chip.variants import ideal, with_cells
from bitline.evaluation import put_on_chip
from bitline.evaluation.score import Tick, score
from bitline.nn import IDEAL
from bitline.study.plan import Plan
from bitline.study.runs import Network, chip_for
from bitline.study.subject import spread

TRAININGS = ("unaware", "quantization-aware", "partial-sum-aware")
"""what training may know of the chip: nothing, its number formats, its ADCs on every row tile"""


def measure(network: Network, chip: Chip, plan: Plan, tick: Tick) -> dict[str, Any]:
    """Measure a network on the chip of the study.

    Args:
        network: with trained ranges, if it has some.
        chip: of the study.
        plan: how thoroughly.
        tick: told of the images done.

    Returns:
        Accuracies, %: ``float``, ``ideal_integer``, ``adc`` (ideal cells) and of the ``chips``; ``ranges``
        (``"trained"``, or the policy of the chip) and ``trained_for``: how the chip it was trained for differs.
    """
    used, notes = chip_for(network, chip)
    settings = plan.settings
    on_chip = put_on_chip(network.model, network.data, used, settings, ranges=network.ranges)
    plain = score(on_chip.plain, on_chip.task, tick)
    accuracies = {
        "float": plain,
        "ideal_integer": on_chip.accuracy(ideal(used), IDEAL, tick),
        "adc": on_chip.accuracy(with_cells(used), IDEAL, tick),
        **spread([on_chip.accuracy(used, seed, tick) for seed in settings.seeds]),
    }
    return accuracies | {"name": network.name, "ranges": used.adc.policy, "trained_for": notes}
