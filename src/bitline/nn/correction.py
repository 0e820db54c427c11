"""The mean error of cells, taken out of results by the digital sum that subtracts Z sum(x).

With offset columns y = sum(x u) - Z sum(x). Cells that err by e on the mean give sum(x e) too much, of which
mean(e) sum(x) needs no more than a sum of inputs that the digital side forms anyway. Our reconstruction of
"self-compensation" (CRIMP, ACM TECS 2023, of which this part is not public).
"""

from itertools import pairwise
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip.description import Cell, Offset
from bitline.mapping.empty import built
from bitline.mapping.encode import slice_weights
from bitline.mapping.lower import padded
from bitline.mapping.place import LayerPlacement
from bitline.nn.remap import tops
from bitline.physics.program import mean_levels

if TYPE_CHECKING:
    from bitline.nn.base import CrossbarLayer

STEP = 2.0**-Offset.CORRECTION_BITS
"""of a correction, weight units: a fixed-point number, so that corrections add up in doubles without rounding"""
_EXACT_IN_FLOAT = 2**24


def correction(written: Tensor, levels: Tensor, placement: LayerPlacement, cell: Cell) -> Tensor | None:
    """Return the mean error of a layer's cells that its digital sum corrects for.

    ``expected``: one number, from the programming model, the fault rates and the levels that the layer asks for.
    ``measured``: what a read with all wordlines driven, by an ADC that rounds to whole levels, gives too much in each
    column and row tile, over the number of wordlines.

    Args:
        written: what each cell adds to its bitline, level units, (groups, 1, slices, rows, cols) as wired.
        levels: that the cells were given, integers, the same shape.
        placement: of the layer.
        cell: the memory element as it was written.

    Returns:
        Weight units, whole multiples of `STEP`, float64, (row tiles or 1, groups or 1, cols or 1) as wired; None where
        the chip corrects nothing or there is nothing to correct.
    """
    encoding = placement.chip.weights.encoding
    if not isinstance(encoding, Offset) or encoding.correction == "none" or not cell.errs:
        return None
    there = built(placement.wired)
    if encoding.correction == "expected":
        found = _expected(levels, placement, cell, there)
    else:
        found = _measured(written.cpu(), levels, placement)
    if there is not None:
        found = found * there
    found = torch.round(found / STEP) * STEP
    return found if bool(found.any()) else None


def _expected(levels: Tensor, placement: LayerPlacement, cell: Cell, there: Tensor | None) -> Tensor:
    """Mean error of all cells, weighed by slice, (1, 1, 1)."""
    error = mean_levels(cell) - torch.arange(cell.max_level + 1, dtype=torch.float64)
    present: Tensor | None = None
    if there is not None:
        heights = torch.tensor([b - a for a, b in pairwise(placement.wired.row_bounds)])
        present = there.repeat_interleave(heights, 0).transpose(0, 1)  # (groups, rows, cols)
    total = torch.zeros((), dtype=torch.float64)
    for s, weight in enumerate(slice_weights(placement.chip)):
        of_slice = levels[:, 0, s] if present is None else levels[:, 0, s][present]
        counts = torch.bincount(of_slice.flatten().int(), minlength=len(error)).double()
        total += weight * (counts * error).sum() / counts.sum().clamp(min=1)
    return total.view(1, 1, 1)


def _measured(written: Tensor, levels: Tensor, placement: LayerPlacement) -> Tensor:
    """Mean error of each column and row tile, weighed by slice, (row tiles, groups, cols)."""
    weights = torch.tensor(slice_weights(placement.chip), dtype=torch.float64)
    tiles: list[Tensor] = []
    for a, b in pairwise(placement.wired.row_bounds):
        read = written[:, 0, :, a:b].sum(2, dtype=torch.float64).round()
        wanted = levels[:, 0, :, a:b].sum(2, dtype=torch.float64)
        tiles.append(torch.einsum("gsc,s->gc", read - wanted, weights) / (b - a))
    return torch.stack(tiles)


