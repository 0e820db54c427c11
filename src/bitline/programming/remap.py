"""Where and how the columns of a layer are written on a chip whose stuck cells are known.

A kernel may take another column, and a column may hold its weights with the other sign; the digital side reads results
in the order of the kernels, and turns their sign again. Which of both errs least is an assignment problem: the expected
squared error of a result, given the stuck cells of each column, is minimized over all kernels of a layer together.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from bitline.chip.formats import Offset, Pair
from bitline.mapping.encode import slice_weights
from bitline.mapping.place import LayerPlacement
from bitline.physics import kernels as loops
from bitline.programming.residual import residuals

MEAN_SQUARE = 0.159, 0.341
"""squared mean and variance of an input that is not negative: 1 / (2 pi) and 1/2 - 1 / (2 pi) of a rectified normal"""
SIGNED = 0.0, 1.0
"""the same of one that is"""


@dataclass(frozen=True)
class Arrangement:
    """Which column each kernel takes, and which are written with the other sign.

    Args:
        order: column of each kernel, (merged groups, cols) int64.
        flipped: (groups, cols) bool, by kernel.
    """

    order: Tensor
    flipped: Tensor

    def onto(self, kernels: Tensor) -> Tensor:
        """Sort what belongs to kernels, (groups, ..., cols), by column."""
        return self._take(kernels, self.order.argsort(1))

    def back(self, columns: Tensor) -> Tensor:
        """Sort what belongs to columns, (groups, ..., cols), by kernel."""
        return self._take(columns, self.order)

    @staticmethod
    def _take(x: Tensor, index: Tensor) -> Tensor:
        index = index.view(len(index), *[1] * (x.dim() - 2), -1)
        return x.gather(-1, index.expand(*x.shape[:-1], index.shape[-1]))


def flip(levels: Tensor, flipped: Tensor, placement: LayerPlacement) -> Tensor:
    """Return levels with some columns written with the other sign.

    Args:
        levels: integers, (groups, sides, slices, rows, cols).
        flipped: (groups, cols) bool.
        placement: of the layer.
    """
    chip = placement.chip
    if isinstance(chip.weights.encoding, Pair):
        other = levels.flip(1)
    else:
        other = tops(placement).to(levels)[:, None, None] - levels
    return torch.where(flipped[:, None, None, None, :], other, levels)


def tops(placement: LayerPlacement) -> Tensor:
    """Highest level that each slice uses, int64, (slices,); a sign cell uses two."""
    chip = placement.chip
    weights = slice_weights(chip)
    return torch.tensor([1 if weight < 0 else chip.cell.max_level for weight in weights])


def arrange(targets: Tensor, stuck: Tensor | None, placement: LayerPlacement) -> Arrangement | None:
    """Find the arrangement of a layer that errs least with the stuck cells of one chip.

    Kernels keep to their column tile where its row tiles or reference columns differ from those of others.

    Args:
        targets: levels, (groups, sides, slices, rows, stored columns).
        stuck: -1 where a cell works, else its level, the same shape; None where all work.
        placement: of the layer.

    Returns:
        None where nothing is to be arranged.
    """
    mitigation, merged = placement.chip.mitigation, placement.merged
    if stuck is None or not mitigation.arranges:
        return None
    cols, bounds = merged.matmul.cols, merged.col_bounds
    if not (merged.absent or merged.chip.reference_columns):
        bounds = (0, cols)
    order = torch.arange(cols).repeat(len(targets), 1)
    flipped = torch.zeros(order.shape, dtype=torch.bool)
    tiles = [(group, a, b) for group in range(len(targets)) for a, b in pairwise(bounds)]
    errors = [_errors(targets[group, ..., a:b], stuck[group, ..., a:b], placement) for group, a, b in tiles]
    shared = float(torch.cat([total.diagonal() for total, _ in errors]).mean())
    for (group, a, b), (total, power) in zip(tiles, errors, strict=True):
        cost = _cost(total, power, placement, shared)
        better = torch.zeros(cost.shape, dtype=torch.bool)
        if mitigation.flip:
            turned = flip(targets[group, None, ..., a:b], torch.ones(1, b - a, dtype=torch.bool), placement)[0]
            total, power = _errors(turned, stuck[group, ..., a:b], placement)
            other = _cost(-total, power, placement, shared)
            better, cost = other < cost, torch.minimum(other, cost)
        columns = _assigned(cost) if mitigation.remap else torch.arange(b - a)
        order[group, a:b] = a + columns
        flipped[group, a:b] = better.gather(1, columns[:, None])[:, 0]
    return Arrangement(order, flipped)


def _assigned(cost: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment

    return torch.from_numpy(linear_sum_assignment(cost.numpy())[1]).long()


def _correction(placement: LayerPlacement) -> str:
    encoding = placement.chip.weights.encoding
    return encoding.correction if isinstance(encoding, Offset) else "none"


def _cost(total: Tensor, power: Tensor, placement: LayerPlacement, shared: float) -> Tensor:
    """Expected squared error of every kernel on every column, float64, (kernels, columns).

    With e the error of a weight, that is variance * sum(e^2) + (mean * sum(e))^2 over independent inputs. Not counted
    is what all kernels share, which moves all results of a layer alike, and what a digital correction takes away: the
    mean of e over the layer, or over each row tile.

    Args:
        total: sum of errors, weight units, (kernels, columns).
        power: sum of squares of errors, less what a correction takes away, the same shape.
        placement: of the layer.
        shared: mean over all kernels of the layer, each on its own column, of the sum of its errors.
    """
    squared_mean, variance = SIGNED if placement.merged.matmul.signed else MEAN_SQUARE
    match _correction(placement):
        case "measured":
            return variance * power
        case "expected":
            moved = total - total.mean()
        case _:
            moved = total - shared
    return variance * power + squared_mean * moved.square()


def _errors(kernels: Tensor, stuck: Tensor, placement: LayerPlacement) -> tuple[Tensor, Tensor]:
    """Sum of errors over all rows, and of their squares less what a correction takes away, (kernels, columns).

    Args:
        kernels: levels, (sides, slices, rows, kernels).
        stuck: of columns, -1 where a cell works, (sides, slices, rows, columns).
        placement: of the layer.
    """
    measured = _correction(placement) == "measured"
    if loops.native:
        return _summed(kernels, stuck, placement, measured=measured)
    power = total = torch.zeros(())
    for a, b in pairwise(placement.merged.row_bounds):
        first, second = _tile_errors(kernels[:, :, a:b], stuck[:, :, a:b], placement)
        total = total + first
        power = power + (second - first.square() / (b - a) if measured else second)
    return total, power


def _summed(kernels: Tensor, stuck: Tensor, placement: LayerPlacement, *, measured: bool) -> tuple[Tensor, Tensor]:
    """Do the same as `_errors` in loops; sums are whole numbers, so that their order changes nothing."""
    tables, rows = residuals(placement.chip), kernels.shape[2]
    bounds = placement.merged.row_bounds if measured else (0, rows)
    tallest = max(b - a for a, b in pairwise(bounds))
    parts: list[tuple[Tensor, Tensor]] = []
    for columns in stuck.split(tables.columns_at_once(rows), -1):
        table, patterns, values = tables.errors(kernels, columns)
        shape = kernels.shape[3], columns.shape[3]
        total, power = torch.empty(shape, dtype=torch.float64), torch.empty(shape, dtype=torch.float64)
        narrow = tallest * float(table.abs().max()) ** 2 < 2**31
        loops.native.errors(table.contiguous(), patterns, values, bounds, measured, narrow, total, power)
        parts.append((total, power))
    total, power = (torch.cat(x, 1) for x in zip(*parts, strict=True))
    return total, power


def _tile_errors(kernels: Tensor, stuck: Tensor, placement: LayerPlacement) -> tuple[Tensor, Tensor]:
    """Sum and sum of squares over rows of what stuck cells do to weights, float64, both (kernels, columns).

    Where the mitigation makes up for them, what the nearest value still errs by is what counts.
    """
    tables = residuals(placement.chip)
    first = torch.empty(kernels.shape[3], stuck.shape[3], dtype=torch.float64)
    second = torch.empty_like(first)
    width = tables.columns_at_once(kernels.shape[2])
    for start in range(0, stuck.shape[3], width):
        table, patterns, values = tables.errors(kernels, stuck[..., start : start + width])
        for column, pattern in enumerate(patterns.T, start):
            wrong = table[pattern].gather(1, values)  # (rows, kernels)
            first[:, column] = wrong.sum(0, dtype=torch.float64)
            second[:, column] = wrong.square().sum(0, dtype=torch.float64)
    return first, second
