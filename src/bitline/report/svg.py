"""Figures as SVG: no script, colours of the style sheet, drawn once for each width of page."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from bitline.report import labels
from bitline.report.plot import Axis, Bar, Dot, Figure, Key, Line, Panel, Whisker
from bitline.report.ticks import ticks

WIDTHS = {"narrow": 358, "medium": 600, "wide": 1000}
"""px that a figure is drawn for; the style sheet shows one of them"""
SIZE = 12.0
"""of letters, px"""
_LINE = 15  # px from one line of words to the next
_GAP = 28  # px between panels
_FEW = 300  # px that a panel needs
_BOLD = 1.15  # how much wider strong letters are
_TURN = math.radians(40)


def draw(figure: Figure, kind: str) -> str:
    """Draw a figure for one of `WIDTHS`; it says what it shows in its label."""
    return _Drawing(figure, WIDTHS[kind]).svg(kind)


@dataclass(frozen=True)
class _Frame:
    """Where a panel's marks lie, px."""

    left: float
    top: float
    width: float
    height: float
    x: Axis
    y: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + self.width * share(self.x, x), self.top + self.height * (1 - share(self.y, y))

    @property
    def box(self) -> labels.Box:
        return labels.Box(self.left, self.top, self.left + self.width, self.top + self.height)


def share(axis: Axis, value: float) -> float:
    """Where on an axis a value lies, 0 to 1."""
    if axis.log:
        low, high, value = math.log10(axis.low), math.log10(axis.high), math.log10(max(value, 1e-300))
    else:
        low, high = axis.low, axis.high
    return (value - low) / (high - low) if high != low else 0.5


