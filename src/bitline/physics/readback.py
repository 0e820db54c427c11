"""Cells of a weight written in turn, the most significant first: each is read back, and the next ones make up for it.

That later cells compensate the programming errors of earlier ones is the protocol of W. Song et al., "Programming
memristor arrays with arbitrarily high precision for analog computing", Science 383, 2024, doi:10.1126/science.adi9405.
Which level a cell is asked to take is ours: the one that makes the expected square of the weight's error least, given
what has been read and which of its cells are stuck, found by dynamic programming. A read back is taken as exact, and
which cells are stuck as known before anything is written.
"""

from functools import lru_cache

import torch
from torch import Tensor

from bitline.chip.description import Cell
from bitline.physics.program import always_exact, exact_levels, luck, outcomes, reached, stuck_at

STEP = 0.5
"""between the remainders that are tabulated, weight units"""
_SAMPLES = 16
"""of what a write may reach: means of as many equal shares of its outcomes"""


def write_in_turn(
    levels: Tensor, stuck: Tensor | None, worth: Tensor, cell: Cell, *, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Write weights cell by cell.

    A cell has the same luck as in `bitline.physics.program.effective_levels` with the same generator.

    Args:
        levels: of weights without errors, integers, (groups, sides, slices, rows, columns).
        stuck: -1 where a cell works, else the level it is stuck at, the same shape, int16; None: all cells work.
        worth: of one level of each cell, weight units, with its sign, (sides, slices).
        cell: the memory element.
        generator: of the programming error.

    Returns:
        The levels that cells are asked to take, uint8, those of stuck cells as they were; and what they then add to
        their bitlines, level units, float32, or uint8 where every cell sits exactly on a level.
    """
    drawn, table = luck(levels.shape, generator=generator), outcomes(cell)
    order = sorted(range(worth.numel()), key=lambda k: -abs(int(worth.flatten()[k])))
    places = [divmod(k, worth.shape[1]) for k in order]
    policy = _policy(tuple(int(worth[place]) for place in places), cell.model_dump_json())
    asked = levels.clone()
    real = exact_levels(cell)[levels.int()] if stuck is None else stuck_at(stuck, cell)
    remainder = torch.einsum("gksrc,ks->grc", exact_levels(cell)[levels.int()], worth.float())
    working = torch.full(remainder.shape, 2 ** len(places) - 1)
    if stuck is not None:
        fixed = stuck >= 0
        remainder -= torch.einsum("gksrc,ks->grc", real * fixed, worth.float())
        working -= sum(fixed[:, side, s].long() << k for k, (side, s) in enumerate(places))
    for k, (side, s) in enumerate(places):
        works = (working >> k & 1).bool()
        level = policy.levels(k, working[works] >> k, remainder[works])
        wrote = reached(level, drawn[:, side, s][works], table)
        asked[:, side, s][works] = level
        real[:, side, s][works] = wrote
        remainder[works] -= wrote * float(worth[side, s])
    return asked, real.to(torch.uint8) if always_exact(cell) else real


class Policy:
    """Which level to ask of each cell of a weight, for all that may be left to write and whatever cells work.

    Args:
        worth: of one level of each cell in the order of writing, weight units, with its sign.
        cell: the memory element.
    """

    def __init__(self, worth: tuple[int, ...], cell: Cell) -> None:
        self.worth = worth
        self.samples = outcomes(cell).sort(1).values.unflatten(1, (_SAMPLES, -1)).mean(2)  # (levels, samples)
        top = float(exact_levels(cell).max())
        self.edges = [2 * top * sum(map(abs, worth[first:])) for first in range(len(worth))]
        self.tables: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}

    def levels(self, first: int, working: Tensor, remainder: Tensor) -> Tensor:
        """Return the level to ask of a cell that works, uint8.

        Args:
            first: the cell, from 0, in the order of writing.
            working: bit k is set where cell `first` + k works, int64; bit 0 is.
            remainder: what is left to write, weight units, the same shape.
        """
        kinds, index = working.unique(return_inverse=True)
        tables = [self.table(first, kind)[1] for kind in kinds.tolist()]
        return torch.stack(tables)[index, self._place(first, remainder).round().long()] if tables else index.byte()

    def table(self, first: int, working: int) -> tuple[Tensor, Tensor]:
        """Expected square of what is left in the end, float32, and the level of the cell that makes it so.

        Both by remainder, from minus to plus ``edges[first]`` in steps of `STEP`.
        """
        key = first, working
        if key not in self.tables:
            self.tables[key] = self._made(*key)
        return self.tables[key]

    def _made(self, first: int, working: int) -> tuple[Tensor, Tensor]:
        edge = self.edges[first]
        remainder = torch.linspace(-edge, edge, int(2 * edge / STEP) + 1)
        choices = [
            self._expected(first + 1, working >> 1, remainder[:, None] - self.worth[first] * sample.unique()).mean(1)
            for sample in self.samples
        ]
        left, level = torch.stack(choices).min(0)
        return left, level.to(torch.uint8)

    def _expected(self, first: int, working: int, remainder: Tensor) -> Tensor:
        """Expected square of what is left in the end; outside of a table nothing more can be made up for."""
        while working and not working & 1:
            first, working = first + 1, working >> 1
        if not working:
            return remainder.square()
        left = self.table(first, working)[0]
        place = self._place(first, remainder)
        low = place.long().clamp(max=len(left) - 2)
        inside = torch.lerp(left[low], left[low + 1], place - low)
        outside = (remainder.abs() - self.edges[first]).clamp(min=0)
        return (inside.sqrt() + outside).square()

    def _place(self, first: int, remainder: Tensor) -> Tensor:
        edge = self.edges[first]
        return ((remainder + edge) / STEP).clamp(0, int(2 * edge / STEP))


@lru_cache(maxsize=8)
def _policy(worth: tuple[int, ...], cell: str) -> Policy:
    return Policy(worth, Cell.model_validate_json(cell))
