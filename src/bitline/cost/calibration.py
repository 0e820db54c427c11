"""Totals of ISAAC from its own table: a check of counting and units, not a validation.

The event energies of ``isaac-32nm`` come from the same table.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from bitline import units
from bitline.chip.description import Chip
from bitline.chip.records import Count, Record, Second
from bitline.cost.table import read


def _read(unit: str) -> BeforeValidator:
    return BeforeValidator(lambda text: units.parse(text, unit) if isinstance(text, str) else text)


class Part(Record):
    """One row of the published table, all units of it together."""

    level: Literal["macro", "tile", "chip"]
    name: str
    spec: str
    power: Annotated[float, _read("W"), Field(ge=0)]
    area: Annotated[float, _read("m2"), Field(ge=0)]
    status: Literal["read", "recalled"]
    confirmed_by: str


class IsaacTable(Record):
    """Shafiee et al., ISCA 2016, Table I."""

    macros_per_tile: Count
    tiles: Count
    cycle: Second
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Peak:
    """A level of the chip at full speed.

    Args:
        power: W.
        area: m2.
    """

    power: float
    area: float


@dataclass(frozen=True)
class IsaacTotals:
    """ISAAC from one macro (IMA) to the whole chip.

    Args:
        macro: an IMA.
        macros: the IMAs of a tile.
        tile: with its IMAs.
        tiles: all of a chip.
        chip: with its links to other chips.
        ops: peak operations per second; a MAC is two.
    """

    macro: Peak
    macros: Peak
    tile: Peak
    tiles: Peak
    chip: Peak
    ops: float


@lru_cache(maxsize=1)
def isaac_table() -> IsaacTable:
    """Read the published table."""
    return read("_isaac-table1", IsaacTable)


def isaac_chip_totals(chip: Chip) -> IsaacTotals:
    """Add the published parts up.

    Args:
        chip: the preset ``isaac-32nm``, for the size of a crossbar and the number of bits.

    Returns:
        Power, area and peak operations of every level.
    """
    table = isaac_table()

    def level(name: str, inner: Peak, times: int) -> Peak:
        parts = [part for part in table.parts if part.level == name]
        power = sum(part.power for part in parts) + times * inner.power
        return Peak(power, sum(part.area for part in parts) + times * inner.area)

    macro = level("macro", Peak(0, 0), 0)
    macros = Peak(table.macros_per_tile * macro.power, table.macros_per_tile * macro.area)
    tile = level("tile", macro, table.macros_per_tile)
    tiles = Peak(table.tiles * tile.power, table.tiles * tile.area)
    crossbars = table.tiles * table.macros_per_tile * chip.system.crossbars_per_macro
    digits = -(-chip.inputs.bits // chip.dac.bits)
    macs = crossbars * chip.crossbar.rows * chip.weight_columns / (digits * table.cycle)
    return IsaacTotals(macro, macros, tile, tiles, level("chip", tile, table.tiles), 2 * macs)
