"""What reads the bitlines: analog-to-digital converters and their ranges."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bitline import units
from bitline.chip.records import Ampere, Lines, Record, SampleRate

LEAST_RANGE = 1e-12
"""of bitline currents, A; assumed"""


class AdcRange(Record):
    """Bitline currents that the lowest and the highest code stand for, A.

    Where pairs are subtracted before their conversion and ``low = -high``, no current is code 0, and of an even number
    of codes one is not used. No code is below ``low`` or above ``high``.
    """

    low: Ampere
    high: Ampere

    @model_validator(mode="after")
    def _range_is_not_empty(self) -> Self:
        low, high = units.pretty(self.low, "A"), units.pretty(self.high, "A")
        if self.low >= self.high:
            raise ValueError(f"low = {low} must be less than high = {high}")
        if self.high - self.low < LEAST_RANGE:
            least = units.pretty(LEAST_RANGE, "A")
            raise ValueError(f"low = {low} to high = {high} is less than {least}, the noise of any amplifier (assumed)")
        return self


class Adc(Record):
    """Analog-to-digital converter at the foot of the bitlines."""

    bits: Annotated[int, Field(strict=True, ge=1, le=16)]
    levels: Annotated[int, Field(strict=True, ge=2)] | None = None
    """codes, at most 2**bits, which it is where absent: 3 with 2 bits makes ternary partial sums"""
    policy: Literal["lossless", "full", "calibrated", "trained", "fixed", "batch_minmax"] = "calibrated"
    """calibrated: fitted to data; trained: begun as calibrated, then kept and trained by the network"""
    granularity: Literal["layer", "slice", "slice_digit", "column"] = "slice_digit"
    """what has a range of its own under `calibrated`, `trained` and `batch_minmax`"""
    calibration: Literal["mse", "percentile"] = "mse"
    percentile: Annotated[float, Field(strict=True, gt=50, le=100)] = 99.9
    range: AdcRange | None = None
    """needed by, and only by, policy = "fixed" """
    columns_per_adc: Lines = 8
    sample_rate: SampleRate = 1.28e9
    model: Literal["isaac", "survey", "median", "zigzag", "table"] = "isaac"
    """energy and area: ISAAC scaled in bits, the better ADCs of the survey, its median, ZigZag-IMC, or the cost table's
    own; see `bitline.cost.adc.MEANINGS`"""

    @property
    def codes(self) -> int:
        """How many codes there are."""
        return self.levels or 2**self.bits

    @property
    def keeps_ranges(self) -> bool:
        """Whether ranges are chosen beforehand and kept with the network."""
        return self.policy in ("calibrated", "trained")

    @model_validator(mode="after")
    def _codes_have_the_bits(self) -> Self:
        if self.codes > 2**self.bits:
            raise ValueError(f"levels = {self.levels} exceeds 2**bits = {2**self.bits}")
        return self

    @model_validator(mode="after")
    def _a_fixed_range_is_given(self) -> Self:
        if (self.policy == "fixed") != (self.range is not None):
            raise ValueError(
                f'policy = "{self.policy}" with range {"absent" if self.range is None else "given"}: '
                'a range [A] belongs to policy = "fixed" and to no other'
            )
        return self
