"""Write-verify: cells that are written, read and written again until they are close to their level."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bitline.chip.cell import Cell
from bitline.physics.program import effective_levels, exact_levels, level_variances

ATTEMPTS = 100
"""writes after the first; a cell that is not close then stays as it is"""


def most_sensitive(
    levels: Tensor, working: Tensor, count: float, weights: Sequence[int], cell: Cell, *, generator: torch.Generator
) -> Tensor:
    """Choose the cells whose errors of programming weigh most in results.

    The mean square that a cell adds is (what its slice weighs)^2 times the variance of its level; rows are taken as
    alike. Among cells of the same slice and level that are not all chosen, chance decides.

    Args:
        levels: integers, (groups, sides, slices, rows, columns).
        working: cells that there are to choose from, bool, the same shape.
        count: how many are wanted; where fewer can err, these.
        weights: what each slice weighs.
        cell: levels and programming model.
        generator: a CPU generator.

    Returns:
        bool, the shape of `levels`; no cell that cannot err.
    """
    variances = level_variances(cell).tolist()
    left = count
    chosen = torch.zeros(levels.shape, dtype=torch.bool)
    kinds = [(w**2 * v, s, level) for s, w in enumerate(weights) for level, v in enumerate(variances) if v > 0]
    for _, s, level in sorted(kinds, reverse=True):
        here = working[:, :, s] & (levels[:, :, s] == level)
        available = int(here.sum())
        if available > left:
            here &= torch.rand(here.shape, generator=generator) < left / available
        chosen[:, :, s] |= here
        left -= available
        if left <= 0:
            break
    return chosen


def verify(
    first: Tensor, levels: Tensor, chosen: Tensor, cell: Cell, tolerance: float, *, generator: torch.Generator
) -> Tensor:
    """Write cells again until they are close to their level.

    Args:
        first: effective levels after the first write, real.
        levels: that the cells were given, the same shape.
        chosen: cells that are verified, bool; none that is stuck.
        cell: the memory element.
        tolerance: greatest departure from the level, level units.
        generator: of the writes.

    Returns:
        Effective levels, the shape of `first`.
    """
    exact = exact_levels(cell)
    now = first.clone()
    index = chosen.flatten().nonzero().flatten()
    flat, asked = now.view(-1), levels.reshape(-1)
    for _ in range(ATTEMPTS):
        index = index[(flat[index] - exact[asked[index].int()]).abs() > tolerance]
        if not len(index):
            break
        flat[index] = effective_levels(asked[index], None, cell, generator=generator).to(flat.dtype)
    return now
