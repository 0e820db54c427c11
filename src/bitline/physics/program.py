"""Target levels to the conductances that cells really take, once per write."""

from functools import lru_cache

import torch
from torch import Tensor

from bitline.chip.cell import Cell, GaussianAbsolute, GaussianProportional, Ideal, LogNormal, PerLevel
from bitline.physics import kernels
from bitline.physics import luck as lucks
from bitline.physics.levels import effective, target
from bitline.physics.luck import luck
from bitline.physics.steps import RESOLUTION, in_levels, keep


def conductances(levels: Tensor, z: Tensor, cell: Cell) -> Tensor:
    """Return the conductance that a write reaches, S, of the type of `z`.

    A target conductance lies on a line from g_min to g_max; the cell's programming model says how far a write
    departs from it. No conductance falls below zero.

    Args:
        levels: integers in [0, 2**bits).
        z: how far it departs from its target, standard deviations of the programming model; broadcasts.
        cell: levels, conductances and the programming model.
    """
    goal = target(levels.to(z.dtype), cell)
    match cell.programming:
        case Ideal():
            return goal.expand(torch.broadcast_shapes(levels.shape, z.shape))
        case LogNormal(sigma=sigma, centred=centred):
            return goal * torch.exp(z * sigma - (sigma**2 / 2 if centred else 0.0))
        case GaussianProportional(sigma=sigma):
            return (goal * (1 + z * sigma)).clamp_(min=0)
        case GaussianAbsolute(sigma=sigma):
            return (goal + z * sigma).clamp_(min=0)
        case PerLevel(sigma=sigma, mean=mean):
            index = levels.long()
            if mean is not None:
                goal = torch.tensor(mean, dtype=z.dtype, device=levels.device)[index]
            return (goal + z * torch.tensor(sigma, dtype=z.dtype, device=levels.device)[index]).clamp_(min=0)


def effective_levels(levels: Tensor, stuck: Tensor | None, cell: Cell, *, generator: torch.Generator) -> Tensor:
    """Return what a read of the cells adds to a bitline per unit of input, in level units.

    The departure from the target is one of 65,536, so that what every level can become is a table; see
    `bitline.physics.luck` for them and `bitline.physics.levels` for effective levels.

    Args:
        levels: integers in [0, 2**bits), any shape, on the CPU.
        stuck: -1 where a cell works, else the level it is stuck at, the same shape, int16; None: all cells work.
        cell: the memory element.
        generator: of the programming error.

    Returns:
        uint8 where every cell sits exactly on a level, else float32, whole multiples of `RESOLUTION`.
    """
    return in_levels(written_levels(levels, stuck, cell, generator=generator))


def written_levels(levels: Tensor, stuck: Tensor | None, cell: Cell, *, generator: torch.Generator) -> Tensor:
    """Return the same as `effective_levels`, as `bitline.physics.steps.keep` keeps it."""
    if always_exact(cell):
        return (levels if stuck is None else torch.where(stuck >= 0, stuck, levels.to(stuck.dtype))).to(torch.uint8)
    chance = luck(levels.shape, generator=generator)
    tables = _tables(cell)  # pyright: ignore[reportArgumentType]  frozen, so it hashes
    if kernels.native and levels.dtype == torch.uint8:
        real = torch.empty(levels.shape, dtype=tables.outcomes.dtype)
        cells = (levels.contiguous(), stuck if stuck is None else stuck.contiguous(), chance)
        kernels.native.written(*cells, tables.exact, tables.outcomes, real)
        return real
    real = outcome(levels, chance, tables.outcomes)
    return real if stuck is None else torch.where(stuck >= 0, tables.exact[stuck.clamp(min=0).int()], real)


class _Tables:
    """`outcomes` and `exact_levels` of a cell, both as memory keeps them."""

    def __init__(self, cell: Cell) -> None:
        table, exact = outcomes(cell), exact_levels(cell)
        both = keep(torch.cat([table.flatten(), exact]))
        self.outcomes: Tensor = both[: table.numel()].view(table.shape)
        self.exact: Tensor = both[table.numel() :]


_tables = lru_cache(maxsize=1)(_Tables)


def always_exact(cell: Cell) -> bool:
    """Whether every working cell sits exactly on its level, and a level adds that many units to a bitline."""
    varies = not isinstance(cell.programming, Ideal) and cell.programming.sigma != 0
    return not varies and cell.leak == "cancelled"


def outcome(levels: Tensor, chance: Tensor, table: Tensor) -> Tensor:
    """Return the effective levels of cells, of the type of `table`.

    Args:
        levels: that they are given, integers, any shape.
        chance: from `luck`, the same shape.
        table: from `outcomes`.
    """
    index = levels.reshape(-1).int().mul_(2**16).add_(chance.reshape(-1)).add_(2**15)
    return table.flatten().index_select(0, index).view(levels.shape)


def stuck_at(stuck: Tensor, cell: Cell) -> Tensor:
    """Effective level of cells stuck at a level, float32, the shape of `stuck`."""
    return _in_levels(target(stuck.float(), cell), cell)


def mean_levels(cell: Cell) -> Tensor:
    """Mean effective level of the cells that were given each level: programming model, faults and kept leak.

    Args:
        cell: the memory element.

    Returns:
        float64, (levels,).
    """
    off, on = cell.faults.stuck_off, cell.faults.stuck_on
    ends = _in_levels(torch.tensor([cell.g_min, cell.g_max], dtype=torch.float64), cell)
    working = outcomes(cell).double() @ lucks.outcomes().chance
    return (1 - off - on) * working + off * ends[0] + on * ends[1]


def exact_levels(cell: Cell) -> Tensor:
    """Effective level of cells that sit exactly on each level, float32, (levels,): a kept leak is part of it."""
    return _in_levels(target(torch.arange(cell.max_level + 1).float(), cell), cell)


def level_variances(cell: Cell) -> Tensor:
    """Variance of the effective level of working cells that were given each level, float64, (levels,)."""
    if isinstance(cell.programming, Ideal):
        return torch.zeros(cell.max_level + 1, dtype=torch.float64)
    reached, chance = outcomes(cell).double(), lucks.outcomes().chance
    return (reached - (reached @ chance)[:, None]).square() @ chance


def outcomes(cell: Cell) -> Tensor:
    """Return the effective levels that a write of each level can reach, float32, (levels, 65536).

    From the lowest to the highest, as likely as `bitline.physics.luck.outcomes` says. In doubles, so that no machine
    rounds one of them otherwise.
    """
    grid = torch.arange(cell.max_level + 1)[:, None]
    return _in_levels(conductances(grid, lucks.outcomes().z, cell), cell).float()


def _in_levels(g: Tensor, cell: Cell) -> Tensor:
    return (effective(g, cell) / RESOLUTION).round_().mul_(RESOLUTION)
