"""How wide words are, and where the label of a point hides nothing."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_THIN, _THICK = set("iljtfrI.,:;'|!()[] "), set("mwMW%@→")
_TALL = 15.0  # px of a label


def wide(words: str, size: float) -> float:
    """Width of words, px, rather too much than too little: the reader's font is not known."""
    shares = (0.38 if c in _THIN else 0.95 if c in _THICK else 0.7 if c.isupper() else 0.62 for c in words)
    return size * sum(shares)


def cut(words: str, room: float, size: float) -> str:
    """Cut words to a width, px, with dots where something is missing."""
    if wide(words, size) <= room:
        return words
    kept = words
    while kept and wide(f"{kept}…", size) > room:
        kept = kept[:-1]
    return f"{kept}…"


@dataclass(frozen=True)
class Box:
    """A rectangle on the page, px; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: "Box") -> bool:
        """Whether two rectangles share more than an edge."""
        return (
            self.left < other.right and other.left < self.right and self.top < other.bottom and other.top < self.bottom
        )

    def holds(self, other: "Box") -> bool:
        """Whether another one lies within."""
        inside = self.left <= other.left and other.right <= self.right
        return inside and self.top <= other.top and other.bottom <= self.bottom

    def away(self, x: float, y: float) -> float:
        """Distance of a point, px, 0 within."""
        return max(self.left - x, x - self.right, 0.0) + max(self.top - y, y - self.bottom, 0.0)

    def nearest(self, x: float, y: float) -> str:
        """The place within that is nearest to a point, as a path writes it."""
        return f"{min(max(x, self.left), self.right):.1f} {min(max(y, self.top), self.bottom):.1f}"


def place(x: float, y: float, width: float, room: Box, taken: Sequence[Box]) -> Box | None:
    """Find the nearest place for a label of a point where it meets nothing; None where there is none.

    Args:
        x: of the point, px.
        y: of the point, px.
        width: of the label, px.
        room: that it stays in.
        taken: that it must not meet.
    """
    for box in _around(x, y, width + 4):
        if room.holds(box) and not any(box.meets(other) for other in taken):
            return box
    return None


def _around(x: float, y: float, width: float) -> Iterator[Box]:
    for ring in range(9):
        off = 7 + 12 * ring
        for left, top in (
            (x + off, y - _TALL / 2),
            (x - off - width, y - _TALL / 2),
            (x + off / 2, y - off - _TALL),
            (x + off / 2, y + off),
            (x - off / 2 - width, y - off - _TALL),
            (x - off / 2 - width, y + off),
            (x - width / 2, y - off - _TALL),
            (x - width / 2, y + off),
        ):
            yield Box(left, top, left + width, top + _TALL)
