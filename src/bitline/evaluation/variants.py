"""One network on chips that differ in a few keys: accuracy with spread beside cost."""

from collections.abc import Callable, Sequence
from pathlib import Path

from bitline.chip.description import Chip
from bitline.chip.files import replace
from bitline.evaluation.causes import stages
from bitline.evaluation.on_chip import OnChip
from bitline.evaluation.record import Variant
from bitline.evaluation.spread import Spread
from bitline.evaluation.workers import Job, asking
from bitline.nn import IDEAL


def sweep(
    on_chip: OnChip,
    chip: Chip,
    overrides: Sequence[Sequence[str]],
    *,
    ranges: Path | None = None,
    done: Callable[[Variant], None] | None = None,
) -> list[Variant]:
    """Measure a network on variants of a chip, all with the same chip seeds.

    Args:
        on_chip: the network, with the settings that say how many chips and images.
        chip: to vary.
        overrides: of each variant, ``["adc.bits=6", "crossbar.rows=64"]`` and the like.
        ranges: a file of those that were trained, for every variant that keeps ranges.
        done: told of each variant as it is finished.

    Raises:
        ChipError: no such chip can exist.
        DataError: the settings ask for no chip.
    """
    variants: list[Variant] = []
    for keys in overrides:
        changed = replace(chip, *keys)
        on_chip.placed_on(changed, ranges)
        seeds = on_chip.settings.seeds
        if any(stage.seeded for stage in stages(changed)):
            with asking(on_chip, on_chip.settings.workers) as ask:
                chips = list(ask([Job(changed, seed) for seed in seeds]))
        else:  # one chip is like another
            chips = len(seeds) * [on_chip.accuracy(changed, IDEAL)]
        spread, cost = Spread.of(chips, on_chip.task.metric.better), on_chip.price()
        variant = Variant(
            label=", ".join(keys),
            overrides=tuple(keys),
            chips=tuple(chips),
            mean=spread.mean,
            std=spread.std,
            worst=spread.worst,
            energy_J=cost.energy_J,
            latency_s=cost.latency_s,
            area_m2=cost.area_m2,
            tops_per_watt=cost.tops_per_watt,
            crossbars=cost.crossbars,
            conversions=cost.conversions,
        )
        variants.append(variant)
        if done is not None:
            done(variant)
    return variants


def cheapest(variants: Sequence[Variant], *, within: float) -> Variant:
    """Return the variant of least energy whose mean accuracy is at most `within` points below the best."""
    best = max(variant.mean for variant in variants)
    return min((variant for variant in variants if variant.mean >= best - within), key=lambda v: v.energy_J)
