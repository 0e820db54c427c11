"""What the digital side does to the products of crossbars before they are a layer's own: corrections, signs, order."""

import itertools
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.mapping.encode import slice_weights, together_again
from bitline.mapping.lower import Lowerable, input_rows, output_shape, padded, position_axes, windows
from bitline.mapping.place import LayerPlacement
from bitline.mapping.strategies import empty_beside
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.programming.remap import tops

_EXACT_IN_FLOAT = 2**24


def sort_results(layer: Lowerable, y: Tensor, q: Tensor, crossbars: Crossbars, whole: LayerPlacement) -> Tensor:
    """Give each group of a layer its results, corrected for the mean error of its cells where the chip does that.

    The product takes Z sum(x) over all wordlines from every result. Where a column has weights on those of its own
    group only, and empty cells on the others, the sum over these is given back.

    Args:
        layer: the plain layer.
        y: its product with groups that share bitlines as one, weight x activation units, (images, positions, those
            groups, their cols).
        q: the integers that were multiplied, shaped as the layer's input.
        crossbars: that multiplied.
        whole: the layer's placement if all crossbars were built.

    Returns:
        float64, (images, positions, groups, cols).
    """
    if crossbars.correction is not None:
        y = corrected(layer, y, q, crossbars, whole.together)
    if crossbars.flipped is not None:
        y = turned(layer, y, q, crossbars, whole.together)
    y = together_again(y, whole)
    if empty_beside(whole):
        y = y + whole.chip.weights.zero_point * _beside(layer, q, whole)[..., None].double()
    return y


def _beside(layer: Lowerable, q: Tensor, placement: LayerPlacement) -> Tensor:
    """Sum of the inputs of all other groups on the same crossbar, int32, (images, positions, groups)."""
    own = _window_sums(cast("nn.Conv2d", layer), q)
    groups, together = own.shape[-1], placement.together
    whole = F.pad(own, (0, -groups % together)).unflatten(-1, (-1, together)).sum(-1)
    return whole.repeat_interleave(together, -1)[..., :groups] - own


def _window_sums(conv: nn.Conv1d | nn.Conv2d, q: Tensor) -> Tensor:
    """Sum of the inputs of each group at each position, int32, (images, positions, groups)."""
    channels = padded(conv, q).unflatten(1, (conv.groups, -1)).sum(2, dtype=torch.int32)
    axes, view = position_axes(conv), windows(conv, channels, output_shape(conv, q.shape)[2:])
    total = torch.zeros(view.shape[: axes + 2], dtype=torch.int32, device=q.device)
    # One strided addition for each place of the kernel; a sum over the overlapping view is thirty times slower.
    for place in itertools.product(*map(range, conv.kernel_size)):
        total += view[(..., 0, *place)]
    return total.flatten(1, axes)


def corrected(layer: Lowerable, y: Tensor, q: Tensor, crossbars: Crossbars, together: int) -> Tensor:
    """Subtract the mean error of cells from the results of crossbars, see `bitline.programming.mean_error`.

    Args:
        layer: the plain layer.
        y: products, weight x activation units, float64, (images, positions, merged groups, cols).
        q: the integers that were multiplied, shaped as the layer's input.
        crossbars: that multiplied; they have a correction.
        together: groups of the layer that share bitlines.
    """
    assert crossbars.correction is not None
    sums = tile_sums(layer, q, crossbars.product, together, whole=crossbars.correction.shape[0] == 1).double()
    mean = crossbars.correction.to(y.device)
    if mean.shape[0] == 1:
        return y - sums * mean[0]
    return y - torch.einsum("bvgt,tgc->bvgc", sums, mean)


def turned(layer: Lowerable, y: Tensor, q: Tensor, crossbars: Crossbars, together: int) -> Tensor:
    """Turn the results of columns that hold complemented levels.

    top - level in every cell of a weight makes C - w of w, with C what a weight of highest levels stands for, twice Z
    away from it; hence sum(x w) = C sum(x) - y.

    Args:
        layer: the plain layer.
        y: products, weight x activation units, float64, (images, positions, merged groups, cols).
        q: the integers that were multiplied, shaped as the layer's input.
        crossbars: that multiplied; some of their columns are flipped.
        together: groups of the layer that share bitlines.
    """
    assert crossbars.flipped is not None
    product = crossbars.product
    chip, built = product.placement.chip, product.built
    highest = int((tops(product.placement) * torch.tensor(slice_weights(chip))).sum()) - 2 * chip.weights.zero_point
    sums = tile_sums(layer, q, product, together, whole=built is None).double()
    if built is not None:
        sums = torch.einsum("bvgt,tgc->bvgc", sums, built.to(y.device, torch.float64))
    return torch.where(crossbars.flipped.to(y.device), highest * sums - y, y)


def tile_sums(layer: Lowerable, q: Tensor, product: Product, together: int, *, whole: bool = False) -> Tensor:
    """Sum of the inputs of each row tile of each group at each position.

    Args:
        layer: the plain layer.
        q: integers, shaped as its input.
        product: what its crossbars multiply: groups that share bitlines are one.
        together: groups of the layer that share bitlines.
        whole: one sum over all rows instead.

    Returns:
        Exact, float32 or float64, (images, positions, groups, row tiles or 1).
    """
    placement = product.placement
    rows, groups = placement.matmul.rows, placement.matmul.groups
    bounds = (0, rows) if whole else placement.row_bounds
    most = max(b - a for a, b in pairwise(bounds)) * max(map(abs, product.form.limits))
    kind = torch.float32 if most < _EXACT_IN_FLOAT else torch.float64
    if isinstance(layer, nn.Linear):
        vectors = input_rows(layer, q, together)
        return torch.stack([vectors[..., a:b].sum(-1, dtype=kind) for a, b in pairwise(bounds)], -1)
    conv = layer
    x, tiles = padded(conv, q, together), len(bounds) - 1
    channels = x.shape[1] // groups
    if whole:
        x, channels = x.unflatten(1, (groups, channels)).sum(2, dtype=kind), 1
        ones = torch.ones(groups, 1, *conv.kernel_size, dtype=kind, device=x.device)
    else:
        tile = torch.bucketize(torch.arange(rows), torch.tensor(bounds[1:-1]), right=True)
        one = F.one_hot(tile, tiles).T.reshape(tiles, channels, *conv.kernel_size)
        ones = one.to(kind).repeat(groups, *[1] * (one.dim() - 1)).to(x.device)
    convolve = F.conv2d if len(conv.kernel_size) == 2 else F.conv1d
    # Rounding makes it exact whatever algorithm a device chooses.
    sums = convolve(x.to(kind), ones, None, conv.stride, 0, conv.dilation, groups).round()
    return sums.flatten(2).transpose(1, 2).unflatten(2, (groups, tiles))
