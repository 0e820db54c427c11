"""Cells of a weight written in turn, the most significant first: each is read back, and the next ones make up for it.

That later cells compensate the programming errors of earlier ones is the protocol of W. Song et al., "Programming
memristor arrays with arbitrarily high precision for analog computing", Science 383, 2024, doi:10.1126/science.adi9405.
Which level a cell is asked to take is ours: the one that makes the expected square of the weight's error least, given
what has been read and which of its cells are stuck, found by dynamic programming. A read back is taken as exact, and
which cells are stuck as known before anything is written.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from bitline.chip.cell import Cell, Faults, NoReadNoise
from bitline.physics.program import always_exact, exact_levels, luck, outcomes, reached, stuck_at

STEP = 0.25
"""between the remainders that are tabulated, weight units"""
GAIN = 1.0
"""what another write of a cell must take away of the expected square error of the weight, square weight units"""
_EDGES = tuple(0.4 * k for k in range(-8, 9))
"""of the bins that outcomes of a write are put in, standard deviations; each stands for its mean"""
_UNTABULATED = {"faults": Faults(), "read_noise": NoReadNoise(), "access_resistance": 0.0}
"""of a cell, what tables do not depend on"""


class InTurn(NamedTuple):
    """Weights that were written cell by cell."""

    asked: Tensor
    """the levels that cells are asked to take, uint8, those of stuck cells as they were"""
    real: Tensor
    """what they then add to their bitlines, level units, float32, or uint8 where every cell sits exactly on a level"""
    first: int
    """writes that were a cell's first; an empty cell that is to stay so needs none"""
    again: int
    """all other writes"""


