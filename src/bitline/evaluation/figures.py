"""How well a network answers, on each chip and on the whole: what the figures are, and their spread."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from bitline.chip.records import Record
from bitline.evaluation.spread import Spread

Better = Literal["higher", "lower"]
"""which way a metric is better"""
Real = float
"""a figure of the metric"""
Amount = Annotated[float, Field(ge=0)]


class Metric(Record):
    """What the figures that stand under ``accuracy`` are."""

    name: str = "accuracy"
    unit: str = "%"
    better: Better = "higher"

    @property
    def label(self) -> str:
        """Name and unit: ``accuracy [%]``."""
        return f"{self.name} [{self.unit}]" if self.unit else self.name

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of right answers."""
        return self == Metric()

    def lost(self, before: float, after: float) -> float:
        """How much worse a figure is than one before it."""
        return before - after if self.better == "higher" else after - before


class Statistics(Record):
    """What follows from the accuracies of the chips."""

    p5: float
    """that 5 % of chips are worse than, interpolated between two of them"""
    standard_error: Amount
    """of the mean, points"""


class Accuracy(Record):
    """How well the network answers: share of images classified correctly, %, unless ``metric`` says otherwise.

    No mean, std and worst where no chip was programmed.
    """

    float: Real
    """of the network without a chip"""
    ideal_integer: Real
    """of exact products of integers"""
    chips: tuple[Real, ...]
    """of each programmed chip, in the order of the seeds"""
    mean: Real | None = None
    std: Amount | None = None
    """points"""
    worst: Real | None = None

    @classmethod
    def of(cls, plain: Real, ideal_integer: Real, chips: Sequence[Real], better: Better = "higher") -> Self:
        """Return the figures with the spread of the chips.

        Args:
            plain: of the network without a chip.
            ideal_integer: of exact products of integers.
            chips: of each programmed chip.
            better: which way they are better.
        """
        spread = Spread.of(chips, better).to_json() if chips else {}
        return cls.model_validate({"float": plain, "ideal_integer": ideal_integer, "chips": chips, **spread})

    @property
    def spread(self) -> Spread | None:
        """Of the chips; None where none was programmed."""
        return Spread.of(self.chips) if self.chips else None

    def statistics_of(self, better: Better) -> Statistics | None:
        """Of the chips; None where none was programmed.

        Args:
            better: which way the figures are better.
        """
        if self.spread is None:
            return None
        p5 = float(np.percentile(self.chips, 5 if better == "higher" else 95))
        return Statistics(p5=p5, standard_error=self.spread.standard_error)

    @property
    def on_chip(self) -> Real:
        """Mean of the chips, or that of exact integers where none was programmed."""
        return self.ideal_integer if self.mean is None else self.mean

    @model_validator(mode="after")
    def _spread_of_the_chips(self) -> Self:
        for name in ("mean", "std", "worst"):
            if (getattr(self, name) is None) == bool(self.chips):
                raise ValueError(f"{name} is {getattr(self, name)} with {len(self.chips)} chips")
        return self

    @model_serializer(mode="wrap")
    def _without_absent(self, to_json: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in to_json(self).items() if value is not None}
