"""Measure one network on every combination of some chip keys, point by point."""

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from torch import nn

from bitline.chip.description import Chip
from bitline.chip.files import replace
from bitline.chip.records import fingerprint
from bitline.cost.model import price
from bitline.errors import DataError
from bitline.evaluation.finished import Place, measured
from bitline.evaluation.grid import Sweep, key_text, points
from bitline.evaluation.journal import digest_of
from bitline.evaluation.on_chip import OnChip, calibrated, converted
from bitline.evaluation.record import Variant
from bitline.evaluation.score import score
from bitline.evaluation.settings import Settings
from bitline.evaluation.task import Task
from bitline.evaluation.variants import sweep
from bitline.nn import placement, set_chip
from bitline.nn.range_training import load_ranges


def measure(
    model: nn.Module,
    task: Task,
    chip: Chip,
    settings: Settings,
    vary: Mapping[str, Sequence[object]],
    place: Place,
    *,
    name: str,
    mapping: Mapping[str, str] | None = None,
    ranges: Path | None = None,
    done: Callable[[Variant], None] | None = None,
) -> Sweep:
    """Measure every point of a grid; see `bitline.sweep`."""
    every = points(vary)
    chips = [replace(chip, *keys) for keys in every]  # refuses what is no chip
    if settings.chips < 1:
        raise DataError(f"chips is {settings.chips}; allowed: 1 or more")
    _check_calibration(chips, settings, ranges)
    place.check()
    on_chip = converted(model, task, chip, settings, mapping, ranges)
    _check_points(on_chip, chips, ranges)
    set_chip(on_chip.model, chip)
    begun = Sweep(
        bitline=version("bitline"),
        chip=chip,
        model=name,
        network=digest_of(model.state_dict()),
        data=task.data,
        metric=task.metric.record,
        calibration=task.calibrated_on if ranges is None else f"training on the chip, {ranges.name}",
        simulation=settings.simulation,
        seeds=tuple(settings.seeds),
        vary={key: tuple(key_text(value) for value in values) for key, values in vary.items()},
        measured=measured(on_chip, mapping, ranges),
        float=score(on_chip.plain, task),
        variants=(),
    )
    with place.held():
        finished = place.open(begun)
        left = [keys for keys in every if tuple(keys) not in finished.variants]
        if left and (ranges is not None or chip.weights.bias_bits is not None):
            calibrated(on_chip, ranges)

        def keep(variant: Variant) -> None:
            finished.add(variant)
            if done is not None:
                done(variant)

        sweep(on_chip, chip, left, ranges=ranges, done=keep)
        finished.end()
        return finished.sweep()


def _check_calibration(chips: Sequence[Chip], settings: Settings, ranges: Path | None) -> None:
    """Refuse a calibration that no point would have.

    Raises:
        DataError: says why.
    """
    if settings.in_turn and ranges is not None:
        raise DataError(f"in_turn (--in-turn) does nothing here: the ranges are those that were trained, {ranges}")
    if settings.in_turn and not any(chip.adc.keeps_ranges for chip in chips):
        policy = chips[0].adc.policy
        raise DataError(f"in_turn (--in-turn) does nothing here: adc.policy is {policy!r}, which fits no ADC range")
    if ranges is not None and any(chip.adc.policy == "calibrated" for chip in chips):
        raise DataError(
            f"some points have adc.policy = 'calibrated', the others the trained ranges of {ranges}: sweep the "
            "policies apart, with --set adc.policy=calibrated"
        )


def _check_points(on_chip: OnChip, chips: Sequence[Chip], ranges: Path | None) -> None:
    """Refuse a point that the network, or the ranges that were trained, do not fit; nothing is measured."""
    for changed in {fingerprint(each): each for each in chips}.values():
        set_chip(on_chip.model, changed)
        price(placement(on_chip.model))
        if ranges is not None and changed.adc.keeps_ranges:
            load_ranges(on_chip.model, ranges)
