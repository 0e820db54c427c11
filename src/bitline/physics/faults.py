"""Stuck-at faults: cells that no write can move, drawn once per chip."""

import torch

from bitline.chip.cell import Cell
from bitline.physics import kernels


def stuck_levels(shape: torch.Size, cell: Cell, *, generator: torch.Generator) -> torch.Tensor | None:
    """Draw which cells are stuck, and where.

    One uniform number a cell decides, so a chip with more faults contains those of the same chip with fewer.

    Args:
        shape: of the cells.
        cell: fault fractions and the highest level.
        generator: a CPU generator.

    Returns:
        int16: -1 for a working cell, 0 for one stuck off (g_min), max_level for one stuck on (g_max); None where
        the cell has no faults.
    """
    if not (cell.faults.stuck_off or cell.faults.stuck_on):
        return None
    if loops := kernels.draws():
        stuck = torch.empty(shape, dtype=torch.int16)
        limits = cell.faults.stuck_off, 1 - cell.faults.stuck_on, cell.max_level
        kernels.on_state(generator, lambda state: loops.faults(state, stuck, *limits))
        return stuck
    stuck = torch.full(shape, -1, dtype=torch.int16)
    u = torch.rand(shape, generator=generator)
    stuck[u < cell.faults.stuck_off] = 0
    stuck[u >= 1 - cell.faults.stuck_on] = cell.max_level
    return stuck
