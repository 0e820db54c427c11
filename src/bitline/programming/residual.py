"""What stuck cells leave of each weight's error, for every pattern of stuck cells and every weight at once."""

from functools import lru_cache

import torch
from torch import Tensor

from bitline.chip.description import Chip
from bitline.mapping.encode import slice_weights
from bitline.programming.nearest import WORKS, nearest_levels

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
        self.levels = torch.empty(*self.worth.shape, 0, dtype=torch.uint8)
        self.table = torch.empty(0, 0)

    def columns_at_once(self, rows: int) -> int:
        """How many columns of so many rows surely fit the table."""
        return _MOST if 3 ** self.worth.numel() * self.count <= _MOST else max(1, _MOST // (rows * self.count))

    def errors(self, kernels: Tensor, stuck: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a table of errors, weight units, float32, and where in it weights and cells are.

        Args:
            kernels: levels, (sides, slices, rows, kernels).
            stuck: -1 where a cell works, else its level, (sides, slices, rows, columns).

        Returns:
            (patterns, values); the pattern of each cell position, int32, (rows, columns); the value of each weight,
            int32, (rows, kernels).
        """
        # -1 where a cell works, 0 or more: one more are the states, but that the highest level is 2
        codes = _coded(stuck.clamp(max=1) + 1, self.place, 3)
        wanted = _coded(kernels, self.digit, self.top + 1)
        self._add(_present(codes), _present(wanted), kernels.flatten(2), wanted.flatten())
        return self.table, _found(self.patterns, codes), _found(self.values, wanted)

    def _add(self, patterns: Tensor, values: Tensor, kernels: Tensor, wanted: Tensor) -> None:
        """Find the errors that the table lacks."""
        if len(self.patterns) * len(self.values) > _MOST:
            self.patterns, self.values = self.patterns[:0], self.values[:0]
            self.levels, self.table = self.levels[..., :0], torch.empty(0, 0)
        values = values[~torch.isin(values, self.values)]
        if len(values):
            order = wanted.argsort(stable=True)
            first = order[torch.searchsorted(wanted[order], values)]
            errors = self._errors_of(self.patterns, kernels[..., first])
            self.values, order = torch.cat([self.values, values]).sort()
            self.levels = torch.cat([self.levels, kernels[..., first]], -1)[..., order]
            self.table = torch.cat([self.table, errors], 1)[:, order]
        patterns = patterns[~torch.isin(patterns, self.patterns)]
        if len(patterns):
            errors = self._errors_of(patterns, self.levels)
            self.patterns, order = torch.cat([self.patterns, patterns]).sort()
            self.table = torch.cat([self.table.view(-1, len(self.values)), errors])[order]

    def _errors_of(self, patterns: Tensor, levels: Tensor) -> Tensor:
        """Errors of weights, (sides, slices, values), under patterns, (patterns, values)."""
        states = patterns[:, None, None] // self.place % 3  # (patterns, sides, slices)
        stuck = torch.where(states == WORKS, -1, (states - 1) * self.top).to(torch.int8)
        shape = (1, *self.worth.shape, len(patterns), levels.shape[-1])
        stuck = stuck.permute(1, 2, 0)[None, ..., None].expand(shape)
        wanted = levels = levels[None, ..., None, :].expand(shape)
        if self.mended and stuck.numel():
            wanted = nearest_levels(levels, stuck, self.factors, self.top)
        wrong = torch.where(stuck >= 0, stuck, wanted).int() - levels.int()
        return torch.einsum("gksrc,ks->rc", wrong.float(), self.worth.float())


def _coded(digits: Tensor, weights: Tensor, base: int) -> Tensor:
    """Numbers of digits to a base, (sides, slices, rows, columns), which weigh (sides, slices); int32 if they fit."""
    small = base ** weights.numel() < 2**31
    codes = torch.zeros(digits.shape[2:], dtype=torch.int32 if small else torch.int64)
    for digit, weight in zip(digits.flatten(0, 1), weights.flatten().tolist(), strict=True):
        codes.add_(digit, alpha=weight)
    return codes


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
