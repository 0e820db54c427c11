"""A layer's partial sums against its ADC range, as small SVG pictures that need no script."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bitline.evaluation.record import Evaluation, Layer, PartialSums
from bitline.report import tables, text
from bitline.report.ticks import power_of_ten, round_numbers

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
    return [picture(layer, layer.sums) for layer in evaluation.layers if layer.sums is not None and layer.sums.counts]


def picture(layer: Layer, sums: PartialSums) -> Picture:
    """Draw one layer: counts on a log axis, the ADC range as a band, its codes as a comb where they show."""
    edges, counts = _merged(sums.bin_low, sums.bin_width, sums.counts)
    low, high = sums.range_low, sums.range_high
    first, last = min(edges[0], low), max(edges[-1], high)
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
            bars[low <= middle <= high].append(
                f"M{x(left)} {HEIGHT - _BOTTOM}V{y(count)}H{max(x(right), x(left) + 0.6):.1f}V{HEIGHT - _BOTTOM}z"
            )
    step = -(-decades // 4)
    return Picture(
        name=layer.name,
        notes=_notes(layer, sums),
        inside="".join(bars[True]),
        outside="".join(bars[False]),
        codes=_codes(sums, scale, x),
        range_left=x(low),
        range_right=x(high),
        x_ticks=[(x(value), text.number(value)) for value in round_numbers(first, last, 5)],
        y_ticks=[(y(10**power), power_of_ten(10**power)) for power in range(0, decades + 1, step)],
        description=f"Histogram of partial sums from {text.number(edges[0])} to {text.number(edges[-1])} levels. "
        + "; ".join(_notes(layer, sums)),
    )


def _merged(low: float, width: float, counts: Sequence[int]) -> tuple[list[float], list[int]]:
    """Cut empty ends and add neighbouring bins, so that a picture stays small whatever the histogram."""
    filled = [i for i, count in enumerate(counts) if count] or [0]
    first, last = filled[0], filled[-1] + 1
    group = -(-(last - first) // _MOST_BARS)
    starts = list(range(first, last, group))
    edges = [low + width * min(start, last) for start in (*starts, starts[-1] + group)]
    return edges, [max(sum(counts[start : start + group]), 0) for start in starts]


def _notes(layer: Layer, sums: PartialSums) -> tuple[str, ...]:
    many = sums.ranges > 1
    exact = layer.partial_sum_sqnr_dB is None
    return (
        f"range {text.number(sums.range_low)} to {text.number(sums.range_high)}"
        + (f", envelope of {sums.ranges}" if many else ""),
        f"LSB {text.number(sums.lsb)}" + (" (median)" if many else ""),
        f"clipped {text.number(100 * layer.adc_clip_fraction, 2)} %",
        "every conversion exact" if exact else f"SQNR {tables.sqnr(layer)} dB",
    )


def _codes(sums: PartialSums, scale: float, x: Callable[[float], float]) -> str:
    if sums.lsb * scale < 2.5:
        return ""
    codes = round((sums.range_high - sums.range_low) / sums.lsb) + 1
    return "".join(f"M{x(sums.range_low + i * sums.lsb)} {_TOP}v4" for i in range(codes))
