"""One network on every combination of some chip keys: what is measured, as it is kept."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from bitline.chip.description import Chip
from bitline.errors import DataError
from bitline.evaluation import shown
from bitline.evaluation.figures import Metric, Real
from bitline.evaluation.record import Data, Simulated, Variant
from bitline.evaluation.result import Result

MOST_POINTS = 10_000


class Sweep(Result):
    """One network on chips that differ in a few keys: how well it answers beside what it costs."""

    format: Literal[1] = 1
    """of the file"""
    bitline: str
    """version that measured"""
    chip: Chip
    """whose keys vary"""
    model: str
    network: str
    """hash of its weights"""
    data: Data
    metric: Metric
    calibration: str
    """what the ranges were set on, in words"""
    simulation: Simulated
    seeds: tuple[int, ...]
    """of the programmed chips at each point"""
    vary: dict[str, tuple[str, ...]]
    """values of each key"""
    measured: dict[str, Any] = Field(default_factory=dict[str, Any])
    """what else decides the points, see `bitline.evaluation.finished`; none in files of earlier versions"""
    float: Real
    """figure of the network without a chip"""
    variants: tuple[Variant, ...]
    """the points, in the order of the grid; fewer than the grid has where the sweep is not finished"""

    def __str__(self) -> str:
        return shown.words(self)

    @property
    def best(self) -> tuple[Variant, ...]:
        """Points that no other beats in both figure and energy, by rising energy."""
        sign = 1 if self.metric.better == "higher" else -1
        best: list[Variant] = []
        for variant in sorted(self.variants, key=lambda v: (v.energy_J, -sign * v.mean)):
            if not best or sign * variant.mean > sign * best[-1].mean:
                best.append(variant)
        return tuple(best)


def points(vary: Mapping[str, Sequence[object]]) -> list[list[str]]:
    """List the combinations of values, as ``KEY=VALUE``; the last key varies fastest.

    Raises:
        DataError: none, a key without values, one value twice, or too many combinations.
    """
    if not vary:
        raise DataError("nothing varies; give for example {'adc.bits': [4, 5, 6]} (--vary adc.bits=4,5,6)")
    count = 1
    for key, values in vary.items():
        texts = [key_text(value) for value in ([] if isinstance(values, str) else values)]
        if not texts or len(set(texts)) < len(texts):
            raise DataError(f"values of {key} are {values!r}; expected a list of values, all different")
        count *= len(texts)
    if count > MOST_POINTS:
        raise DataError(f"the sweep has {count} points; allowed: {MOST_POINTS}")
    sides = [[f"{key}={key_text(value)}" for value in values] for key, values in vary.items()]
    return [list(keys) for keys in itertools.product(*sides)]


def key_text(value: object) -> str:
    """Write a value as `--set` takes it."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)
