"""Cells of a weight written in turn, the most significant first: each is read back, and the next ones make up for it.

That later cells compensate the programming errors of earlier ones is the protocol of W. Song et al., "Programming
memristor arrays with arbitrarily high precision for analog computing", Science 383, 2024, doi:10.1126/science.adi9405.
Which level a cell is asked to take is ours: the one that makes the expected square of the weight's error least, given
what has been read and which of its cells are stuck, found by dynamic programming; where a cell may be written again, so
is whether that pays. A read back is taken as exact, and which cells are stuck as known before anything is written.
"""

import torch
from torch import Tensor

from bitline.chip.cell import Cell
from bitline.physics import kernels
from bitline.physics.luck import luck
from bitline.physics.policy import Policy, Written, policy
from bitline.physics.program import always_exact, exact_levels, stuck_at


def write_in_turn(
    levels: Tensor, stuck: Tensor | None, worth: Tensor, cell: Cell, *, generator: torch.Generator, rewrites: int = 0
) -> Written:
    """Write weights cell by cell; of a pair the side that a weight is on comes first, so that no sign is favoured.

    The first write of a cell has the luck that it has in `bitline.physics.program.effective_levels` with the same
    generator.

    Args:
        levels: of weights without errors, integers, (groups, sides, slices, rows, columns).
        stuck: -1 where a cell works, else the level it is stuck at, the same shape, int16; None: all cells work.
        worth: of one level of each cell, weight units, with its sign, (sides, slices).
        cell: the memory element.
        generator: of the programming error.
        rewrites: how often a cell may be written again before the next one's turn, at whichever level is best then;
            done where the weight's expected square error falls by more than `GAIN`.
    """
    order = sorted(range(worth.numel()), key=lambda k: -abs(int(worth.flatten()[k])))
    places = [divmod(k, worth.shape[1]) for k in order]
    asks = policy(tuple(int(worth[place]) for place in places), cell, rewrites + 1)
    attempts = [luck(levels.shape, generator=generator) for _ in range(asks.tries)]
    way = _in_loops if kernels.native else _in_tensors
    asked, real, writes, again = way(levels, stuck, places, asks, attempts, cell)
    return Written(asked, real.to(torch.uint8) if always_exact(cell) else real, writes, again)


def _in_tensors(
    levels: Tensor, stuck: Tensor | None, places: list[tuple[int, int]], asks: Policy, luck: list[Tensor], cell: Cell
) -> Written:
    """Write all weights cell by cell, at places (side, slice) in turn."""
    exact, negative = exact_levels(cell), None
    if levels.shape[1] == 2:
        negative = (levels[:, 1:] != 0).any(2, keepdim=True)
        levels, *luck = (torch.where(negative, x.flip(1), x) for x in (levels, *luck))
        stuck = None if stuck is None else torch.where(negative, stuck.flip(1), stuck)
    asked, real = levels.clone(), torch.empty(levels.shape)
    remainder = torch.zeros(levels[:, 0, 0].shape)
    working = torch.zeros(remainder.shape, dtype=torch.int32)
    for k, (side, s) in enumerate(places):
        remainder += exact[levels[:, side, s].int()] * asks.worth[k]
        if stuck is None:
            working += 1 << k
            continue
        at = stuck[:, side, s]
        real[:, side, s] = stuck_at(at, cell)
        remainder -= torch.where(at < 0, 0.0, real[:, side, s] * asks.worth[k])
        working += (at < 0).int() << k
    writes = again = 0
    for k, (side, s) in enumerate(places):
        level, wrote, *counts = asks.write(k, working >> k, remainder, [x[:, side, s] for x in luck])
        writes, again = writes + counts[0], again + counts[1]
        if stuck is not None:
            works = stuck[:, side, s] < 0
            level = torch.where(works, level, levels[:, side, s])
            remainder -= torch.where(works, wrote * asks.worth[k], 0.0)
            wrote = torch.where(works, wrote, real[:, side, s])
        else:
            remainder -= wrote * asks.worth[k]
        asked[:, side, s], real[:, side, s] = level, wrote
    if negative is not None:
        asked, real = (torch.where(negative, x.flip(1), x) for x in (asked, real))
    return Written(asked, real, writes, again)


def _in_loops(
    levels: Tensor, stuck: Tensor | None, places: list[tuple[int, int]], asks: Policy, luck: list[Tensor], cell: Cell
) -> Written:
    """Do the same weight by weight."""
    cells = levels.contiguous(), stuck if stuck is None else stuck.contiguous()
    sides, slices = map(list, zip(*places, strict=True))
    tables = asks.all_tables(kernels.native.working(*cells, sides, slices))
    asked, real = torch.empty_like(cells[0]), torch.empty(levels.shape)
    counts = kernels.native.write_in_turn(
        *cells, luck, sides, slices, asks.worth, asks.edges, exact_levels(cell), asks.outcomes, *tables, asked, real
    )
    return Written(asked, real, *counts)
