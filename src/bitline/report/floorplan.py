"""The crossbars that each layer takes, and how full they are: one square a crossbar, as small SVG without script."""

from dataclasses import dataclass
from math import ceil

from bitline.evaluation.record import Evaluation
from bitline.report import text

WIDTHS = {"narrow": 340, "wide": 860}
"""px that a row of squares may take; the style sheet shows one of them"""
_SIZES = (15, 11, 8, 6)
"""of a square, px; the largest that keeps the plan below `_TALL`"""
_TALL = 700
_GROUPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
"""crossbars that one square may stand for"""


@dataclass(frozen=True)
class Row:
    """One layer's crossbars.

    Args:
        name: of the layer.
        words: how many crossbars, how full.
        drawings: for each of `WIDTHS`: its name, width and height, px, and the paths of frames, filling and gaps.
    """

    name: str
    words: str
    drawings: tuple[tuple[str, int, int, str, str, str], ...]


@dataclass(frozen=True)
class Plan:
    """All layers, in the order of the network."""

    rows: tuple[Row, ...]
    each: int
    """crossbars that a square stands for"""


def plan(evaluation: Evaluation) -> Plan | None:
    """Draw the crossbars of every layer; None where no layer takes any."""
    layers = [(layer.name, layer.crossbars, layer.crossbars_removed, layer.utilization) for layer in evaluation.layers]
    spare = evaluation.cost.crossbars_built - evaluation.cost.crossbars
    if spare > 0:
        layers.append(("built, without a layer", spare, 0, 0.0))
    taken = [(name, used, removed, full) for name, used, removed, full in layers if used + removed]
    if not taken:
        return None
    counts = [used + removed for _, used, removed, _ in taken]
    each, size = next(
        ((each, size) for each in _GROUPS for size in _SIZES if _height(counts, each, size) <= _TALL),
        (_GROUPS[-1], _SIZES[-1]),
    )
    return Plan(tuple(_row(*layer, each, size) for layer in taken), each)


def _height(counts: list[int], each: int, size: int) -> int:
    across = WIDTHS["wide"] // (size + 2)
    return sum(ceil(ceil(count / each) / across) * (size + 2) + 6 for count in counts)


def _row(name: str, used: int, removed: int, full: float, each: int, size: int) -> Row:
    words = f"{text.number(used)} crossbar{'s' if used != 1 else ''}"
    if full:
        words += f", {_share(full)} % of the cells used"
    if removed:
        words += f", {text.number(removed)} removed"
    drawings = tuple(
        (kind, *_squares(ceil(used / each), ceil(removed / each), full, size, width)) for kind, width in WIDTHS.items()
    )
    return Row(name, words, drawings)


def _share(full: float) -> str:
    return text.decimal(100 * full, 0 if full >= 0.1 else 1 if full >= 0.01 else 2)


def _squares(used: int, removed: int, full: float, size: int, width: int) -> tuple[int, int, str, str, str]:
    """Frames of crossbars, their filling from the bottom, and places of those that were removed."""
    across, step = width // (size + 2), size + 2
    frames, filling, gaps = list[str](), list[str](), list[str]()
    level = size * full
    for i in range(used + removed):
        x, y = i % across * step + 0.5, i // across * step + 0.5
        square = f"M{x} {y}h{size}v{size}h-{size}z"
        (frames if i < used else gaps).append(square)
        if i < used and full:
            filling.append(f"M{x} {y + size - level:.1f}h{size}v{level:.1f}h-{size}z")
    wide = min(used + removed, across) * step + 1
    return wide, ceil((used + removed) / across) * step + 1, "".join(frames), "".join(filling), "".join(gaps)
