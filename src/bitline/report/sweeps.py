"""Chips that were tried: what sets them apart, and which no other beats."""

from collections.abc import Sequence

from bitline.evaluation.figures import Better
from bitline.evaluation.record import Variant
from bitline.report import text

_SHORT = 20  # characters of a label that fits beside a point


def overrides(variant: Variant) -> dict[str, float | str]:
    """Return the chip keys that were changed, with their values."""
    return dict(_setting(item) for item in variant.overrides)


def _setting(item: str) -> tuple[str, float | str]:
    """Read ``adc.bits=6``; a value that is no number stays text."""
    key, _, value = item.partition("=")
    try:
        number = float(value)
    except ValueError:
        return key, value
    return key, int(number) if number.is_integer() else number


def short_labels(variants: Sequence[Variant]) -> list[str]:
    """Name each chip in few words: its label, or only what sets it apart where that is long."""
    labels = [variant.label for variant in variants]
    changes = [overrides(variant) for variant in variants]
    if max(map(len, labels), default=0) <= _SHORT or not all(changes):
        return labels
    apart: dict[tuple[str, ...], str] = {}  # keys that change together are told once
    for key in dict.fromkeys(key for change in changes for key in change):
        values = tuple(text.plain(change.get(key)) for change in changes)
        if len(set(values)) > 1:
            apart.setdefault(values, key.rpartition(".")[2])
    return [", ".join(f"{name} {values[i]}" for values, name in apart.items()) for i in range(len(variants))]


def frontier(points: Sequence[tuple[float | None, float | None]], better: Better = "higher") -> list[int]:
    """Return the points that no other beats in both energy and accuracy, by rising energy.

    Args:
        points: energy and accuracy of each; one that lacks either beats none.
        better: which way the figures beside energy are better.
    """
    sign = -1 if better == "higher" else 1
    complete = [
        (energy, sign * mean, i) for i, (energy, mean) in enumerate(points) if energy is not None and mean is not None
    ]
    best, unbeaten = float("inf"), list[int]()
    for _, loss, i in sorted(complete):
        if loss < best:
            best = loss
            unbeaten.append(i)
    return unbeaten
