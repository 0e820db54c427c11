"""SI multipliers, and quantities written with a unit such as ``"10 uS"``.

Inside bitline every number is plain SI. Prefixes live in chip files and report headers only.
"""

import re

PREFIXES = {
    "": 1.0, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12,
}  # fmt: skip

fJ, pJ, nJ, uJ, mJ = 1e-15, 1e-12, 1e-9, 1e-6, 1e-3
ps, ns, us, ms = 1e-12, 1e-9, 1e-6, 1e-3
nS, uS, mS = 1e-9, 1e-6, 1e-3
kohm, Mohm = 1e3, 1e6
um2, mm2 = 1e-12, 1e-6
nW, uW, mW = 1e-9, 1e-6, 1e-3
nm, um, mm = 1e-9, 1e-6, 1e-3
MHz, GHz = 1e6, 1e9
fF = 1e-15

_QUANTITY = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)\s*([A-Za-z0-9/]*)\s*")


def parse(text: str, unit: str) -> float:
    """Read a quantity with its unit and return it in SI.

    Args:
        text: for example ``"10 uS"``, ``"0.5 V"``, ``"100 ns"``, ``"1200 um2"``.
        unit: the unit expected, without prefix: ``"S"``, ``"V"``, ``"s"``, ``"m2"``.

    Returns:
        The value in `unit`.

    Raises:
        ValueError: no number, another unit, or an unknown prefix.
    """
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a number with a unit; expected for example '10 {unit}'")
    number, written = match.groups()
    prefix = written.removesuffix(unit)
    if prefix == written or prefix not in PREFIXES:
        allowed = ", ".join(p + unit for p in PREFIXES)
        raise ValueError(f"{text!r} is not in {unit}; allowed units: {allowed}")
    power = int(unit[-1]) if unit[-1].isdigit() else 1
    return float(number) * PREFIXES[prefix] ** power


def pretty(value: float, unit: str) -> str:
    """Write an SI value with the prefix that keeps one to three digits before the point."""
    power = int(unit[-1]) if unit[-1].isdigit() else 1
    if value == 0 or value != value or abs(value) == float("inf"):
        return f"{value:g} {unit}"
    for prefix, factor in sorted(PREFIXES.items(), key=lambda item: -item[1]):
        if abs(value) >= factor**power * (1 - 1e-9):
            return f"{value / factor**power:.4g} {prefix}{unit}"
    return f"{value:.3g} {unit}"
