"""Bars side by side: accuracies from the float network to the programmed chips, and others like them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bitline.report import plot, text
from bitline.report.measure import ACCURACY, Measure
from bitline.report.plot import Axis, Bar, Figure, Key, Mark, Panel, Whisker

_STOPS = (
    ("float", "float", "--other"),
    ("ideal_integer", "exact integers", "--quantization"),
    ("adc", "chip of ideal cells", "--adc"),
    ("mean", "programmed chips", "--programming"),
)


@dataclass(frozen=True)
class Series:
    """Values under one colour, one a category; None has no bar.

    Args:
        name: in the legend.
        color: of the bars.
        values: of the axis.
        words: shown where a pointer rests; one a value.
        texts: in the bars; none where empty.
        spread: whiskers; none where empty.
    """

    name: str
    color: str
    values: Sequence[float | None]
    words: Sequence[str]
    texts: Sequence[str] = ()
    spread: Sequence[float] = ()


def grouped(names: Sequence[str], series: Sequence[Series], y: Axis, height: int) -> Panel:
    """Return a panel with a group of bars for each name."""
    wide = 0.78 / max(1, len(series))
    marks: list[Mark] = []
    for j, one in enumerate(series):
        for i, value in enumerate(one.values):
            if value is None:
                continue
            left = i - 0.39 + j * wide
            title = f"{names[i]}, {one.name}: {one.words[i]}"
            words = one.texts[i] if one.texts else ""
            marks.append(Bar(left, left + 0.92 * wide, 0.0, value, one.color, title, words, "base"))
            if one.spread and one.spread[i]:
                middle = left + 0.46 * wide
                marks.append(Whisker(middle, value - one.spread[i], middle, value + one.spread[i]))
    return Panel(plot.categories(names), y, marks, height)


def legend(series: Sequence[Series]) -> list[Key]:
    """Return the entries of the legend."""
    return [Key(one.name, one.color) for one in series]


def accuracies(
    key: str, names: Sequence[str], records: Sequence[Mapping[str, Any]], caption: str, measure: Measure = ACCURACY
) -> Figure | None:
    """Draw the accuracies of each record, or what else was measured, as bars, with the spread of the chips.

    Args:
        key: of the figure.
        names: one a record.
        records: with ``float``, ``ideal_integer``, ``adc``, ``mean`` and ``std``, as far as they are known.
        caption: of the figure.
        measure: what the figures are.
    """
    series: list[Series] = []
    reach: list[float] = []
    for stop, name, color in _STOPS:
        values = [text.finite(record.get(stop)) for record in records]
        if any(value is not None for value in values):
            spread = [text.finite(record.get("std")) or 0.0 for record in records] if stop == "mean" else ()
            words = [measure.figure(value) for value in values]
            texts = [
                text.decimal(value, 1) if measure.metric.unit == "%" else text.number(value, 3) for value in values
            ]
            series.append(Series(name, color, values, words, texts, spread))
            known = [(value, spread[i] if spread else 0.0) for i, value in enumerate(values) if value is not None]
            reach += [end for value, std in known for end in (value - std, value + std)]
    if not series:
        return None
    percent = measure.metric.unit == "%" and measure.metric.better == "higher"
    y = Axis(measure.metric.label, 0.0, 104.0) if percent else plot.scale(measure.metric.label, reach, zero=True)
    panel = grouped(names, series, y, 280)
    return Figure(key, caption, [panel], legend(series))
