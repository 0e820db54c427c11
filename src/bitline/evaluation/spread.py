"""What many programmed chips say together."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

from bitline.errors import DataError


@dataclass(frozen=True)
class Spread:
    """Mean and spread of one figure over several chips.

    Args:
        n: chips.
        mean: of their figures.
        std: standard deviation of the population that they are a sample of (n - 1); 0 for one chip.
        worst: lowest figure, or the highest where lower ones are better.
    """

    n: int
    mean: float
    std: float
    worst: float

    @classmethod
    def of(cls, values: Sequence[float], better: Literal["higher", "lower"] = "higher") -> Self:
        """Return the spread of these figures.

        Args:
            values: the figures.
            better: which way they are better.

        Raises:
            DataError: no figure at all.
        """
        if not values:
            raise DataError("a spread of 0 values; allowed: 1 or more")
        std = statistics.stdev(values) if len(values) > 1 else 0.0
        return cls(len(values), statistics.fmean(values), std, min(values) if better == "higher" else max(values))

    @property
    def standard_error(self) -> float:
        """Standard deviation of the mean."""
        return self.std / math.sqrt(self.n)

    def to_json(self) -> dict[str, float]:
        """Return ``mean``, ``std`` and ``worst``."""
        return {"mean": self.mean, "std": self.std, "worst": self.worst}
