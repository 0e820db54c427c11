"""The luck of a write: one of 65,536 departures from the target, in standard deviations, of a normal distribution.

So few outcomes make a table of what every level can become. They are equally likely, but for the outermost `TAIL` at
either end, which share the tails in steps of 3.3 % of what is left of a tail: the last stands for all beyond 6.2
standard deviations.
"""

from decimal import Decimal, localcontext
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor

from bitline.physics import kernels

COUNT = 2**16
"""of outcomes"""
TAIL = 2**9
"""outcomes at either end that share a tail of probability TAIL / COUNT"""
_DRAW_BITS = 53
_TAIL_BITS = 25
"""binary digits by which a tail's probability falls over its outcomes"""


class Outcomes(NamedTuple):
    """All outcomes, from the lowest to the highest."""

    z: Tensor
    """departures, standard deviations, float64, (COUNT,)"""
    chance: Tensor
    """their probabilities, float64, (COUNT,); they add up to 1"""


@cache
def outcomes() -> Outcomes:
    """Return all outcomes of a write."""
    edges = torch.tensor(_edges(), dtype=torch.float64) / 2**_DRAW_BITS * (TAIL / COUNT)
    low = torch.cat([torch.zeros(1, dtype=torch.float64), edges.flip(0)[:-1]])
    below = torch.cat([low, (torch.arange(TAIL, COUNT // 2 + 1) / COUNT).double()])
    z, chance = torch.special.ndtri((below[:-1] + below[1:]) / 2), below.diff()
    return Outcomes(torch.cat([z, -z.flip(0)]), torch.cat([chance, chance.flip(0)]))


def luck(shape: torch.Size, *, generator: torch.Generator) -> Tensor:
    """Draw which outcome the write of each cell has, whatever its level.

    Returns:
        int16, the index of the outcome less COUNT / 2.
    """
    room = -(-shape.numel() // 4)
    low, high = TAIL - COUNT // 2, COUNT // 2 - TAIL
    if loops := kernels.draws():
        drawn, edges = torch.empty(4 * room, dtype=torch.int16), torch.tensor(_edges())
        sizes = shape.numel(), low, high, edges, 2**_DRAW_BITS
        kernels.on_state(generator, lambda state: loops.luck(state, drawn, *sizes))
        return drawn[: shape.numel()].view(shape)
    u = torch.empty(room, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    drawn = u.view(torch.int16)[: shape.numel()]
    tails = ((drawn < low) | (drawn >= high)).nonzero().flatten()
    rest = torch.empty(len(tails), dtype=torch.int64).random_(0, 2**_DRAW_BITS, generator=generator)
    # Edges fall: a draw of 2**53 or little less is the outcome next to the middle.
    beyond = TAIL - 1 - torch.bucketize(rest, torch.tensor(_edges()[::-1]), right=True)
    drawn[tails] = torch.where(drawn[tails] < 0, low - 1 - beyond, high + beyond).to(torch.int16)
    return drawn.view(shape)


@cache
def _edges() -> tuple[int, ...]:
    """Share of a tail that is left at each of its outcomes, times 2**53, the same integers on every machine."""
    with localcontext(prec=50):
        return tuple(round(2 ** (_DRAW_BITS - Decimal(_TAIL_BITS * j) / TAIL)) for j in range(TAIL))
