"""The mean error of cells, taken out of results by the digital sum that subtracts Z sum(x).

With offset columns y = sum(x u) - Z sum(x). Cells that err by e on the mean give sum(x e) too much, of which
mean(e) sum(x) needs no more than a sum of inputs that the digital side forms anyway. Our reconstruction of
"self-compensation" (CRIMP, ACM TECS 2023, of which this part is not public).
"""

from itertools import pairwise

import torch
from torch import Tensor

from bitline.chip.cell import Cell
from bitline.chip.formats import Offset
from bitline.mapping.empty import built
from bitline.mapping.encode import slice_weights
from bitline.mapping.place import LayerPlacement
from bitline.physics.program import mean_levels
from bitline.physics.steps import in_levels

STEP = 2.0**-Offset.CORRECTION_BITS
"""of a correction, weight units: a fixed-point number, so that corrections add up in doubles without rounding"""
_EXACT_IN_FLOAT = 2**24


def correction(effective: Tensor, levels: Tensor, placement: LayerPlacement, cell: Cell) -> Tensor | None:
    """Return the mean error of a layer's cells that its digital sum corrects for.

    ``expected``: one number, from the programming model, the fault rates and the levels that the layer asks for.
    ``measured``: what a read with all wordlines driven, by an ADC that rounds to whole levels, gives too much in each
    column and row tile, over the number of wordlines.

    Args:
        effective: what each cell adds to its bitline, (groups, 1, slices, rows, cols) of merged groups, as
            `bitline.physics.steps.keep` does.
        levels: that the cells were given, integers, the same shape.
        placement: of the layer.
        cell: the memory element as it was written.

    Returns:
        Weight units, whole multiples of `STEP`, float64, (row tiles or 1, merged groups or 1, cols or 1); None where
        the chip corrects nothing or there is nothing to correct.
    """
    encoding = placement.chip.weights.encoding
    if not isinstance(encoding, Offset) or encoding.correction == "none" or not cell.errs:
        return None
    there = built(placement.merged)
    if encoding.correction == "expected":
        mean = _expected(levels, placement, cell, there)
    else:
        mean = _measured(effective.cpu(), levels, placement)
    if there is not None:
        mean = mean * there
    mean = torch.round(mean / STEP) * STEP
    return mean if bool(mean.any()) else None


def _expected(levels: Tensor, placement: LayerPlacement, cell: Cell, there: Tensor | None) -> Tensor:
    """Mean error of all cells, weighed by slice, (1, 1, 1)."""
    error = mean_levels(cell) - torch.arange(cell.max_level + 1, dtype=torch.float64)
    present: Tensor | None = None
    if there is not None:
        heights = torch.tensor([b - a for a, b in pairwise(placement.merged.row_bounds)])
        present = there.repeat_interleave(heights, 0).transpose(0, 1)  # (groups, rows, cols)
    total = torch.zeros((), dtype=torch.float64)
    for s, weight in enumerate(slice_weights(placement.chip)):
        of_slice = levels[:, 0, s] if present is None else levels[:, 0, s][present]
        counts = torch.bincount(of_slice.flatten().int(), minlength=len(error)).double()
        total += weight * (counts * error).sum() / counts.sum().clamp(min=1)
    return total.view(1, 1, 1)


def _measured(effective: Tensor, levels: Tensor, placement: LayerPlacement) -> Tensor:
    """Mean error of each column and row tile, weighed by slice, (row tiles, groups, cols)."""
    weights = torch.tensor(slice_weights(placement.chip), dtype=torch.float64)
    tiles: list[Tensor] = []
    for a, b in pairwise(placement.merged.row_bounds):
        read = in_levels(effective[:, 0, :, a:b]).sum(2, dtype=torch.float64).round()
        wanted = levels[:, 0, :, a:b].sum(2, dtype=torch.float64)
        tiles.append(torch.einsum("gsc,s->gc", read - wanted, weights) / (b - a))
    return torch.stack(tiles)
