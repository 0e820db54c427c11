# ruff: noqa: N816 - units are written as in physics
"""SI multipliers, and quantities written with a unit such as ``"10 uS"``.

Inside bitline every number is plain SI. Prefixes live in chip files and report headers only.
"""

import math
import re
from decimal import Decimal, DecimalException

from bitline.errors import shown

_EXPONENTS = {"": 0, "f": -15, "p": -12, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12}
PREFIXES = {prefix: float(f"1e{exponent}") for prefix, exponent in _EXPONENTS.items()}

fJ, pJ, nJ, uJ, mJ = 1e-15, 1e-12, 1e-9, 1e-6, 1e-3
ps, ns, us, ms = 1e-12, 1e-9, 1e-6, 1e-3
nS, uS, mS = 1e-9, 1e-6, 1e-3
kohm, Mohm = 1e3, 1e6
um2, mm2 = 1e-12, 1e-6
nW, uW, mW = 1e-9, 1e-6, 1e-3
nm, um, mm = 1e-9, 1e-6, 1e-3
MHz, GHz = 1e6, 1e9
mV = 1e-3
fF = 1e-15

_QUANTITY = re.compile(r" *([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?) *([A-Za-z0-9/]*) *")


def parse(text: str, unit: str) -> float:
    """Read a quantity with its unit and return it in SI.

    Args:
        text: for example ``"10 uS"``, ``"0.5 V"``, ``"100 ns"``, ``"1200 um2"``.
        unit: the unit expected, without prefix: ``"S"``, ``"V"``, ``"s"``, ``"m2"``.

    Returns:
        The value in `unit`.

    Raises:
        ValueError: no number, one beyond what a float holds, another unit, or an unknown prefix.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{shown(text)} is not a number with a unit; expected for example '10 {unit}'")
    number, written = match.groups()
    prefix = written.removesuffix(unit)
    if prefix == written or prefix not in PREFIXES:
        allowed = ", ".join(p + unit for p in PREFIXES)
        raise ValueError(f"{shown(text)} is not in {unit}; allowed units: {allowed}")
    # Decimal digits are scaled before they become binary, so that "10 uS" is 1e-5 to the last bit.
    try:
        exact = Decimal(number)
        value = float(exact.scaleb(_EXPONENTS[prefix] * _power(unit)))
    except DecimalException:
        raise ValueError(f"{shown(text)} is beyond what a number can be") from None
    if not math.isfinite(value) or (value == 0) != exact.is_zero():
        raise ValueError(f"{shown(text)} is beyond what a number can be")
    return value


def pretty(value: float, unit: str) -> str:
    """Write an SI value to four digits, with a prefix that keeps it above 1, or an area above 0.01."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit}"
    rounded = Decimal(f"{value:.4g}")
    for prefix, exponent in sorted(_EXPONENTS.items(), key=lambda item: -item[1]):
        scaled = rounded.scaleb(-exponent * _power(unit))
        if abs(scaled) >= (1 if _power(unit) == 1 else Decimal("0.01")):
            return f"{float(scaled):.4g} {prefix}{unit}"
    return f"{value:.4g} {unit}"


def _power(unit: str) -> int:
    """Power that a prefix of the unit is raised to: 2 for m2."""
    return int(unit[-1]) if unit[-1].isdigit() else 1
