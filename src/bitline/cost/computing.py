"""Computing power and area: crossbars, sparsity tables and floating-point multipliers of a network, nothing else.

The measure of CRIMP (Huai et al., ACM TECS 2023, doi:10.1145/3609115) with its table of components. Fine-grained
pruning needs a sparsity table in every macro, real scales need a floating-point multiplier in every tile; networks that
are pruned by crossbars and scaled by shifts need neither.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bitline import units
from bitline.chip.records import Count, Record
from bitline.cost.table import read
from bitline.errors import MappingError

if TYPE_CHECKING:  # bitline.mapping imports torch, which pricing does not need
    from bitline.chip.description import Chip
    from bitline.mapping.place import Placement


def _read(unit: str) -> BeforeValidator:
    return BeforeValidator(lambda text: units.parse(text, unit) if isinstance(text, str) else text)


class Component(Record):
    """One row of the published table, all units of a macro or a tile together."""

    level: Literal["macro", "tile"]
    name: Literal["crossbars", "sparsity_tables", "fp_multipliers"]
    spec: str
    power: Annotated[float, _read("W"), Field(gt=0)]
    area: Annotated[float, _read("m2"), Field(gt=0)]


class ComponentTable(Record):
    """What a macro and a tile of that chip hold."""

    doi: str
    crossbars_per_macro: Count
    macros_per_tile: Count
    parts: tuple[Component, ...]


@dataclass(frozen=True)
class Share:
    """What one kind of component takes.

    Args:
        power_W: at full speed.
        area_m2: of silicon.
    """

    power_W: float  # noqa: N815
    area_m2: float


@dataclass(frozen=True)
class ComputingCost:
    """Computing power and area of a network.

    Args:
        crossbars: it has, copies included.
        parts: by component; those that it does not need are absent.
    """

    crossbars: int
    parts: dict[str, Share]

    @property
    def power_W(self) -> float:  # noqa: N802
        """Power of all parts at full speed, W."""
        return math.fsum(part.power_W for part in self.parts.values())

    @property
    def area_m2(self) -> float:
        """Area of all parts, m2."""
        return math.fsum(part.area_m2 for part in self.parts.values())

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "crossbars": self.crossbars,
            "power_W": self.power_W,
            "area_m2": self.area_m2,
            "power_parts_W": {name: part.power_W for name, part in self.parts.items()},
            "area_parts_m2": {name: part.area_m2 for name, part in self.parts.items()},
        }


@dataclass(frozen=True)
class Ratios:
    """How many times less one network takes than another.

    Args:
        crossbars: of the first over those of the second.
        power: the same of computing power.
        area: the same of computing area.
    """

    crossbars: float
    power: float
    area: float


@lru_cache(maxsize=1)
def component_table() -> ComponentTable:
    """Read the published table."""
    return read("_crimp-computing", ComponentTable)


def computing(
    placement: Placement, *, sparsity_tables: bool = False, fp_multipliers: bool = False, whole: bool = False
) -> ComputingCost:
    """Add up the computing power and area of a network.

    A network takes of a macro's sparsity table and of a tile's multiplier the share of the crossbars that it uses of
    them, as if others used the rest; `whole` counts every macro and tile that holds one of its crossbars instead.

    Args:
        placement: of the network; a crossbar that is not built is not counted.
        sparsity_tables: weights are pruned one by one, by rows or by columns of a kernel.
        fp_multipliers: results are multiplied by what is no power of two, see `multiplies`.
        whole: round macros and tiles up.

    Raises:
        MappingError: crossbars that are not those of the table.
    """
    table, crossbar = component_table(), placement.chip.crossbar
    if (crossbar.rows, crossbar.cols, placement.chip.cell.bits) != (128, 128, 2):
        raise MappingError(
            f"chip {placement.chip.name} has crossbars of {crossbar.rows} x {crossbar.cols} cells of "
            f"{placement.chip.cell.bits} bits; computing power and area are published for 128 x 128 of 2 bits"
        )
    crossbars = placement.crossbars * placement.chip.system.copies
    per_tile = table.crossbars_per_macro * table.macros_per_tile
    needed = {"crossbars": True, "sparsity_tables": sparsity_tables, "fp_multipliers": fp_multipliers}
    parts: dict[str, Share] = {}
    for part in table.parts:
        if needed[part.name]:
            count = crossbars / (table.crossbars_per_macro if part.level == "macro" else per_tile)
            count = math.ceil(count) if whole and part.name != "crossbars" else count
            parts[part.name] = Share(count * part.power, count * part.area)
    return ComputingCost(crossbars, parts)


def multiplies(chip: Chip) -> bool:
    """Whether results on a chip are multiplied by what is no power of two.

    Real scales do that, once for each result, and corrections of the offset: once for each input vector where one
    number is expected, and for each column and row tile where errors are measured. The table has one kind of
    multiplier, for real numbers, which is more than what the integers of a correction need.
    """
    encoding = chip.weights.encoding
    corrected = encoding.kind == "offset" and encoding.correction != "none"
    return corrected or chip.weights.scale == "any" or chip.inputs.scale == "any"


def compare(before: ComputingCost, after: ComputingCost) -> Ratios:
    """Say how many times less a network takes than before.

    Raises:
        MappingError: a network of no crossbars.
    """
    for which, cost in (("first", before), ("second", after)):
        if not cost.crossbars:
            raise MappingError(f"the {which} network has no crossbar: nothing to compare with")
    return Ratios(before.crossbars / after.crossbars, before.power_W / after.power_W, before.area_m2 / after.area_m2)


def mean(ratios: Sequence[Ratios]) -> Ratios:
    """Return the geometric mean over networks; an arithmetic one is that of the smallest network.

    Raises:
        MappingError: no ratios.
    """
    if not ratios:
        raise MappingError("no networks to take a mean over")
    means = [
        math.exp(math.fsum(map(math.log, values)) / len(ratios))
        for values in (
            [each.crossbars for each in ratios],
            [each.power for each in ratios],
            [each.area for each in ratios],
        )
    ]
    return Ratios(*means)
