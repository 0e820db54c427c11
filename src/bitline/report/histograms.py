"""A layer's partial sums against its ADC range, as small SVG pictures that need no script."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitline.report import facts, sheets, text
from bitline.report.facts import Evaluation

WIDTH, HEIGHT = 280, 150
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 22
_MOST_BARS = 128


@dataclass(frozen=True)
class Picture:
    """What the template draws: SVG paths in px, ticks, and the words beside them."""

    name: str
    notes: tuple[str, ...]
    inside: str
    outside: str
    codes: str
    range_left: float
    range_right: float
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    description: str


def pictures(evaluation: Evaluation) -> list[Picture]:
    """Draw every layer that has partial sums, in the order of the network."""
    return [
        picture(layer) for layer in facts.rows(evaluation, "layers") if facts.part(layer, "partial_sums").get("counts")
    ]


def picture(layer: Mapping[str, Any]) -> Picture:
    """Draw one layer: counts on a log axis, the ADC range as a band, its codes as a comb where they show."""
    sums = layer["partial_sums"]
    edges, counts = _merged(float(sums["bin_low"]), float(sums["bin_width"]), sums["counts"])
    low, high, lsb = (text.finite(sums.get(key)) for key in ("range_low", "range_high", "lsb"))
    first, last = min([edges[0], *_known(low)]), max([edges[-1], *_known(high)])
    wide, tall = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM
    scale = wide / ((last - first) or 1.0)
    decades = max(1, math.ceil(math.log10(max([1, *counts]) * 1.05)))

    def x(value: float) -> float:
        return round(_LEFT + (value - first) * scale, 1)

    def y(count: float) -> float:  # half a decade below one, so that a single count shows
        return round(_TOP + tall * (1 - (math.log10(count) + 0.3) / (decades + 0.3)), 1)

    bars: dict[bool, list[str]] = {True: [], False: []}
    for left, right, count in zip(edges, edges[1:], counts, strict=False):
        if count:
            middle = (left + right) / 2
            within = (low is None or middle >= low) and (high is None or middle <= high)
            bars[within].append(
                f"M{x(left)} {HEIGHT - _BOTTOM}V{y(count)}H{max(x(right), x(left) + 0.6):.1f}V{HEIGHT - _BOTTOM}z"
            )
    step = -(-decades // 4)
    return Picture(
        name=str(layer.get("name", "?")),
        notes=_notes(layer, low, high, lsb),
        inside="".join(bars[True]),
        outside="".join(bars[False]),
        codes=_codes(low, high, lsb, scale, x),
        range_left=x(first if low is None else low),
        range_right=x(last if high is None else high),
        x_ticks=[(x(value), text.number(value)) for value in _round_numbers(first, last)],
        y_ticks=[(y(10**power), f"10{_superscript(power)}" if power else "1") for power in range(0, decades + 1, step)],
        description=f"Histogram of partial sums from {text.number(edges[0])} to {text.number(edges[-1])} levels. "
        + "; ".join(_notes(layer, low, high, lsb)),
    )


def _merged(low: float, width: float, counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """Cut empty ends and add neighbouring bins, so that a picture stays small whatever the histogram."""
    filled = [i for i, count in enumerate(counts) if count] or [0]
    first, last = filled[0], filled[-1] + 1
    group = -(-(last - first) // _MOST_BARS)
    starts = list(range(first, last, group))
    edges = [low + width * min(start, last) for start in (*starts, starts[-1] + group)]
    return edges, [max(sum(counts[start : start + group]), 0) for start in starts]


def _known(*values: float | None) -> list[float]:
    return [value for value in values if value is not None]


def _notes(layer: Mapping[str, Any], low: float | None, high: float | None, lsb: float | None) -> tuple[str, ...]:
    many = int(layer["partial_sums"].get("ranges") or 1)
    notes: list[str] = []
    if low is not None and high is not None:
        notes.append(f"range {text.number(low)} to {text.number(high)}" + (f", envelope of {many}" if many > 1 else ""))
    if lsb is not None:
        notes.append(f"LSB {text.number(lsb)}" + (" (median)" if many > 1 else ""))
    clipped = text.finite(layer.get("adc_clip_fraction"))
    if clipped is not None:
        notes.append(f"clipped {text.number(100 * clipped, 2)} %")
    if "partial_sum_sqnr_dB" in layer:
        written = sheets.sqnr(layer)
        notes.append(f"SQNR {written} dB" if written != "exact" else "every conversion exact")
    return tuple(notes)


def _codes(low: float | None, high: float | None, lsb: float | None, scale: float, x: Any) -> str:
    if low is None or high is None or not lsb or lsb * scale < 2.5:
        return ""
    return "".join(f"M{x(low + i * lsb)} {_TOP}v4" for i in range(round((high - low) / lsb) + 1))


def _round_numbers(low: float, high: float, most: int = 5) -> list[float]:
    span = (high - low) or 1.0
    magnitude = 10 ** math.floor(math.log10(span / most))
    step = next(magnitude * factor for factor in (1, 2, 5, 10) if span / (magnitude * factor) <= most)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _superscript(power: int) -> str:
    return str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
