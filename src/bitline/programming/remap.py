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
from bitline.chip.mitigation import Mitigation
from bitline.extras import need
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

    def onto(self, levels: Tensor, placement: LayerPlacement) -> Tensor:
        """Levels by kernel, (groups, sides, slices, rows, stored columns), as columns are to have them."""
        kernel = self.order.argsort(1)
        return moved(levels, kernel, self.flipped.gather(1, kernel), placement)

    def back(self, cells: Tensor, placement: LayerPlacement) -> Tensor:
        """What cells hold, column by column, by kernel; sides of a pair that were exchanged again as they were."""
        pair = isinstance(placement.chip.weights.encoding, Pair)
        return moved(cells, self.order, self.flipped & pair, placement)


def flip(levels: Tensor, flipped: Tensor, placement: LayerPlacement) -> Tensor:
    """Return levels with some columns written with the other sign.

    Args:
        levels: integers, (groups, sides, slices, rows, stored columns).
        flipped: (groups, cols) bool.
        placement: of the layer.
    """
    columns = torch.arange(flipped.shape[1]).expand(flipped.shape)
    return moved(levels, columns, flipped, placement) if bool(flipped.any()) else levels


def moved(cells: Tensor, column: Tensor, other: Tensor, placement: LayerPlacement) -> Tensor:
    """Move columns, and turn the sign of what some of them hold; stored columns behind them stay as they are.

    Args:
        cells: (groups, sides, slices, rows, stored columns).
        column: where each comes from, (groups, cols) int64.
        other: which are turned, (groups, cols) bool.
        placement: of the layer.
    """
    pair, highest = isinstance(placement.chip.weights.encoding, Pair), tops(placement)
    if loops.native and cells.dtype in (torch.uint8, torch.int16, torch.float32):
        to = torch.empty(cells.shape, dtype=cells.dtype)
        places = column.contiguous(), other.contiguous(), None if pair else highest.tolist()
        loops.native.move(cells.contiguous(), to, *places)
        return to
    cols = column.shape[1]
    index = column[:, None, None, None, :].expand(*cells.shape[:-1], cols)
    plain = cells[..., :cols].gather(-1, index)
    turned = plain.flip(1) if pair else highest.to(cells)[:, None, None] - plain
    return torch.cat([torch.where(other[:, None, None, None, :], turned, plain), cells[..., cols:]], -1)


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
    tiles = [(group, slice(a, b)) for group in range(len(targets)) for a, b in pairwise(bounds)]
    tables = residuals(placement.chip)
    states, wanted = tables.states_of(stuck), tables.values_of(targets)
    errors = [_errors(states[group, :, columns], wanted[group, :, columns], placement) for group, columns in tiles]
    shared = float(torch.cat([total.diagonal() for total, _ in errors]).mean())
    turned = wanted
    if mitigation.flip:
        turned = tables.values_of(flip(targets, torch.ones(order.shape, dtype=torch.bool), placement))
    for (group, columns), (total, power) in zip(tiles, errors, strict=True):
        cost = _cost(total, power, placement, shared)
        better = torch.zeros(cost.shape, dtype=torch.bool)
        if mitigation.flip:
            total, power = _errors(states[group, :, columns], turned[group, :, columns], placement)
            other = _cost(-total, power, placement, shared)
            better, cost = other < cost, torch.minimum(other, cost)
        found = _assigned(cost) if mitigation.remap else torch.arange(len(cost))
        order[group, columns] = columns.start + found
        flipped[group, columns] = better.gather(1, found[:, None])[:, 0]
    return Arrangement(order, flipped)


def check_installed(mitigation: Mitigation) -> None:
    """Refuse to remap without what finds the best assignment.

    Raises:
        ExtraError: scipy is not installed.
    """
    if mitigation.remap:
        need("mitigation.remap", "train", "scipy")


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


def _errors(states: Tensor, wanted: Tensor, placement: LayerPlacement) -> tuple[Tensor, Tensor]:
    """Sum of errors over all rows, and of their squares less what a correction takes away, (kernels, columns).

    Where the mitigation makes up for stuck cells, what the nearest value still errs by is what counts.

    Args:
        states: of the cells of columns, (rows, columns), see `Residuals.states_of`.
        wanted: values of kernels, (rows, kernels), see `Residuals.values_of`.
        placement: of the layer.

    Returns:
        float64; without what is taken away, whole numbers.
    """
    tables, measured = residuals(placement.chip), _correction(placement) == "measured"
    parts = [
        (_in_loops if loops.native else _in_tensors)(*tables.errors(columns, wanted), placement, measured=measured)
        for columns in states.split(tables.columns_at_once(len(states)), 1)
    ]
    total, power = (torch.cat(x, 1) for x in zip(*parts, strict=True))
    return total, power


def _in_tensors(
    table: Tensor, patterns: Tensor, values: Tensor, placement: LayerPlacement, *, measured: bool
) -> tuple[Tensor, Tensor]:
    """Look errors up, column by column, and add them up."""
    total, power = torch.zeros(2, values.shape[1], patterns.shape[1], dtype=torch.float64)
    for a, b in pairwise(placement.merged.row_bounds):
        for column, pattern in enumerate(patterns[a:b].T):
            wrong = table[pattern].gather(1, values[a:b].long())  # (rows, kernels)
            first, second = (x.sum(0, dtype=torch.float64) for x in (wrong, wrong.square()))
            total[:, column] += first
            power[:, column] += second - first.square() / (b - a) if measured else second
    return total, power


def _in_loops(
    table: Tensor, patterns: Tensor, values: Tensor, placement: LayerPlacement, *, measured: bool
) -> tuple[Tensor, Tensor]:
    """Do the same by loops; sums are whole numbers, so that their order changes nothing."""
    bounds = placement.merged.row_bounds if measured else (0, len(patterns))
    total, power = torch.empty(2, values.shape[1], patterns.shape[1], dtype=torch.float64)
    most = float(table.abs().max())
    sizes = max(b - a for a, b in pairwise(bounds)) * most**2 < 2**31, most < 2**10
    loops.native.errors(table.contiguous(), patterns, values, bounds, measured, *sizes, total, power)
    return total, power
