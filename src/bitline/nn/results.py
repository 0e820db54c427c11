"""What the digital side does to the products of crossbars before they are a layer's own: corrections, signs, order."""

from itertools import pairwise, product
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.mapping.empty import built
from bitline.mapping.encode import slice_weights, together_again
from bitline.mapping.lower import input_view, padded, position_axes
from bitline.mapping.place import LayerPlacement
from bitline.mapping.strategies import empty_beside
from bitline.mvm.crossbars import Crossbars
from bitline.programming.remap import tops

if TYPE_CHECKING:
    from bitline.nn.base import CrossbarLayer

_EXACT_IN_FLOAT = 2**24


def sort_results(layer: "CrossbarLayer", y: Tensor, q: Tensor, crossbars: Crossbars) -> Tensor:
    """Give each group of a layer its results, corrected for the mean error of its cells where the chip does that.

    The product takes Z sum(x) over all wordlines from every result. Where a column has weights on those of its own
    group only, and empty cells on the others, the sum over these is given back.

    Args:
        layer: the layer.
        y: product of what it is wired as, weight x activation units, (images, positions, its groups, its cols).
        q: the integers that were multiplied, shaped as the layer's input.
        crossbars: that multiplied.

    Returns:
        float64, (images, positions, groups, cols).
    """
    placement = layer.arranged
    if crossbars.correction is not None:
        y = corrected(layer, y, q, crossbars.correction, crossbars.product.placement)
    if crossbars.flipped is not None:
        y = turned(layer, y, q, crossbars.flipped, crossbars.product.placement)
    y = together_again(y, placement)
    if empty_beside(placement):
        y = y + layer.chip.weights.zero_point * _beside(layer, q, placement)[..., None].double()
    return y


def _beside(layer: "CrossbarLayer", q: Tensor, placement: LayerPlacement) -> Tensor:
    """Sum of the inputs of all other groups on the same crossbar, int32, (images, positions, groups)."""
    own = _window_sums(cast("nn.Conv2d", layer), q)
    groups, together = own.shape[-1], placement.together
    whole = F.pad(own, (0, -groups % together)).unflatten(-1, (-1, together)).sum(-1)
    return whole.repeat_interleave(together, -1)[..., :groups] - own


def _window_sums(conv: nn.Conv1d | nn.Conv2d, q: Tensor) -> Tensor:
    """Sum of the inputs of each group at each position, int32, (images, positions, groups)."""
    channels = q.unflatten(1, (conv.groups, -1)).sum(2, dtype=torch.int32)
    axes, view = position_axes(conv), input_view(conv, channels)
    total = torch.zeros(view.shape[: axes + 2], dtype=torch.int32, device=q.device)
    # One strided addition for each place of the kernel; a sum over the overlapping view is thirty times slower.
    for place in product(*map(range, conv.kernel_size)):
        total += view[(..., 0, *place)]
    return total.flatten(1, axes)


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