def write_in_turn(
    levels: Tensor,
    stuck: Tensor | None,
    worth: Tensor,
    cell: Cell,
    *,
    generator: torch.Generator,
    rewrites: int = 0,
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
    policy = _policy(tuple(worths), cell.model_copy(update=_UNTABULATED).model_dump_json(), rewrites + 1)
    attempts = [luck(levels.shape, generator=generator) for _ in range(rewrites + 1)]
    table, exact = outcomes(cell), exact_levels(cell)
    negative = None
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
    first = again = 0
    for k, (side, s) in enumerate(places):
        works = torch.ones_like(working, dtype=torch.bool) if stuck is None else stuck[:, side, s] < 0
        drawn = [x[:, side, s] for x in attempts]
        level, wrote, once, more = _write(policy, k, works, working >> k, remainder, drawn, table)
        first, again = first + once, again + more
        if stuck is not None:
            level = torch.where(works, level, levels[:, side, s])
            remainder -= torch.where(works, wrote * worths[k], 0.0)
            wrote = torch.where(works, wrote, real[:, side, s])
        else:
            remainder -= wrote * worths[k]
        asked[:, side, s], real[:, side, s] = level, wrote
    if negative is not None:
        asked, real = (torch.where(negative, x.flip(1), x) for x in (asked, real))
    return InTurn(asked, real.to(torch.uint8) if always_exact(cell) else real, first, again)


def _write(
    policy: "Policy",
    first: int,
    works: Tensor,
    working: Tensor,
    remainder: Tensor,
    attempts: list[Tensor],
    table: Tensor,
) -> tuple[Tensor, Tensor, int, int]:
    """Write one cell of each weight, and again where it pays.

    Args:
        policy: what to ask for.
        first: the cell, in the order of writing.
        works: whether it does, bool, any shape.
        working: bit k is set where cell `first` + k works, int32, the same shape.
        remainder: what is left to write, weight units, the same shape.
        attempts: the luck of each write, the same shape.
        table: from `bitline.physics.program.outcomes`.

    Returns:
        Levels asked for, uint8, and reached, float32, of no meaning where the cell does not work; how many cells were
        written, and how many writes more that took.
    """
    level = policy.levels(first, working, remainder, policy.tries)
    wrote = reached(level, attempts[0], table)
    once, more = int((level.bool() & works).sum()), 0
    where = works.flatten().nonzero().flatten()
    for number, drawn in enumerate(attempts[1:], 1):
        kind, left, real = (x.view(-1).index_select(0, where) for x in (working, remainder, wrote))
        kept = policy.left(first + 1, kind >> 1, left - real * policy.worth[first], policy.tries)
        poor = (kept > GAIN).nonzero().flatten()
        where, kind, left, kept = (x[poor] for x in (where, kind, left, kept))
        pays = (policy.left(first, kind, left, policy.tries - number) + GAIN < kept).nonzero().flatten()
        where, kind, left = (x[pays] for x in (where, kind, left))
        asked = policy.levels(first, kind, left, policy.tries - number)
        level.view(-1)[where] = asked
        wrote.view(-1)[where] = reached(asked, drawn.flatten()[where], table)
        more += len(where)
    return level, wrote, once, more


class Policy:
    """Which level to ask of each cell of a weight, for all that may be left to write and whatever cells work.

    Args:
        worth: of one level of each cell in the order of writing, weight units, with its sign.
        cell: the memory element.
        tries: how often each cell may be written.
    """

    def __init__(self, worth: tuple[int, ...], cell: Cell, tries: int = 1) -> None:
        self.worth, self.tries = worth, tries
        ranked = outcomes(cell).sort(1).values
        ends = (torch.special.ndtr(torch.tensor(_EDGES)) * ranked.shape[1]).round().int().tolist()
        bins = ranked.tensor_split(ends, 1)
        self.samples = torch.stack([part.mean(1) for part in bins], 1)
        """(levels, bins)"""
        self.shares = torch.tensor([part.shape[1] / ranked.shape[1] for part in bins])
        top = float(exact_levels(cell).max())
        self.edges = [2 * top * sum(map(abs, worth[first:])) for first in range(len(worth))]
        self.tables: dict[tuple[int, int, int], tuple[Tensor, Tensor]] = {}

    def levels(self, first: int, working: Tensor, remainder: Tensor, tries: int) -> Tensor:
        """Return the level to ask of a cell, uint8; any where it does not work.

        Args:
            first: the cell, from 0, in the order of writing.
            working: bit k is set where cell `first` + k works, int32.
            remainder: what is left to write, weight units, the same shape.
            tries: how often the cell may still be written.
        """
        kinds = [kind for kind in self._kinds(first, working) if kind & 1]
        if not kinds:
            return torch.zeros_like(working, dtype=torch.uint8)
        tables = [self.table(first, kind, tries)[1] for kind in kinds]
        place = self._place(first, remainder).round_().int()
        if len(kinds) > 1:
            start = torch.zeros(2 ** (len(self.worth) - first), dtype=torch.int32)
            start[kinds] = torch.arange(len(kinds), dtype=torch.int32) * len(tables[0])
            place += start[working]
        return torch.cat(tables).index_select(0, place.flatten()).view(place.shape)

    def left(self, first: int, working: Tensor, remainder: Tensor, tries: int) -> Tensor:
        """Expected square of what is left in the end, float32; arguments as of `levels`, whatever cells work."""
        kinds = self._kinds(first, working)
        if len(kinds) < 2:
            return self._expected(first, kinds[0], remainder, tries) if kinds else remainder
        found = [self._next(first, kind, tries) for kind in kinds]
        tables = torch.cat([table for _, table in found])
        count = 2 ** (len(self.worth) - first)
        start, edge = torch.zeros(count, dtype=torch.int32), torch.zeros(count)
        edge[kinds] = torch.tensor([edge for edge, _ in found])
        start[kinds] = torch.tensor([0, *(len(table) for _, table in found[:-1])]).cumsum(0).int()
        edge = edge.index_select(0, working)
        outside = (remainder.abs() - edge).clamp_(min=0)
        place = torch.minimum(((remainder + edge) / STEP).clamp_(min=0), 2 * edge / STEP)
        low = place.int()
        place -= low
        low += start.index_select(0, working)
        inside = torch.lerp(tables.index_select(0, low), tables.index_select(0, low + 1), place)
        return (inside.sqrt_() + outside).square_()

    def _kinds(self, first: int, working: Tensor) -> list[int]:
        """Which cells work, of all patterns that there are."""
        count = 2 ** (len(self.worth) - first)
        return torch.bincount(working.flatten(), minlength=count).nonzero().flatten().tolist()

    def table(self, first: int, working: int, tries: int) -> tuple[Tensor, Tensor]:
        """Expected square of what is left in the end, float32, and the level of the cell that makes it so.

        Both by remainder, from minus to plus ``edges[first]`` in steps of `STEP`.
        """
        key = first, working, tries
        if key not in self.tables:
            self.tables[key] = self._made(*key)
        return self.tables[key]

    def _made(self, first: int, working: int, tries: int) -> tuple[Tensor, Tensor]:
        edge = self.edges[first]
        remainder = torch.linspace(-edge, edge, int(2 * edge / STEP) + 1)
        again = None if tries == 1 else self.table(first, working, tries - 1)[0][:, None] + GAIN
        choices: list[Tensor] = []
        for level in self.samples:
            values, shares = (level[:1], torch.ones(1)) if level[0] == level[-1] else (level, self.shares)
            rest = remainder[:, None] - self.worth[first] * values
            kept = self._expected(first + 1, working >> 1, rest, self.tries)
            choices.append(((kept if again is None else torch.minimum(kept, again)) * shares).sum(1))
        left, level = torch.stack(choices).min(0)
        return left, level.to(torch.uint8)

    def _expected(self, first: int, working: int, remainder: Tensor, tries: int) -> Tensor:
        """Expected square of what is left in the end; outside of a table nothing more can be made up for."""
        edge, table = self._next(first, working, tries)
        place = ((remainder + edge) / STEP).clamp_(0, 2 * edge / STEP)
        low = place.int()
        inside = torch.lerp(table[low], table[low + 1], place - low)
        return (inside.sqrt_() + (remainder.abs() - edge).clamp_(min=0)).square_()

    def _next(self, first: int, working: int, tries: int) -> tuple[float, Tensor]:
        """Edge and table of the first cell that works from `first` on, the last entry twice; 0 where none does."""
        while working and not working & 1:
            first, working = first + 1, working >> 1
        table = self.table(first, working, tries)[0] if working else torch.zeros(1)
        return (self.edges[first] if working else 0.0), torch.cat([table, table[-1:]])

    def _place(self, first: int, remainder: Tensor) -> Tensor:
        edge = self.edges[first]
        return ((remainder + edge) / STEP).clamp(0, int(2 * edge / STEP))


@lru_cache(maxsize=8)
def _policy(worth: tuple[int, ...], cell: str, tries: int) -> Policy:
    return Policy(worth, Cell.model_validate_json(cell), tries)