def corrected(layer: "CrossbarLayer", y: Tensor, q: Tensor, away: Tensor, wired: LayerPlacement) -> Tensor:
    """Subtract a correction from the results of a layer as it is wired.

    Args:
        layer: the layer.
        y: its products, weight x activation units, float64, (images, positions, groups, cols).
        q: the integers that were multiplied, shaped as the layer's input.
        away: from `correction`.
        wired: placement of what was multiplied.
    """
    sums = tile_sums(layer, q, wired, whole=away.shape[0] == 1).double()
    away = away.to(y.device)
    if away.shape[0] == 1:
        return y - sums * away[0]
    return y - torch.einsum("bvgt,tgc->bvgc", sums, away)


def turned(layer: "CrossbarLayer", y: Tensor, q: Tensor, flipped: Tensor, wired: LayerPlacement) -> Tensor:
    """Turn the results of columns that hold complemented levels.

    top - level in every cell of a weight makes C - w of w, with C what a weight of highest levels stands for, twice Z
    away from it; hence sum(x w) = C sum(x) - y.

    Args:
        layer: the layer.
        y: its products as wired, weight x activation units, float64, (images, positions, groups, cols).
        q: the integers that were multiplied, shaped as the layer's input.
        flipped: (groups, cols) bool.
        wired: placement of what was multiplied.
    """
    chip = wired.chip
    highest = int((tops(wired) * torch.tensor(slice_weights(chip))).sum()) - 2 * chip.weights.zero_point
    there = built(wired)
    sums = tile_sums(layer, q, wired, whole=there is None).double()
    if there is not None:
        sums = torch.einsum("bvgt,tgc->bvgc", sums, there.to(y.device, torch.float64))
    return torch.where(flipped.to(y.device), highest * sums - y, y)


def tile_sums(layer: "CrossbarLayer", q: Tensor, wired: LayerPlacement, *, whole: bool = False) -> Tensor:
    """Sum of the inputs of each row tile of each group at each position.

    Args:
        layer: the layer.
        q: integers, shaped as its input.
        wired: its placement, with its groups as they share bitlines.
        whole: one sum over all rows instead.

    Returns:
        Exact, float32 or float64, (images, positions, groups, row tiles or 1).
    """
    bounds = (0, wired.matmul.rows) if whole else wired.row_bounds
    most = max(b - a for a, b in pairwise(bounds)) * max(map(abs, layer.input_format.limits))
    kind = torch.float32 if most < _EXACT_IN_FLOAT else torch.float64
    if isinstance(layer, nn.Linear):
        rows = layer.input_vectors(q)
        return torch.stack([rows[..., a:b].sum(-1, dtype=kind) for a, b in pairwise(bounds)], -1)
    conv = cast("nn.Conv1d | nn.Conv2d", layer)
    x = padded(conv, q, layer.placement.together)
    groups, tiles = wired.matmul.groups, len(bounds) - 1
    channels = x.shape[1] // groups
    if whole:
        x, channels = x.unflatten(1, (groups, channels)).sum(2, dtype=kind), 1
        ones = torch.ones(groups, 1, *conv.kernel_size, dtype=kind, device=x.device)
    else:
        tile = torch.bucketize(torch.arange(wired.matmul.rows), torch.tensor(bounds[1:-1]), right=True)
        one = F.one_hot(tile, tiles).T.reshape(tiles, channels, *conv.kernel_size)
        ones = one.to(kind).repeat(groups, *[1] * (one.dim() - 1)).to(x.device)
    convolve = F.conv2d if len(conv.kernel_size) == 2 else F.conv1d
    # Rounding makes it exact whatever algorithm a device chooses.
    sums = convolve(x.to(kind), ones, None, conv.stride, 0, conv.dilation, groups).round()
    return sums.flatten(2).transpose(1, 2).unflatten(2, (groups, tiles))
