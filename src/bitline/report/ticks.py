"""Round numbers along an axis."""

import math

from bitline.report.plot import Axis
from bitline.report.text import number

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def ticks(axis: Axis, length: float, apart: float) -> list[tuple[float, str]]:
    """Return the values that an axis names, with their names.

    Args:
        axis: to name.
        length: of it, px.
        apart: distance of two names at least, px.
    """
    if axis.names:
        return [(float(place), name) for place, name in enumerate(axis.names)]
    low, high = sorted((axis.low, axis.high))
    most = max(2, int(length // apart))
    values = _decades(low, high, most) if axis.log else round_numbers(low, high, most)
    return [(value, power_of_ten(value) if axis.log else number(value, 6)) for value in values]


def round_numbers(low: float, high: float, most: int) -> list[float]:
    """Return round numbers from `low` to `high`, `most` of them or fewer by one or two."""
    span = (high - low) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if span / (magnitude * factor) <= most)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def _decades(low: float, high: float, most: int) -> list[float]:
    """Powers of ten; where there are fewer than two of them, also twice and five times these."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        found = [float(f"{f}e{power}") for power in powers for f in factors if low <= float(f"{f}e{power}") <= high]
        if len(found) >= min(3, most):
            break
    return found[:: max(1, -(-len(found) // (most + 1)))]


def power_of_ten(value: float) -> str:
    """Write a number of a logarithmic axis: plainly where it is short, else as 10⁻⁵ or 2·10⁻⁵."""
    if 1e-3 <= value < 1e5:
        return number(value, 3)
    power = math.floor(math.log10(value) + 1e-9)
    factor = float(f"{value / 10.0**power:.3g}")
    ten = "10" + str(power).translate(_SUPERSCRIPTS)
    return ten if factor == 1 else f"{factor:g}·{ten}"
