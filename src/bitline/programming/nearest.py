"""Levels for a weight some of whose cells are stuck: the nearest value that its working cells can still make.

Which cells are stuck is known from a test of the crossbar before it is written. Where the cell of the highest digit is
stuck off, the others take their highest levels; where one is stuck on, the others make up for it.
"""

from functools import lru_cache
from itertools import product

import torch
from torch import Tensor

WORKS, OFF, ON = range(3)
"""states of a cell; those of a weight's cells are the digits of a number to this base"""


def nearest_levels(levels: Tensor, stuck: Tensor, factors: tuple[int, ...], top: int) -> Tensor:
    """Choose the levels of working cells so that each weight is as near to its target as its stuck cells allow.

    A pair's sides are chosen in turns, each nearest to what the other leaves to it: no error becomes larger.

    Args:
        levels: targets, uint8, (groups, sides, slices, rows, stored columns).
        stuck: -1 where a cell works, 0 or the highest level where it is stuck, the same shape.
        factors: what each slice of a weight weighs, least significant first.
        top: highest level of a cell.

    Returns:
        uint8, the shape of `levels`; stuck cells keep their targets.
    """
    worth = torch.tensor(factors)
    cells, states = (x.movedim(1, 0).movedim(2, -1) for x in (levels.long(), cell_states(stuck)))
    damaged = (states != WORKS).flatten(4).any(-1).any(0)  # (groups, rows, columns), on either side
    states, targets = states[:, damaged], cells[:, damaged] @ worth  # (sides, weights, slices), (sides, weights)
    patterns = states @ torch.tensor([3**s for s in range(len(factors))])
    signs = (1, -1)[: len(targets)]
    whole = sum(sign * target for sign, target in zip(signs, targets, strict=True))
    chosen = [_lookup(factors, top, *pair) for pair in zip(patterns, targets, strict=True)]
    for _ in range(2 * (len(signs) - 1)):
        for side, sign in enumerate(signs):
            other = chosen[1 - side] @ worth
            chosen[side] = _lookup(factors, top, patterns[side], sign * whole + other)
    new = cells.clone()
    new[:, damaged] = torch.stack(chosen)
    new = new.movedim(-1, 2).movedim(0, 1).to(levels.dtype)
    return torch.where(stuck < 0, new, levels)


def cell_states(stuck: Tensor) -> Tensor:
    """State of every cell, int64."""
    return torch.where(stuck < 0, WORKS, torch.where(stuck == 0, OFF, ON))


def _lookup(factors: tuple[int, ...], top: int, patterns: Tensor, targets: Tensor) -> Tensor:
    """Find the levels, those of stuck cells included, whose value is nearest to a target, int64, (weights, slices)."""
    best = torch.empty(len(targets), len(factors), dtype=torch.int64)
    low, high = (top * sum(f for f in factors if f * sign > 0) for sign in (-1, 1))
    index = targets.clamp(low, high) - low
    order = patterns.argsort(stable=True)
    present, counts = patterns[order].unique_consecutive(return_counts=True)
    for pattern, part in zip(present.tolist(), order.split(counts.tolist()), strict=True):
        best[part] = _table(factors, top, pattern)[index[part]]
    return best


@lru_cache(maxsize=2**14)
def _table(factors: tuple[int, ...], top: int, pattern: int) -> Tensor:
    """Levels nearest to every value from the lowest to the highest, for one pattern of stuck cells, int64."""
    states = [pattern // 3**s % 3 for s in range(len(factors))]
    choices = [range(top + 1) if state == WORKS else (0 if state == OFF else top,) for state in states]
    levels = torch.tensor(list(product(*choices)))
    values, order = (levels @ torch.tensor(factors)).sort(stable=True)
    low, high = (top * sum(f for f in factors if f * sign > 0) for sign in (-1, 1))
    wanted = torch.arange(low, high + 1)
    above = torch.searchsorted(values, wanted).clamp(max=len(values) - 1)
    below = (above - 1).clamp(min=0)
    nearer = torch.where((values[above] - wanted).abs() < (values[below] - wanted).abs(), above, below)
    return levels[order[nearer]]
