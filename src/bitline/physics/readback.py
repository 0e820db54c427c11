"""Cells of a weight written in turn, the most significant first: each is read back, and the next ones make up for it.

That later cells compensate the programming errors of earlier ones is the protocol of W. Song et al., "Programming
memristor arrays with arbitrarily high precision for analog computing", Science 383, 2024, doi:10.1126/science.adi9405.
Which level a cell is asked to take is ours: the one that makes the expected square of the weight's error least, given
what has been read and which of its cells are stuck, found by dynamic programming; where a cell may be written again, so
is whether that pays. A read back is taken as exact, and which cells are stuck as known before anything is written.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from bitline.chip.cell import Cell, Faults, NoReadNoise
from bitline.physics import luck as lucks
from bitline.physics.luck import luck
from bitline.physics.program import always_exact, exact_levels, outcome, outcomes, stuck_at

STEP = 0.25
"""between the remainders that are tabulated, weight units"""
GAIN = 1.0
"""what another write of a cell must take away of the expected square error of the weight, square weight units, whatever
its bits; assumed"""
_EDGES = tuple(0.4 * k for k in range(-8, 9))
"""of the bins that outcomes of a write are put in, standard deviations; each stands for its mean"""
_UNTABULATED = {"faults": Faults(), "read_noise": NoReadNoise(), "access_resistance": 0.0}
"""of a cell, what tables do not depend on"""


class InTurn(NamedTuple):
    """Cells that were written in turn."""

    asked: Tensor
    """the levels that cells are asked to take, uint8, those of stuck cells as they were"""
    real: Tensor
    """what they then add to their bitlines, level units, float32, or uint8 where every cell sits exactly on a level"""
    writes: int
    """of all cells together; an empty cell that is to stay so needs none"""
    rewrites: int
    """how many of them followed a read of the same cell"""


def write_in_turn(
    levels: Tensor, stuck: Tensor | None, worth: Tensor, cell: Cell, *, generator: torch.Generator, rewrites: int = 0
) -> InTurn:
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
    worths = [int(worth[place]) for place in places]
    plain = cell.model_copy(update=_UNTABULATED)
    policy = _policy(tuple(worths), plain, rewrites + 1)  # pyright: ignore[reportArgumentType]  frozen, so it hashes
    attempts = [luck(levels.shape, generator=generator) for _ in range(policy.tries)]
    exact, negative = exact_levels(cell), None
    if len(worth) == 2:
        negative = (levels[:, 1:] != 0).any(2, keepdim=True)
        levels, *attempts = (torch.where(negative, x.flip(1), x) for x in (levels, *attempts))
        stuck = None if stuck is None else torch.where(negative, stuck.flip(1), stuck)
    asked, real = levels.clone(), torch.empty(levels.shape)
    remainder = torch.zeros(levels[:, 0, 0].shape)
    working = torch.zeros(remainder.shape, dtype=torch.int32)
    for k, (side, s) in enumerate(places):
        remainder += exact[levels[:, side, s].int()] * worths[k]
        if stuck is None:
            working += 1 << k
            continue
        at = stuck[:, side, s]
        real[:, side, s] = stuck_at(at, cell)
        remainder -= torch.where(at < 0, 0.0, real[:, side, s] * worths[k])
        working += (at < 0).int() << k
    writes = again = 0
    for k, (side, s) in enumerate(places):
        level, wrote, *counts = policy.write(k, working >> k, remainder, [x[:, side, s] for x in attempts])
        writes, again = writes + counts[0], again + counts[1]
        if stuck is not None:
            works = stuck[:, side, s] < 0
            level = torch.where(works, level, levels[:, side, s])
            remainder -= torch.where(works, wrote * worths[k], 0.0)
            wrote = torch.where(works, wrote, real[:, side, s])
        else:
            remainder -= wrote * worths[k]
        asked[:, side, s], real[:, side, s] = level, wrote
    if negative is not None:
        asked, real = (torch.where(negative, x.flip(1), x) for x in (asked, real))
    return InTurn(asked, real.to(torch.uint8) if always_exact(cell) else real, writes, again)


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

    def write(self, cell: int, working: Tensor, remainder: Tensor, attempts: list[Tensor]) -> InTurn:
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
        return InTurn(level, wrote, writes + rewrites, rewrites)

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
        if len(kinds) < 2:
            return self._expected(cell, kinds[0], remainder, tries) if kinds else remainder
        following = [self._next(cell, kind, tries) for kind in kinds]
        tables = [table for _, table in following]
        start, edge = (
            self._by_kind(cell, kinds, values)[working]
            for values in (_starts(tables), torch.tensor([edge for edge, _ in following]))
        )
        return _interpolated(torch.cat(tables), start, edge, remainder)

    def table(self, cell: int, working: int, tries: int) -> tuple[Tensor, Tensor]:
        """Expected square of what is left in the end, float32, and the level of the cell that makes it so.

        Both by remainder, from minus to plus ``edges[cell]`` in steps of `STEP`; the last square is there twice.
        """
        key = cell, working, tries
        if key not in self.tables:
            self.tables[key] = self._tabulate(*key)
        return self.tables[key]

    def _tabulate(self, cell: int, working: int, tries: int) -> tuple[Tensor, Tensor]:
        edge = self.edges[cell]
        remainder = torch.linspace(-edge, edge, round(2 * edge / STEP) + 1)
        again = None if tries == 1 else self.table(cell, working, tries - 1)[0][:-1, None] + GAIN
        choices: list[Tensor] = []
        for level in self.samples:
            values, shares = (level[:1], torch.ones(1)) if level[0] == level[-1] else (level, self.shares)
            rest = remainder[:, None] - self.worth[cell] * values
            kept = self._expected(cell + 1, working >> 1, rest, self.tries)
            choices.append(((kept if again is None else torch.minimum(kept, again)) * shares).sum(1))
        left, level = torch.stack(choices).min(0)
        return torch.cat([left, left[-1:]]), level.to(torch.uint8)

    def _expected(self, cell: int, working: int, remainder: Tensor, tries: int) -> Tensor:
        """Expected square of what is left in the end where the same cells of all weights work."""
        edge, table = self._next(cell, working, tries)
        return _interpolated(table, 0, torch.tensor(edge), remainder)

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


def _interpolated(table: Tensor, start: Tensor | int, edge: Tensor, remainder: Tensor) -> Tensor:
    """Look squares up between minus and plus `edge`; outside of a table nothing more can be made up for."""
    outside = (remainder.abs() - edge).clamp_(min=0)
    place = (remainder.clamp(-edge, edge) + edge) / STEP
    low = place.int()
    place -= low
    low = (low + start).flatten()
    below, above = (table.index_select(0, at).view(place.shape) for at in (low, low + 1))
    inside = torch.lerp(below, above, place)
    return (inside.sqrt_() + outside).square_()


@lru_cache(maxsize=8)
def _policy(worth: tuple[int, ...], cell: Cell, tries: int) -> Policy:
    return Policy(worth, cell, tries)
