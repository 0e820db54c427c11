"""One memory cell: its levels, and the ways in which it departs from them."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bitline import units
from bitline.chip.plausible import Plausible
from bitline.chip.records import LargestSiemens, Ohm, ReadVolt, Record, Siemens, Sigma, Stuck, Switch, by_name


class Ideal(Record):
    """Every cell takes exactly its target conductance."""

    kind: Literal["ideal"] = "ideal"


class LogNormal(Record):
    """g = g_target e^theta, theta ~ N(0, sigma^2) (CRIMP, ACM TECS 2023)."""

    kind: Literal["lognormal"]
    sigma: Sigma
    centred: Switch = False
    """write towards g_target / e^(sigma^2 / 2), so that the mean of what is written is g_target"""


class GaussianProportional(Record):
    """g = g_target (1 + N(0, sigma^2)), never below zero."""

    kind: Literal["gaussian_proportional"]
    sigma: Sigma


class GaussianAbsolute(Record):
    """g = g_target + N(0, sigma^2) with sigma in siemens, never below zero."""

    kind: Literal["gaussian_absolute"]
    sigma: Siemens


class PerLevel(Record):
    """g ~ N(mean[level], sigma[level]^2) from a measured table, never below zero."""

    kind: Literal["per_level"]
    sigma: tuple[Siemens, ...]
    """standard deviation of each level, S"""
    mean: tuple[Siemens, ...] | None = None
    """mean of each level, S; the ideal conductances where absent"""


Programming = Annotated[
    Ideal | LogNormal | GaussianProportional | GaussianAbsolute | PerLevel, Field(discriminator="kind")
]


class NoReadNoise(Record):
    """Two reads of one cell agree."""

    kind: Literal["none"] = "none"


class AbsoluteReadNoise(Record):
    """At every read a driven cell's conductance moves by N(0, sigma^2), sigma in siemens."""

    kind: Literal["absolute"]
    sigma: Siemens


class ProportionalReadNoise(Record):
    """At every read a driven cell's conductance moves by N(0, (sigma g)^2)."""

    kind: Literal["proportional"]
    sigma: Sigma


ReadNoise = Annotated[NoReadNoise | AbsoluteReadNoise | ProportionalReadNoise, Field(discriminator="kind")]


class Faults(Record):
    """Cells stuck for life: off at g_min, on at g_max; fractions of all cells."""

    stuck_off: Stuck = 0.0
    stuck_on: Stuck = 0.0

    @model_validator(mode="after")
    def _cells_are_stuck_once(self) -> Self:
        if self.stuck_off + self.stuck_on > 1:
            raise ValueError(f"stuck_off + stuck_on = {self.stuck_off + self.stuck_on:g} exceeds 1: a cell sticks once")
        return self


LEAST_RATIO = 1.005
"""of g_max to g_min; assumed: magnetic junctions, whose ratio is the smallest in use, have 2 to 3"""


class Cell(Record):
    """One memory cell of 2**bits conductance levels, equally spaced from g_min to g_max."""

    bits: Annotated[int, Field(strict=True, ge=1, le=8)]
    g_min: Siemens
    g_max: LargestSiemens
    read_voltage: ReadVolt
    leak: Literal["cancelled", "kept"] = "cancelled"
    """cancelled: a reference column removes g_min; kept: the finite on/off ratio shows in the sums"""
    area_f2: Annotated[
        float,
        Plausible(0.01, 1e5, "cells stacked 400 high, to a capacitor beside an SRAM cell; assumed", usual=(1, 5000)),
    ] = 12.0
    """cell area in squared feature sizes"""
    access_resistance: Ohm = 0.0
    """of a transistor in series; it lowers the energy of a read, and not what a cell adds to its bitline"""
    programming: Annotated[Programming, by_name] = Ideal()
    faults: Faults = Faults()
    read_noise: Annotated[ReadNoise, by_name] = NoReadNoise()

    @property
    def max_level(self) -> int:
        """Highest level, 2**bits - 1."""
        return 2**self.bits - 1

    @property
    def errs(self) -> bool:
        """Whether what a cell adds to its bitline can differ from its level: programming, faults or leak."""
        varies = not isinstance(self.programming, Ideal) or self.faults.stuck_off > 0 or self.faults.stuck_on > 0
        return varies or self.leak == "kept"

    @property
    def step(self) -> float:
        """Conductance between two neighbouring levels, S."""
        return (self.g_max - self.g_min) / self.max_level

    @property
    def zero(self) -> float:
        """Conductance that adds nothing to a bitline, S: g_min where a reference column cancels the leak, else 0."""
        return self.g_min if self.leak == "cancelled" else 0.0

    @property
    def leak_levels(self) -> float:
        """What a cell at g_min adds to its bitline for each unit of input, level units; 0 where it is cancelled."""
        return (self.g_min - self.zero) / self.step

    @model_validator(mode="after")
    def _levels_differ(self) -> Self:
        if self.g_min >= self.g_max:
            raise ValueError(
                f"g_min = {units.pretty(self.g_min, 'S')} must be less than g_max = {units.pretty(self.g_max, 'S')}"
            )
        if self.g_max < LEAST_RATIO * self.g_min:
            raise ValueError(
                f"g_max = {units.pretty(self.g_max, 'S')} is less than {LEAST_RATIO} times g_min = "
                f"{units.pretty(self.g_min, 'S')}: its levels cannot be told apart"
            )
        if isinstance(self.programming, PerLevel):
            for name in ("sigma", "mean"):
                table = getattr(self.programming, name)
                if table is not None and len(table) != self.max_level + 1:
                    raise ValueError(
                        f"programming.{name} has {len(table)} entries; "
                        f"a cell of {self.bits} bits has {self.max_level + 1} levels"
                    )
        return self