class _Drawing:
    def __init__(self, figure: Figure, width: int) -> None:
        self.figure, self.width = figure, width
        self.out: list[str] = []
        self.hatched = f"hatch-{figure.key}-{width}"
        self.bottom = 4.0
        self._legend(figure.legend)
        columns = max(1, min(figure.columns, len(figure.panels), width // _FEW))
        cell = (width - _GAP * (columns - 1)) / columns
        for start in range(0, len(figure.panels), columns):
            row = figure.panels[start : start + columns]
            self.bottom = max(self._panel(panel, i * (cell + _GAP), cell) for i, panel in enumerate(row))

    def svg(self, kind: str) -> str:
        pattern = (
            f'<defs><pattern id="{self.hatched}" width="6" height="6" patternUnits="userSpaceOnUse" '
            'patternTransform="rotate(45)"><path d="M0 0V6" stroke="var(--paper)" stroke-width="4"/></pattern></defs>'
            if any(isinstance(mark, Bar) and mark.hatched for panel in self.figure.panels for mark in panel.marks)
            else ""
        )
        label = html.escape(self.figure.caption)
        return (
            f'<svg class="plot {kind}" viewBox="0 0 {self.width} {self.bottom:.0f}" role="img" aria-label="{label}">'
            f"{pattern}{''.join(self.out)}</svg>"
        )

    def _legend(self, keys: Sequence[Key]) -> None:
        x, y = 2.0, 14.0
        for key in keys:
            wide = 22 + labels.wide(key.name, SIZE)
            if x > 2 and x + wide > self.width:
                x, y = 2.0, y + 18
            if key.kind == "bar":
                self.out.append(f'<rect x="{x:.1f}" y="{y - 10:.1f}" width="11" height="11" {_fill(key.color)}/>')
            elif key.kind == "dot":
                self.out.append(f'<circle cx="{x + 6:.1f}" cy="{y - 4:.1f}" r="4.5" {_fill(key.color)}/>')
            else:
                self.out.append(f'<path d="M{x:.1f} {y - 4:.1f}h13" {_stroke(key.color, 2, key.dash)}/>')
            self._words(x + 17, y, labels.cut(key.name, self.width - 24, SIZE))
            x += wide + 14
        if keys:
            self.bottom = y + 10

    def _panel(self, panel: Panel, left: float, width: float) -> float:
        """Draw a panel into a part of the width; return its lower end."""
        top = self.bottom + 6
        for title, style in ((panel.title, "strong"), ("" if panel.y.hidden else panel.y.title, "muted")):
            if title:
                top += _LINE
                self._words(left + 2, top - 3, title, style)
        x, y = panel.x, panel.y
        rows = [] if y.hidden else ticks(y, panel.height, 34)
        widest = max((_BOLD * labels.wide(line, SIZE) for _, name in rows for line in name.split("\n")), default=0.0)
        inset = min(widest + 10, 0.42 * width) if rows else 4.0
        inner = width - inset - 12
        turned = self._turned(x, inner)
        if turned:
            first = share(x, 0) * inner
            inset = max(inset, min(labels.wide(x.names[0], SIZE) * math.cos(_TURN) - first, 0.25 * width))
            inner = width - inset - 12
        frame = _Frame(left + inset, top + 4, inner, panel.height, x, y)
        self._y_ticks(frame, rows, inset - 8)
        end = self._x_ticks(frame, turned=turned)
        self._marks(panel, frame)
        return end + 8

    def _turned(self, x: Axis, inner: float) -> bool:
        if x.hidden or not x.names:
            return False
        room = inner / len(x.names) - 6
        return any(labels.wide(line, SIZE) > room for name in x.names for line in name.split("\n"))

    def _y_ticks(self, frame: _Frame, rows: Sequence[tuple[float, str]], room: float) -> None:
        for value, name in rows:
            _, y = frame.at(frame.x.low, value)
            if frame.y.grid:
                self.out.append(f'<path class="grid" d="M{frame.left:.1f} {y:.1f}h{frame.width:.1f}"/>')
            lines = name.split("\n")
            for i, line in enumerate(lines):
                place = y + 4 + _LINE * (i - (len(lines) - 1) / 2)
                style = "muted" if len(lines) == 1 or i else "strong"
                short = labels.cut(line, room, SIZE * (_BOLD if style == "strong" else 1))
                self._words(frame.left - 6, place, short, style, "end", whole=line)

    def _x_ticks(self, frame: _Frame, *, turned: bool) -> float:
        bottom = frame.top + frame.height
        if frame.x.hidden:
            return bottom
        self.out.append(f'<path class="axis" d="M{frame.left:.1f} {bottom:.1f}h{frame.width:.1f}"/>')
        marks, end = ticks(frame.x, frame.width, 60), bottom
        skip = max(1, math.ceil(13 * len(marks) / frame.width)) if turned else 1
        for value, name in marks[::skip]:
            x, _ = frame.at(value, frame.y.low)
            if frame.x.grid:
                self.out.append(f'<path class="grid" d="M{x:.1f} {frame.top:.1f}v{frame.height:.1f}"/>')
            if turned:
                short = labels.cut(name.replace("\n", " "), 120, SIZE)
                self._words(x + 4, bottom + 13, short, "muted", "end", turn=-40, whole=name)
                end = max(end, bottom + 16 + labels.wide(short, SIZE) * math.sin(_TURN))
            else:
                for i, line in enumerate(name.split("\n")):
                    middle = max(x, labels.wide(line, SIZE) / 2)  # within the figure, where nothing is to the left
                    self._words(middle, bottom + 15 + _LINE * i, line, "muted", "middle")
                    end = max(end, bottom + 18 + _LINE * i)
        if frame.x.title:
            end += _LINE
            self._words(frame.left + frame.width / 2, end - 1, frame.x.title, "muted", "middle")
            end += 2
        return end

    def _marks(self, panel: Panel, frame: _Frame) -> None:
        for mark in panel.marks:
            match mark:
                case Bar():
                    self._bar(mark, frame)
                case Line():
                    path = "L".join("{:.1f} {:.1f}".format(*frame.at(x, y)) for x, y in mark.points)
                    self.out.append(f'<path d="M{path}" fill="none" {_stroke(mark.color, mark.width, mark.dash)}/>')
                case Whisker():
                    (x0, y0), (x1, y1) = frame.at(mark.x0, mark.y0), frame.at(mark.x1, mark.y1)
                    cap = "v8m0 -4" if abs(y1 - y0) < abs(x1 - x0) else "h8m-4 0"
                    back = "m0 -4" if cap[0] == "v" else "m-4 0"
                    path = f"M{x0:.1f} {y0:.1f}{back}{cap}L{x1:.1f} {y1:.1f}{back}{cap}"
                    self.out.append(f'<path d="{path}" fill="none" {_stroke(mark.color, 1.3)}/>')
                case Dot():
                    self._dot(mark, *frame.at(mark.x, mark.y))
        self._labels(panel, frame)

    def _bar(self, bar: Bar, frame: _Frame) -> None:
        (x0, y0), (x1, y1) = frame.at(bar.x0, bar.y0), frame.at(bar.x1, bar.y1)
        left, top, wide, tall = min(x0, x1), min(y0, y1), abs(x1 - x0), abs(y1 - y0)
        place = f'x="{left:.1f}" y="{top:.1f}" width="{wide:.1f}" height="{tall:.1f}"'
        title = f"<title>{html.escape(bar.title)}</title>" if bar.title else ""
        faint = ' opacity="0.14"' if bar.faint else ""
        self.out.append(f"<rect {place} {_fill(bar.color)}{faint}>{title}</rect>")
        if bar.hatched:
            self.out.append(f'<rect {place} fill="url(#{self.hatched})" opacity="0.55"/>')
        if bar.text and labels.wide(bar.text, SIZE - 1) + 2 <= wide and tall >= SIZE:
            y = top + tall / 2 + 4 if bar.at == "middle" else max(y0, y1) - 5
            self._words(left + wide / 2, y, bar.text, "inside", "middle")

    def _dot(self, dot: Dot, x: float, y: float) -> None:
        title = f"<title>{html.escape(dot.title)}</title>" if dot.title else ""
        size = dot.size
        if dot.shape == "circle":
            self.out.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size:g}" {_fill(dot.color)}>{title}</circle>')
        else:
            side = size + 2
            path = f"M{x:.1f} {y - side:.1f}l{side:g} {side:g}l{-side:g} {side:g}l{-side:g} {-side:g}z"
            self.out.append(f'<path d="{path}" {_fill(dot.color)}>{title}</path>')

    def _labels(self, panel: Panel, frame: _Frame) -> None:
        """Write the labels of points where they hide neither points nor whiskers nor each other."""
        taken: list[labels.Box] = []
        named: list[tuple[float, float, Dot]] = []
        for mark in panel.marks:
            if isinstance(mark, Dot):
                x, y = frame.at(mark.x, mark.y)
                taken.append(labels.Box(x - 6, y - 6, x + 6, y + 6))
                if mark.label:
                    named.append((x, y, mark))
            elif isinstance(mark, Whisker):
                (x0, y0), (x1, y1) = frame.at(mark.x0, mark.y0), frame.at(mark.x1, mark.y1)
                taken.append(labels.Box(min(x0, x1) - 4, min(y0, y1) - 1, max(x0, x1) + 4, max(y0, y1) + 1))
            elif isinstance(mark, Line):
                at = [frame.at(x, y) for x, y in mark.points]
                taken += [
                    labels.Box(min(a, c) - 1, min(b, d) - 1, max(a, c) + 1, max(b, d) + 1)
                    for (a, b), (c, d) in pairwise(at)
                    if a == c or b == d
                ]
        for x, y, dot in sorted(named, key=lambda each: each[1]):
            short = labels.cut(dot.label, 0.6 * frame.width, SIZE)
            place = labels.place(x, y, labels.wide(short, SIZE), frame.box, taken)
            if place is None:
                continue  # the pointer and the table name it
            taken.append(place)
            if place.away(x, y) > 14:
                self.out.append(f'<path d="M{x:.1f} {y:.1f}L{place.nearest(x, y)}" {_stroke("--muted", 0.7)}/>')
            self._words(place.left + 2, place.bottom - 4, short, "label")

    def _words(
        self, x: float, y: float, words: str, style: str = "", anchor: str = "", *, turn: int = 0, whole: str = ""
    ) -> None:
        kind = f' class="{style}"' if style else ""
        end = f' text-anchor="{anchor}"' if anchor else ""
        turned = f' transform="rotate({turn} {x:.1f} {y:.1f})"' if turn else ""
        title = f"<title>{html.escape(whole)}</title>" if whole and words != whole else ""
        self.out.append(
            f'<text x="{x:.1f}" y="{y:.1f}"{kind}{end}{turned}>{html.escape(words, quote=False)}{title}</text>'
        )


def _fill(color: str) -> str:
    return f'fill="var({color})"'


def _stroke(color: str, width: float, dash: str = "") -> str:
    return f'stroke="var({color})" stroke-width="{width:g}"' + (f' stroke-dasharray="{dash}"' if dash else "")
