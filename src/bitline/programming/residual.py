"""What stuck cells leave of each weight's error, for every pattern of stuck cells and every weight at once."""

from functools import lru_cache

import torch
from torch import Tensor

from bitline.chip.description import Chip
from bitline.mapping.encode import slice_weights
from bitline.physics import kernels as loops
from bitline.programming.nearest import WORKS, cell_states, nearest_levels

_MOST = 2**21
"""entries of a table: enough for all patterns of eight cells and weights of eight bits"""


class Residuals:
    """Errors of weights by pattern of stuck cells and by what is to be written, found where asked for and kept.

    Args:
        factors: what each slice of a weight weighs, least significant first.
        sides: on which a weight has cells.
        top: highest level of a cell.
        values: that a weight may have.
        mended: working cells make up for stuck ones.
    """

    def __init__(self, factors: tuple[int, ...], sides: int, top: int, values: int, *, mended: bool) -> None:
        self.factors, self.top, self.count, self.mended = factors, top, values, mended
        self.worth = torch.tensor([factors, [-f for f in factors]][:sides])
        cells = torch.arange(self.worth.numel()).view(self.worth.shape)
        self.place, self.digit = 3**cells, (self.top + 1) ** cells
        self.patterns = self.values = torch.empty(0, dtype=torch.int64)
        self.table = torch.empty(0, 0)

    def columns_at_once(self, rows: int) -> int:
        """How many columns of so many rows surely fit the table."""
        return _MOST if 3 ** self.worth.numel() * self.count <= _MOST else max(1, _MOST // (rows * self.count))

    def states_of(self, stuck: Tensor) -> Tensor:
        """Number the patterns of stuck cells, (groups, sides, slices, rows, columns): (groups, rows, columns).

        Its digits to base 3 are the states of a weight's cells, see `bitline.programming.nearest`.
        """
        if loops.native and self._small(3):
            codes = torch.empty(stuck.shape[0], *stuck.shape[3:], dtype=torch.int32)
            loops.native.states(stuck.contiguous(), stuck.shape[0], self.worth.numel(), codes)
            return codes
        return self._coded(cell_states(stuck), 3)

    def values_of(self, levels: Tensor) -> Tensor:
        """Number what is to be written, levels as `states_of` has states; its digits are levels."""
        if loops.native and self._small(self.top + 1):
            codes = torch.empty(levels.shape[0], *levels.shape[3:], dtype=torch.int32)
            loops.native.values(levels.contiguous(), levels.shape[0], self.worth.numel(), self.top + 1, codes)
            return codes
        return self._coded(levels, self.top + 1)

    def _small(self, base: int) -> bool:
        return base ** self.worth.numel() < 2**31

    def _coded(self, digits: Tensor, base: int) -> Tensor:
        codes = torch.zeros(digits.shape[0], *digits.shape[3:], dtype=torch.int32 if self._small(base) else torch.int64)
        for cell, digit in enumerate(digits.flatten(1, 2).unbind(1)):
            codes.add_(digit, alpha=base**cell)
        return codes

    def errors(self, states: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a table of errors, weight units, float32, and where in it weights and cells are.

        Args:
            states: from `states_of`, (rows, columns).
            wanted: from `values_of`, (rows, kernels).

        Returns:
            (patterns, values); the pattern of each cell position, int32, (rows, columns); the value of each weight,
            int32, (rows, kernels).
        """
        self._add(_present(states), _present(wanted))
        return self.table, _found(self.patterns, states), _found(self.values, wanted)

    def _add(self, patterns: Tensor, values: Tensor) -> None:
        """Find the errors that the table lacks."""
        if len(self.patterns) * len(self.values) > _MOST:
            self.patterns, self.values, self.table = self.patterns[:0], self.values[:0], torch.empty(0, 0)
        values = values[~torch.isin(values, self.values)]
        if len(values):
            errors = self._errors_of(self.patterns, values)
            self.values, order = torch.cat([self.values, values]).sort()
            self.table = torch.cat([self.table, errors], 1)[:, order]
        patterns = patterns[~torch.isin(patterns, self.patterns)]
        if len(patterns):
            errors = self._errors_of(patterns, self.values)
            self.patterns, order = torch.cat([self.patterns, patterns]).sort()
            self.table = torch.cat([self.table.view(-1, len(self.values)), errors])[order]

    def _errors_of(self, patterns: Tensor, values: Tensor) -> Tensor:
        """Errors of weights under patterns of stuck cells, (patterns, values)."""
        states = patterns[:, None, None] // self.place % 3  # (patterns, sides, slices)
        levels = (values // self.digit[..., None] % (self.top + 1)).to(torch.uint8)  # (sides, slices, values)
        stuck = torch.where(states == WORKS, -1, (states - 1) * self.top).to(torch.int16)
        shape = (1, *self.worth.shape, len(patterns), levels.shape[-1])
        stuck = stuck.permute(1, 2, 0)[None, ..., None].expand(shape)
        wanted = levels = levels[None, ..., None, :].expand(shape)
        if self.mended and stuck.numel():
            wanted = nearest_levels(levels, stuck, self.factors, self.top)
        wrong = torch.where(stuck >= 0, stuck, wanted).int() - levels.int()
        return torch.einsum("gksrc,ks->rc", wrong.float(), self.worth.float())


def _present(codes: Tensor) -> Tensor:
    """All different codes, rising, int64."""
    if codes.numel() and int(codes.max()) < _MOST:
        return torch.bincount(codes.flatten()).nonzero().flatten()
    return codes.unique().long()


def _found(sorted_codes: Tensor, codes: Tensor) -> Tensor:
    """Index of each code among sorted ones, int32, the shape of `codes`."""
    if not len(sorted_codes) or int(sorted_codes[-1]) >= _MOST:
        return torch.searchsorted(sorted_codes, codes.long()).int()
    index = torch.zeros(int(sorted_codes[-1]) + 1, dtype=torch.int32)
    index[sorted_codes] = torch.arange(len(sorted_codes), dtype=torch.int32)
    return index.index_select(0, codes.flatten()).view(codes.shape)


_kept = lru_cache(maxsize=8)(Residuals)


def residuals(chip: Chip) -> Residuals:
    """Return the errors of a chip's weights, those found before included."""
    mended = chip.mitigation.nearest or chip.mitigation.readback
    return _kept(slice_weights(chip), chip.sides, chip.cell.max_level, 2**chip.weights.bits, mended=mended)
