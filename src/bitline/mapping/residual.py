"""What stuck cells leave of each weight's error, for every pattern of stuck cells and every weight at once."""

from functools import lru_cache

import torch
from torch import Tensor

from bitline.mapping.encode import worth
from bitline.mapping.layer import LayerPlacement
from bitline.mapping.nearest import WORKS, cell_states, nearest_levels

_MOST = 2**21
"""entries of a table: enough for all patterns of eight cells and weights of eight bits"""


class Residuals:
    """Errors of weights by pattern of stuck cells and by what is to be written, found where asked for and kept.

    Args:
        placement: of a layer; others of the same chip find the same.
    """

    def __init__(self, placement: LayerPlacement) -> None:
        chip = placement.chip
        self.placement, self.top = placement, chip.cell.max_level
        self.worth = worth(chip)
        cells = torch.arange(self.worth.numel()).view(self.worth.shape)
        self.place, self.digit = 3**cells, (self.top + 1) ** cells
        self.patterns = self.values = torch.empty(0, dtype=torch.int64)
        self.levels = torch.empty(*self.worth.shape, 0, dtype=torch.uint8)
        self.table = torch.empty(0, 0)

    def columns_at_once(self, rows: int) -> int:
        """How many columns of so many rows surely fit the table."""
        weights = 2**self.placement.chip.weights.bits
        return _MOST if 3 ** self.worth.numel() * weights <= _MOST else max(1, _MOST // (rows * weights))

    def errors(self, kernels: Tensor, stuck: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a table of errors, weight units, float32, and where in it weights and cells are.

        Args:
            kernels: levels, (sides, slices, rows, kernels).
            stuck: -1 where a cell works, else its level, (sides, slices, rows, columns).

        Returns:
            (patterns, values); the pattern of each cell position, (rows, columns); the value of each weight, (rows,
            kernels).
        """
        codes = torch.einsum("ksrc,ks->rc", cell_states(stuck), self.place)
        written = torch.einsum("ksrc,ks->rc", kernels.long(), self.digit)
        self._add(codes.unique(), written.unique(), kernels.flatten(2), written.flatten())
        return self.table, torch.searchsorted(self.patterns, codes), torch.searchsorted(self.values, written)

    def _add(self, patterns: Tensor, values: Tensor, kernels: Tensor, written: Tensor) -> None:
        """Find the errors that the table lacks."""
        if len(self.patterns) * len(self.values) > _MOST:
            self.patterns, self.values = self.patterns[:0], self.values[:0]
            self.levels, self.table = self.levels[..., :0], torch.empty(0, 0)
        values = values[~torch.isin(values, self.values)]
        if len(values):
            order = written.argsort(stable=True)
            first = order[torch.searchsorted(written[order], values)]
            found = self._found(self.patterns, kernels[..., first])
            self.values, order = torch.cat([self.values, values]).sort()
            self.levels = torch.cat([self.levels, kernels[..., first]], -1)[..., order]
            self.table = torch.cat([self.table, found], 1)[:, order]
        patterns = patterns[~torch.isin(patterns, self.patterns)]
        if len(patterns):
            found = self._found(patterns, self.levels)
            self.patterns, order = torch.cat([self.patterns, patterns]).sort()
            self.table = torch.cat([self.table.view(-1, len(self.values)), found])[order]

    def _found(self, patterns: Tensor, levels: Tensor) -> Tensor:
        """Errors of weights, (sides, slices, values), under patterns, (patterns, values)."""
        states = patterns[:, None, None] // self.place % 3  # (patterns, sides, slices)
        stuck = torch.where(states == WORKS, -1, (states - 1) * self.top).to(torch.int8)
        shape = (1, *self.worth.shape, len(patterns), levels.shape[-1])
        stuck = stuck.permute(1, 2, 0)[None, ..., None].expand(shape)
        wanted = levels = levels[None, ..., None, :].expand(shape)
        mitigation = self.placement.chip.mitigation
        if (mitigation.nearest or mitigation.readback) and stuck.numel():
            wanted = nearest_levels(levels, stuck, self.placement)
        wrong = torch.where(stuck >= 0, stuck, wanted).int() - levels.int()
        return torch.einsum("gksrc,ks->rc", wrong.float(), self.worth.float())


@lru_cache(maxsize=8)
def _kept(key: str) -> list[Residuals]:
    return []


def residuals(placement: LayerPlacement) -> Residuals:
    """Return the errors of a chip's weights, those found before included."""
    chip = placement.chip
    key = f"{chip.weights!r} {chip.cell.bits} {chip.sides} {chip.mitigation.nearest or chip.mitigation.readback}"
    kept = _kept(key)
    if not kept:
        kept.append(Residuals(placement))
    return kept[0]
