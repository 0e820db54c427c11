"""Figures of a metric as a reader wants them: accuracy in percent, or what else a network was measured by."""

from dataclasses import dataclass

from bitline.evaluation import shown
from bitline.evaluation.record import Metric
from bitline.report import text


@dataclass(frozen=True)
class Measure:
    """How figures of a metric are written.

    Args:
        metric: their name, unit, and which way they are better.
    """

    metric: Metric

    @property
    def title(self) -> str:
        """Name that begins a sentence."""
        name = self.metric.name
        return name if name[:2].isupper() else f"{name[:1].upper()}{name[1:]}"

    @property
    def points(self) -> str:
        """Unit of a difference."""
        return "points" if self.metric.unit == "%" else self.metric.unit

    @property
    def unit(self) -> str:
        """The unit behind a figure, with the space before it."""
        return f" {self.metric.unit}" if self.metric.unit else ""

    def number(self, value: object, *, sign: bool = False) -> str:
        """Write a figure without its unit: two places of percents, else four digits."""
        if self.metric.unit == "%":
            return text.decimal(value, sign=sign)
        written = text.number(value)
        return f"+{written}" if sign and (text.finite(value) or 0) > 0 else written

    def spread(self, mean: object, std: object) -> str:
        """Write ``mean ± std`` without the unit, or the mean alone where nothing varies."""
        return " ± ".join(self.parts(mean, std))

    def parts(self, mean: object, std: object) -> list[str]:
        """Write a mean without its unit, and what varies around it, if anything does: both to the same place."""
        middle, around = text.finite(mean), text.finite(std)
        if middle is None or not around:
            return [self.number(mean)]
        if self.metric.unit == "%":
            return [self.number(mean), self.number(std)]
        return shown.spread(middle, around)

    def figure(self, value: object) -> str:
        """Write a figure with its unit."""
        return self.number(value) + self.unit


ACCURACY = Measure(Metric())
