"""What all figures share: panels of marks, placed in the units of their axes; `svg.py` draws them.

Colours are names such as ``--accent`` that the page's style sheet resolves, for light and for dark.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

PARTS = 14
"""colours for parts in the style sheet"""


@dataclass(frozen=True)
class Axis:
    """One axis, from its left or lower end to the other.

    Args:
        title: with the unit.
        low: value at the left or lower end.
        high: value at the other end; below `low` where the axis runs backwards.
        names: of whole numbers from 0 on, instead of ticks; a line break begins a second, lighter line.
        log: logarithmic.
        hidden: has neither ticks nor title.
        grid: lines at its ticks.
    """

    title: str = ""
    low: float = 0.0
    high: float = 1.0
    names: Sequence[str] = ()
    log: bool = False
    hidden: bool = False
    grid: bool = True


def scale(title: str, values: Iterable[float | None], *, zero: bool = False, log: bool = False) -> Axis:
    """Return an axis that spans these values with some room; from zero where asked."""
    known = [value for value in values if value is not None and (value > 0 or not log)] or [1.0]
    low, high = min(known), max(known)
    if log:
        room = 0.06 * (math.log10(high / low)) + 0.05
        return Axis(title, low / 10**room, high * 10**room, log=True)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    room = 0.06 * (high - low) or abs(0.1 * high) or 1.0
    return Axis(title, low - room if low or not zero else 0.0, high + room if high or not zero else 0.0)


def categories(names: Sequence[str], title: str = "", *, downwards: bool = False) -> Axis:
    """Return an axis of names; downwards, the first one stands at the top."""
    ends = (-0.5, len(names) - 0.5)
    low, high = ends[::-1] if downwards else ends
    return Axis(title, low, high, names, grid=False)


@dataclass(frozen=True)
class Bar:
    """A rectangle.

    Args:
        x0: left.
        x1: right.
        y0: lower end.
        y1: upper end.
        color: of it.
        title: shown where a pointer rests.
        text: in it, where there is room.
        at: where in it the text stands; ``"base"`` is at `y0`.
        hatched: with stripes.
        faint: see-through.
    """

    x0: float
    x1: float
    y0: float
    y1: float
    color: str
    title: str = ""
    text: str = ""
    at: Literal["middle", "base"] = "middle"
    hatched: bool = False
    faint: bool = False


@dataclass(frozen=True)
class Line:
    """Straight lines from point to point."""

    points: Sequence[tuple[float, float]]
    color: str
    width: float = 1.4
    dash: str = ""
    """lengths of strokes and gaps, px"""


@dataclass(frozen=True)
class Dot:
    """A point; its label stands where it hides nothing."""

    x: float
    y: float
    color: str
    title: str = ""
    label: str = ""
    shape: Literal["circle", "diamond"] = "circle"
    size: float = 4.5
    """px from its centre"""


@dataclass(frozen=True)
class Whisker:
    """A spread around a point, along x or y."""

    x0: float
    y0: float
    x1: float
    y1: float
    color: str = "--ink"


Mark = Bar | Line | Dot | Whisker


@dataclass(frozen=True)
class Panel:
    """Marks between two axes; height in px, without ticks and titles."""

    x: Axis
    y: Axis
    marks: Sequence[Mark]
    height: int
    title: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of the legend."""

    name: str
    color: str
    kind: Literal["bar", "line", "dot"] = "bar"
    dash: str = ""


@dataclass(frozen=True)
class Figure:
    """Panels with what their caption and their reader without eyes need.

    Args:
        key: names it on the page.
        caption: below it.
        panels: to draw.
        legend: above them.
        columns: panels side by side, where the page is wide enough.
    """

    key: str
    caption: str
    panels: Sequence[Panel]
    legend: Sequence[Key] = ()
    columns: int = 1


def stacked(panels: Sequence[Panel]) -> list[Panel]:
    """Leave names below the last of panels that share them."""
    return [replace(panel, x=replace(panel.x, hidden=True)) for panel in panels[:-1]] + list(panels[-1:])


def step(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Go from point to point sideways first."""
    corners = [(right, y) for (_, y), (right, _) in pairwise(points)]
    return [each for pair in zip(points, [*corners, points[-1]], strict=True) for each in pair][:-1] if points else []
