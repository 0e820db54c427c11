"""Numbers and names as a reader wants them; a dash stands for what was not measured."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bitline import units

ABSENT = "–"

_CAUSES = {
    "quantization": ("quantization", "weights and inputs are rounded to integers"),
    "adc": ("ADC", "partial sums are rounded and clipped"),
    "programming": ("programming error", "cells miss their target, once per write"),
    "faults": ("stuck-at faults", "cells stay off or on for life"),
    "read_noise": ("read noise", "conductances move at every read"),
    "drift": ("drift", "conductances decay with time"),
    "wires": ("IR drop", "voltage is lost along the wires"),
    "other_chips": ("other chips", "the loss was split on some of the chips, the mean is over all"),
    "not_attributed": ("not attributed", "what the causes above do not explain"),
}
_CAPITALS = {"adc": "ADC", "adcs": "ADCs", "dac": "DAC", "dacs": "DACs", "noc": "NoC", "sqnr": "SQNR", "tops": "TOPS"}


def label(key: str) -> str:
    """Write a key as words: ``shift_add`` is "shift add", ``adc`` is "ADC"."""
    return " ".join(_CAPITALS.get(word, word) for word in key.split("_"))


def cause(key: str) -> str:
    """Name a cause of loss."""
    return _CAUSES[key][0] if key in _CAUSES else label(key)


def cause_meaning(key: str) -> str:
    """Say what a cause does, or nothing for a cause unknown here."""
    return _CAUSES[key][1] if key in _CAUSES else ""


def finite(value: object) -> float | None:
    """Return a number that can be drawn, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def number(value: object, digits: int = 4) -> str:
    """Write a number with so many significant digits."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        return ABSENT
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{value:,.0f}".replace("-", "−")
    return f"{value:.{digits}g}".replace("-", "−", 1) if value < 0 else f"{value:.{digits}g}"


def decimal(value: object, places: int = 2, *, sign: bool = False) -> str:
    """Write a number with so many places after the point, and its sign where asked."""
    figure = finite(value)
    if figure is None:
        return number(value)
    rounded = round(figure, places) + 0.0  # no minus before a zero
    return f"{rounded:{'+' if sign and rounded else ''}.{places}f}".replace("-", "−")


def spread(mean: object, std: object, places: int = 2) -> str:
    """Write ``mean ± std``, or the mean alone where nothing varies."""
    return decimal(mean, places) + (f" ± {decimal(std, places)}" if finite(std) else "")


def quantity(value: object, unit: str) -> str:
    """Write an SI value with a prefix: ``38.94 µJ``."""
    figure = finite(value)
    if figure is None:
        return number(value)
    prefixed, factor = _prefixed(figure, unit)
    return f"{number(figure / factor)} {typeset(prefixed)}"


def _prefixed(value: float, unit: str) -> tuple[str, float]:
    """Return the unit with the prefix that suits a value, and its factor.

    Squared prefixes are a million apart: from 10000 on the next one up reads better (0.22 mm², not 220000 µm²).
    """
    prefixed = units.pretty(value, unit).rpartition(" ")[2]
    power = int(unit[-1]) if unit[-1].isdigit() else 1
    factor = units.PREFIXES[prefixed.removesuffix(unit)] ** power
    if abs(value) >= 1e4 * factor:
        larger = sorted((size**power, prefix) for prefix, size in units.PREFIXES.items() if size**power > factor)
        if larger:
            return larger[0][1] + unit, larger[0][0]
    return prefixed, factor


def typeset(unit: str) -> str:
    """Write a unit with its proper signs: ``um2`` is µm²."""
    micro = unit.startswith("u") and len(unit) > 1
    return ("µ" + unit[1:] if micro else unit).replace("m2", "m²").replace("ohm", "Ω")


def by_suffix(key: str, value: object) -> str:
    """Write a value in the unit its key ends with, as in ``energy_J``."""
    stem, _, unit = key.rpartition("_")
    if stem and unit in {"J", "s", "m2", "W", "V", "S", "Hz"}:
        return quantity(value, unit)
    return plain(value)


def stem(key: str) -> str:
    """Name a key without the unit it ends with: ``evaluation_s`` is "evaluation"."""
    head, _, unit = key.rpartition("_")
    return label(head if head and unit in {"J", "s", "m2", "W", "V", "S", "Hz"} else key)


def plain(value: object) -> str:
    """Write any value of a JSON document on one line."""
    if value is None:
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return number(value, 6)
    if isinstance(value, dict):
        return ", ".join(f"{key} = {plain(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(item) for item in value) or ABSENT
    return str(value)


def aligned(values: Sequence[object], digits: int = 4) -> tuple[str, ...]:
    """Write figures with the places that give the largest so many digits; two digits where those would lose one."""
    numbers = [abs(value) for value in map(finite, values) if value]
    places = max(0, digits - 1 - math.floor(math.log10(max(numbers) * (1 + 1e-9)))) if numbers else 0
    return tuple(
        number(value, 2) if 0 < abs(finite(value) or 0.0) < 9.5 * 10**-places else decimal(value, places)
        for value in values
    )


@dataclass(frozen=True)
class Column:
    """Values of one column under one unit."""

    unit: str
    factor: float
    """a value divided by it is in that unit"""
    texts: tuple[str, ...]


def column(values: Sequence[object], unit: str) -> Column:
    """Write a column with the prefix of its largest value in the header, so that its figures compare."""
    numbers = [finite(value) for value in values]
    largest = max((abs(value) for value in numbers if value is not None), default=0.0)
    prefixed, factor = _prefixed(largest, unit)
    scaled = [value if one is None else one / factor for value, one in zip(values, numbers, strict=True)]
    return Column(typeset(prefixed), factor, aligned(scaled))
