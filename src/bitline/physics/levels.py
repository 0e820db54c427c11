"""Levels and siemens, both ways: a cell of level n is to have the conductance g_min + n step.

An effective level is what a cell adds to its bitline, for each unit of input: its conductance above `Cell.zero`, which
is g_min where a reference column cancels the leak, in steps.
"""

from typing import TYPE_CHECKING, TypeVar

from bitline.chip.cell import Cell
from bitline.chip.description import Chip

if TYPE_CHECKING:
    from torch import Tensor

Number = TypeVar("Number", float, "Tensor")


def target(levels: Number, cell: Cell) -> Number:
    """Return the conductance that cells of a level are to have, S: g_min at level 0, g_max at the highest."""
    return cell.g_min + levels * cell.step


def effective(g: Number, cell: Cell) -> Number:
    """Return the effective levels of conductances in S."""
    return (g - cell.zero) / cell.step


def siemens(levels: Number, cell: Cell) -> Number:
    """Return the conductances that have effective levels, S; the inverse of `effective`."""
    return cell.zero + levels * cell.step


def level_current(chip: Chip) -> float:
    """Return the current of one level driven by a digit of 1, A: a full-scale digit drives the whole read voltage."""
    return chip.cell.read_voltage * chip.cell.step / (2**chip.dac.bits - 1)
