"""What to ask of the cells of a weight that are written in turn, found by dynamic programming and tabulated.

The level of a cell is the one that makes the expected square of the weight's error least, given what is left to write
and which of the weight's cells are stuck; where a cell may be written again, so is whether that pays.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from bitline.chip.cell import Cell, Faults, NoReadNoise
from bitline.physics import kernels
from bitline.physics import luck as lucks
from bitline.physics.program import exact_levels, outcome, outcomes

STEP = 0.25
"""between the remainders that are tabulated, weight units"""
GAIN = 1.0
"""what another write of a cell must take away of the expected square error of the weight, square weight units, whatever
its bits; assumed"""
_EDGES = tuple(0.4 * k for k in range(-8, 9))
"""of the bins that outcomes of a write are put in, standard deviations; each stands for its mean"""
_UNTABULATED = {"faults": Faults(), "read_noise": NoReadNoise(), "access_resistance": 0.0}
"""of a cell, what tables do not depend on"""


class Written(NamedTuple):
    """Cells after their writes."""

    asked: Tensor
    """their levels, uint8, those of stuck cells as they were"""
    real: Tensor
    """what they then add to their bitlines, level units, float32, or uint8 where every cell sits exactly on a level"""
    writes: int
    """of all cells together; an empty cell that is to stay so needs none"""
    rewrites: int
    """how many of them followed a read of the same cell"""


class Policy:
    """Which level to ask of each cell of a weight, for all that may be left to write and whatever cells work.

    Args:
        worth: of one level of each cell in the order of writing, weight units, with its sign.
        cell: the memory element.
        tries: how often each cell may be written; once where all its writes are alike.
    """

    def __init__(self, worth: tuple[int, ...], cell: Cell, tries: int = 1) -> None:
        self.worth, self.outcomes = worth, outcomes(cell)
        self.tries = tries if bool((self.outcomes != self.outcomes[:, :1]).any()) else 1
        z, chance = lucks.outcomes()
        ends = torch.bucketize(torch.tensor(_EDGES, dtype=torch.float64), z).tolist()
        bins = zip((self.outcomes * chance).tensor_split(ends, 1), chance.tensor_split(ends), strict=True)
        self.samples = torch.stack([part.sum(1) / share.sum() for part, share in bins], 1).float()
        """(levels, bins)"""
        self.shares = torch.stack([share.sum() for share in chance.tensor_split(ends)]).float()
        top = float(exact_levels(cell).max())
        spans = (2 * top * sum(map(abs, worth[k:])) for k in range(len(worth)))
        self.edges = [math.ceil(span / STEP) * STEP for span in spans]
        self.tables: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}
        self._all = torch.empty(0), torch.empty(0, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)
        self._gathered = -1

    def write(self, cell: int, working: Tensor, remainder: Tensor, attempts: list[Tensor]) -> Written:
        """Write one cell of each weight, and again where that takes more than `GAIN` away.

        Args:
            cell: from 0, in the order of writing.
            working: bit k is set where cell `cell` + k works, int32, any shape.
            remainder: what is left to write, weight units, the same shape.
            attempts: the luck of each write, the same shape.

        Returns:
            Levels of no meaning where the cell does not work.
        """
        level = self.levels(cell, working, remainder, self.tries)
        wrote = outcome(level, attempts[0], self.outcomes)
        writes, rewrites = int((level.bool() & (working & 1).bool()).sum()), 0
        where = (working & 1).flatten().nonzero().flatten()
        for tries, drawn in zip(range(self.tries - 1, 0, -1), attempts[1:], strict=False):
            kind, left, real = (x.flatten().index_select(0, where) for x in (working, remainder, wrote))
            kept = self.left(cell + 1, kind >> 1, left - real * self.worth[cell], self.tries)
            poor = (kept > GAIN).nonzero().flatten()
            where, kind, left, kept = (x[poor] for x in (where, kind, left, kept))
            pays = (self.left(cell, kind, left, tries) + GAIN < kept).nonzero().flatten()
            where, kind, left = (x[pays] for x in (where, kind, left))
            asked = self.levels(cell, kind, left, tries)
            level.view(-1)[where] = asked
            wrote.view(-1)[where] = outcome(asked, drawn.flatten()[where], self.outcomes)
            rewrites += len(where)
        return Written(level, wrote, writes + rewrites, rewrites)

    def levels(self, cell: int, working: Tensor, remainder: Tensor, tries: int) -> Tensor:
        """Return the level to ask of a cell, uint8, which may be written so often; any where it does not work."""
        kinds = [kind for kind in self._kinds(cell, working) if kind & 1]
        if not kinds:
            return torch.zeros_like(working, dtype=torch.uint8)
        tables = [self.table(cell, kind, tries)[1] for kind in kinds]
        edge = self.edges[cell]
        place = ((remainder + edge) / STEP).clamp_(0, 2 * edge / STEP).round_().int()
        if len(kinds) > 1:
            place += self._by_kind(cell, kinds, _starts(tables))[working]
        return torch.cat(tables).index_select(0, place.flatten()).view(place.shape)

    def left(self, cell: int, working: Tensor, remainder: Tensor, tries: int) -> Tensor:
        """Expected square of what is left in the end, float32, (weights,), whatever cells work."""
        kinds = self._kinds(cell, working)
        following = [self._next(cell, kind, tries) for kind in kinds] or [(0.0, torch.zeros(2))]
        tables = [table for _, table in following]
        start, edge = _starts(tables), torch.tensor([edge for edge, _ in following])
        if len(kinds) > 1:
            start, edge = (self._by_kind(cell, kinds, values)[working] for values in (start, edge))
        inside, outside = _interpolated(torch.cat(tables), start, edge, remainder)
        # A root of doubles is the nearest number on every machine, which that of floats need not be.
        return (inside.double().sqrt_().float() + outside).square_()

    def table(self, cell: int, working: int, tries: int) -> tuple[Tensor, Tensor]:
        """Expected square of what is left in the end, float32, and the level of the cell that makes it so.

        Both by remainder, from minus to plus ``edges[cell]`` in steps of `STEP`; the last of both is there twice.
        """
        if (cell, working, tries) not in self.tables:
            self._tabulate(cell, working)
        return self.tables[cell, working, tries]

    def all_tables(self, patterns: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return all tables one after the other, those of some patterns of working cells surely among them.

        Returns:
            Squares, float32, and levels, uint8, as from `table`; where each table begins, int64, (tries, cells,
            2^cells); 0, where there are two zeros, stands for none.
        """
        cells = len(self.worth)
        for cell, working in {(k, pattern >> k) for pattern in patterns for k in range(cells) if pattern >> k & 1}:
            self.table(cell, working, self.tries)
        if self._gathered != len(self.tables):  # tables come from elsewhere too, and an interrupt may come between
            start = torch.zeros(self.tries, cells, 2**cells, dtype=torch.int64)
            end = 2
            for (cell, working, tries), (left, _) in self.tables.items():
                start[tries - 1, cell, working] = end
                end += len(left)
            tables = [(torch.zeros(2), torch.zeros(2, dtype=torch.uint8)), *self.tables.values()]
            left, level = (torch.cat(x) for x in zip(*tables, strict=True))
            self._all, self._gathered = (left, level, start), len(self.tables)
        return self._all

    def _tabulate(self, cell: int, working: int) -> None:
        """Make the tables of a cell, for all attempts that may be left; what a write leaves is the same for all."""
        edge = self.edges[cell]
        remainder = torch.linspace(-edge, edge, round(2 * edge / STEP) + 1)
        writes: list[tuple[Tensor, Tensor]] = []
        for level in self.samples:
            values, shares = (level[:1], torch.ones(1)) if level[0] == level[-1] else (level, self.shares)
            rest = remainder[:, None] - self.worth[cell] * values
            writes.append((self._expected(cell + 1, working >> 1, rest, self.tries), shares))
        again: Tensor | None = None
        for tries in range(1, self.tries + 1):
            choices = [((x if again is None else torch.minimum(x, again)) * share).sum(1) for x, share in writes]
            left, level = torch.stack(choices).min(0)
            again = left[:, None] + GAIN
            ends = torch.cat([left, left[-1:]]), torch.cat([level, level[-1:]]).to(torch.uint8)
            self.tables[cell, working, tries] = ends

    def _expected(self, cell: int, working: int, remainder: Tensor, tries: int) -> Tensor:
        """Expected square of what is left in the end where the same cells of all weights work."""
        edge, table = self._next(cell, working, tries)
        if kernels.native:
            inside, outside = torch.empty(remainder.shape), torch.empty(remainder.shape)
            kernels.native.inside(table, edge, remainder.contiguous(), inside, outside)
        else:
            inside, outside = _interpolated(table, 0, torch.tensor(edge), remainder)
        return (inside.sqrt_() + outside).square_()

    def _next(self, cell: int, working: int, tries: int) -> tuple[float, Tensor]:
        """Edge and squares of the first cell that works from `cell` on; of nothing where none does."""
        while working and not working & 1:
            cell, working = cell + 1, working >> 1
        return (self.edges[cell], self.table(cell, working, tries)[0]) if working else (0.0, torch.zeros(2))

    def _kinds(self, cell: int, working: Tensor) -> list[int]:
        """All patterns of working cells that there are."""
        return torch.bincount(working.flatten(), minlength=2 ** (len(self.worth) - cell)).nonzero().flatten().tolist()

    def _by_kind(self, cell: int, kinds: list[int], values: Tensor) -> Tensor:
        by_pattern = torch.zeros(2 ** (len(self.worth) - cell), dtype=values.dtype)
        by_pattern[kinds] = values
        return by_pattern


def _starts(tables: list[Tensor]) -> Tensor:
    """Where each of several tables begins when they are one."""
    return torch.tensor([0, *(len(table) for table in tables[:-1])]).cumsum(0).int()


def _interpolated(table: Tensor, start: Tensor | int, edge: Tensor, remainder: Tensor) -> tuple[Tensor, Tensor]:
    """Look squares up between minus and plus `edge`, and how much lies outside, where nothing can be made up for."""
    outside = (remainder.abs() - edge).clamp_(min=0)
    place = (remainder.clamp(-edge, edge) + edge) / STEP
    low = place.int()
    place -= low
    low = (low + start).flatten()
    below, above = (table.index_select(0, at).view(place.shape) for at in (low, low + 1))
    return torch.lerp(below, above, place), outside


def policy(worth: tuple[int, ...], cell: Cell, tries: int) -> Policy:
    """Return the policy of weights, by what a level of each cell is worth; tables found before are in it."""
    plain = cell.model_copy(update=_UNTABULATED)
    return _kept(worth, plain, tries)  # pyright: ignore[reportArgumentType]  frozen, so it hashes


_kept = lru_cache(maxsize=8)(Policy)
