"""Weights into cells, and results of groups that share bitlines sorted again."""

from itertools import product
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip.description import Cell
from bitline.mapping.encode import encode, together_again
from bitline.mapping.lower import input_view, position_axes
from bitline.mapping.place import LayerPlacement
from bitline.mapping.strategies import empty_beside
from bitline.physics import seeds
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels

if TYPE_CHECKING:
    from bitline.nn.base import CrossbarLayer


def written_cells(q: Tensor, placement: LayerPlacement, cell: Cell, seed: int) -> Tensor:
    """Write integer weights into the cells of one chip.

    Args:
        q: integers, (groups, rows, cols), on the CPU.
        placement: of the layer, whose name and the seed decide all draws.
        cell: the memory element.
        seed: of the chip.

    Returns:
        What each cell adds to its bitline, level units, as `bitline.mapping.encode.encode` lays them out.
    """
    levels, name = encode(q, placement), placement.matmul.name
    stuck = stuck_levels(levels.shape, cell, generator=seeds.generator(seed, name, "faults"))
    return effective_levels(levels, stuck, cell, generator=seeds.generator(seed, name, "programming"))


def sort_results(layer: "CrossbarLayer", y: Tensor, q: Tensor) -> Tensor:
    """Give each group of a layer its results.

    The product takes Z sum(x) over all wordlines from every result. Where a column has weights on those of its own
    group only, and empty cells on the others, the sum over these is given back.

    Args:
        layer: the layer.
        y: product of what it is wired as, weight x activation units, (images, positions, its groups, its cols).
        q: the integers that were multiplied, shaped as the layer's input.

    Returns:
        float64, (images, positions, groups, cols).
    """
    placement = layer.placement
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
