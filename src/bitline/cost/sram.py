"""SRAM buffers: energy, area and leakage from a grid of CACTI 7 runs, interpolated in size."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from pydantic import Field

from bitline.chip.records import Record
from bitline.cost.table import NODE_EXPONENT, Status, read
from bitline.errors import ChipError
from bitline.units import mm2, nm, pJ, uW

WIDEST = 256
"""port of a buffer in the grid, bits"""


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
    """Price a buffer.

    Straight lines between the grid's sizes and between its ports of 64 and 256 bits, axes logarithmic. Narrower buses
    have a port of 64 bits, wider ones several of 256: each with the area and the leakage of a whole buffer (assumed).

    Args:
        node: m.
        kib: size, KiB.
        width: wires of its bus, bits.

    Raises:
        ChipError: a size outside the grid.
    """
    grid = _grid()
    near = min({point[0] for point in grid.points}, key=lambda known: abs(math.log(known * nm / node)))
    low, high = (_at_port([p for p in grid.points if p[0] == near and p[2] == port], kib) for port in (64, 256))
    if low is None or (width > 64 and high is None):
        sizes = [p[1] for p in grid.points if p[0] == near and p[2] == (256 if width > 64 else 64)]
        raise ChipError(f"system.buffer_kib = {kib}: the SRAM grid covers {min(sizes):g} to {max(sizes):g} KiB")
    if width <= 64 or high is None:
        read, write, leakage, area = low
    elif width >= 256:
        read, write, leakage, area = high
    else:
        part = math.log(width / 64) / math.log(256 / 64)
        read, write, leakage, area = (_between(a, b, part) for a, b in zip(low, high, strict=True))
    ratio = node / (near * nm)
    energy, each = ratio**NODE_EXPONENT * pJ, ports(width)
    return Sram(read * energy, write * energy, each * leakage * uW, each * area * ratio**2 * mm2, abs(ratio - 1) > 1e-6)


def ports(width: int, widest: int = WIDEST) -> int:
    """Count the ports that feed a bus.

    Args:
        width: wires of the bus.
        widest: bits of a port.
    """
    return math.ceil(width / widest)


def _between(a: float, b: float, part: float) -> float:
    return math.exp(math.log(a) + part * math.log(b / a))


def _at_port(points: Sequence[tuple[float, ...]], kib: int) -> list[float] | None:
    """Read and write energy of a bit [pJ], leakage [uW] and area [mm2] of a buffer; None where it is off the grid."""
    points = sorted(points)
    sizes = [point[1] for point in points]
    if not sizes[0] <= kib <= sizes[-1]:
        return None
    above = next(i for i, size in enumerate(sizes) if size >= kib)
    below = max(above - 1, 0)
    part = math.log(kib / sizes[below]) / math.log(sizes[above] / sizes[below]) if above != below else 0.0
    read, write, leakage, area = (_between(points[below][i], points[above][i], part) for i in (3, 4, 6, 7))
    return [read / points[0][2], write / points[0][2], leakage, area]
