"""SRAM buffers: energy, area and leakage from a grid of CACTI 7 runs, interpolated in size."""

import math
from dataclasses import dataclass
from functools import lru_cache

from pydantic import Field

from bitline.chip.records import Record
from bitline.cost.table import NODE_EXPONENT, Status, read
from bitline.errors import ChipError
from bitline.units import mm2, nm, pJ, uW


class SramGrid(Record):
    """Buffers that CACTI was run for, one a row."""

    source: str
    status: Status
    columns: tuple[str, ...]
    points: tuple[tuple[float, float, float, float, float, float, float, float], ...] = Field(min_length=2)


@dataclass(frozen=True)
class Sram:
    """One buffer.

    Args:
        read: energy of one bit, J.
        write: energy of one bit, J.
        leakage: W.
        area: m2.
        scaled: moved from the nearest node of the grid.
    """

    read: float
    write: float
    leakage: float
    area: float
    scaled: bool


@lru_cache(maxsize=1)
def _grid() -> SramGrid:
    return read("_cacti-sram", SramGrid)


@lru_cache(maxsize=256)
def sram(node: float, kib: int, width: int) -> Sram:
    """Price a buffer of one bank and one port.

    Straight lines between the grid's sizes, both axes logarithmic; ports of 64 bits below 256 wires, of 256 from there.

    Args:
        node: m.
        kib: size, KiB.
        width: wires of its bus, bits.

    Raises:
        ChipError: a size outside the grid.
    """
    grid = _grid()
    near = min({point[0] for point in grid.points}, key=lambda known: abs(math.log(known * nm / node)))
    port = max((w for w in {point[2] for point in grid.points} if w <= width), default=64.0)
    points = sorted(point for point in grid.points if point[0] == near and point[2] == port)
    sizes = [point[1] for point in points]
    if not sizes[0] <= kib <= sizes[-1]:
        raise ChipError(f"system.buffer_kib = {kib}: the SRAM grid covers {sizes[0]:g} to {sizes[-1]:g} KiB")
    above = next(i for i, size in enumerate(sizes) if size >= kib)
    below = max(above - 1, 0)
    part = math.log(kib / sizes[below]) / math.log(sizes[above] / sizes[below]) if above != below else 0.0

    def between(column: int) -> float:
        a, b = points[below][column], points[above][column]
        return math.exp(math.log(a) + part * math.log(b / a))

    ratio = node / (near * nm)
    energy = ratio**NODE_EXPONENT * pJ / port
    area = between(7) * ratio**2 * mm2
    return Sram(between(3) * energy, between(4) * energy, between(6) * uW, area, abs(ratio - 1) > 1e-6)
