"""The median published ADC: least absolute deviations through B. Murmann's survey, by ``experiments/adc_survey.py``.

Half of the survey's Nyquist ADCs in CMOS take more than this at the same effective bits, node and rate, half less; a
quarter take more than three times as much. They stand alone: an ADC at the foot of a bitline may do without an input
driver, references and calibration of its own.
"""

import math
from functools import lru_cache

from pydantic import Field

from bitline.chip.records import Count, Record
from bitline.cost.table import read
from bitline.units import nm, pJ, um2


class Law(Record):
    """ln value = constant + per_bit bits + per_node ln(node / 32 nm) + per_rate max(0, ln(rate / corner))."""

    designs: Count
    """that it was fitted to"""
    corner: float = Field(gt=0)
    """Hz"""
    constant: float
    per_bit: float = Field(gt=0)
    per_node: float = Field(gt=0)
    per_rate: float = Field(ge=0)
    lower_quartile: float = Field(gt=0, lt=1)
    """a quarter of the designs have less than this times the law"""
    upper_quartile: float = Field(gt=1)
    """a quarter have more"""

    def at(self, bits: int, node: float, rate: float) -> float:
        """Value for an ADC of these effective bits, node [m] and rate [Hz]."""
        logarithm = self.constant + self.per_bit * bits + self.per_node * math.log(node / (32 * nm))
        return math.exp(logarithm + self.per_rate * max(0.0, math.log(rate / self.corner)))


class Median(Record):
    """Energy of a conversion, pJ, and area of an ADC, um2."""

    energy: Law
    area: Law


@lru_cache(maxsize=1)
def median() -> Median:
    """Read the fitted laws."""
    return read("_adc-median", Median)


def median_energy(bits: int, node: float, rate: float) -> float:
    """Energy of one conversion, J; node in m, rate in Hz."""
    return median().energy.at(bits, node, rate) * pJ


def median_area(bits: int, node: float, rate: float) -> float:
    """Area of one ADC, m2; node in m, rate in Hz."""
    return median().area.at(bits, node, rate) * um2
