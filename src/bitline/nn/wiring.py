"""Weights into cells, and results of groups that share bitlines sorted again."""

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip.description import Cell, Chip, Pair
from bitline.errors import MappingError
from bitline.mapping.empty import clear_, empty_blocks
from bitline.mapping.encode import encode, slice_weights, together_again, worth
from bitline.mapping.lower import Lowerable, Matmul, input_view, position_axes, weight_matrix
from bitline.mapping.nearest import nearest_levels
from bitline.mapping.place import LayerPlacement, Strategy, placed
from bitline.mapping.quantize import quantize, weight_limits, weight_scale, widen
from bitline.mapping.strategies import empty_beside
from bitline.mvm.torch_fast import Crossbars
from bitline.nn.correction import corrected, turned
from bitline.nn.remap import arrange, flip
from bitline.physics import seeds
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels
from bitline.physics.readback import write_in_turn
from bitline.physics.verify import most_sensitive, verify

if TYPE_CHECKING:
    from bitline.nn.base import CrossbarLayer


@dataclass(frozen=True)
class Written:
    """The cells of one layer on one chip, column by column in the order of the kernels.

    Args:
        levels: what each cell adds to its bitline, level units, as `bitline.mapping.encode.encode` lays them out.
        targets: the level that each was given, integers, the same shape.
        flipped: columns that hold their weights with the other sign, to be turned after the conversion, (groups, cols)
            bool; None: none.
        order: column that each kernel takes on the chip, (groups, cols) int64; None: its own.
        turned: columns whose kernels are held with the other sign, those of pairs included, (groups, cols) bool, in the
            order of the kernels; None: none.
        asked: levels that the cells were asked to take, stuck ones included, column by column as they lie on the chip.
        reached: what they add to their bitlines, in that order; ``levels`` but for the order and removed crossbars.
    """

    levels: Tensor
    targets: Tensor
    asked: Tensor
    reached: Tensor
    flipped: Tensor | None = None
    order: Tensor | None = None
    turned: Tensor | None = None


def written_cells(q: Tensor, placement: LayerPlacement, cell: Cell, seed: int) -> Written:
    """Write integer weights into the cells of one chip, as its mitigation of faults and errors says.

    Args:
        q: integers, (groups, rows, cols), on the CPU.
        placement: of the layer, whose name and the seed decide all draws.
        cell: the memory element.
        seed: of the chip.
    """
    targets, name = encode(q, placement), placement.matmul.name
    stuck = stuck_levels(targets.shape, cell, generator=seeds.generator(seed, name, "faults"))
    if stuck is not None:
        clear_(stuck, placement, -1)
    where = arrange(targets, stuck, placement)
    if where is None:
        asked, real = _programmed(targets, stuck, placement, cell, seed)
        return Written(clear_(real, placement), targets, asked, real)
    cols, pair = placement.wired.matmul.cols, isinstance(placement.chip.weights.encoding, Pair)
    kernels = flip(targets[..., :cols], where.flipped, placement)
    on_chip = torch.cat([where.onto(kernels), targets[..., cols:]], -1)
    asked, real = _programmed(on_chip, stuck, placement, cell, seed)
    levels = where.back(real[..., :cols])
    if pair:  # the inputs of the subtraction are exchanged
        levels = torch.where(where.flipped[:, None, None, None, :], levels.flip(1), levels)
        kernels = targets[..., :cols]
    levels, targets = (
        torch.cat([x, rest], -1) for x, rest in ((levels, real[..., cols:]), (kernels, targets[..., cols:]))
    )
    flipped = where.flipped if not pair and bool(where.flipped.any()) else None
    return Written(clear_(levels, placement), targets, asked, real, flipped, where.order, where.flipped)


def _programmed(
    levels: Tensor, stuck: Tensor | None, placement: LayerPlacement, cell: Cell, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the levels that cells are asked to take, and what they then add to their bitlines, level units."""
    name, chip, mitigation = placement.matmul.name, placement.chip, placement.chip.mitigation
    generator = seeds.generator(seed, name, "programming")
    if mitigation.readback and cell.errs:
        rewrites = mitigation.rewrites
        found = write_in_turn(levels, stuck, worth(chip), cell, generator=generator, rewrites=rewrites)
        return found.asked, found.real
    if mitigation.nearest and stuck is not None:
        levels = nearest_levels(levels, stuck, slice_weights(chip), chip.cell.max_level)
    real = effective_levels(levels, stuck, cell, generator=generator)
    if not mitigation.verify or real.dtype == torch.uint8:
        return levels, real
    generator = seeds.generator(seed, name, "write-verify")
    working = clear_(torch.ones_like(levels, dtype=torch.bool), placement)
    count = mitigation.verify * int(working.sum())
    if stuck is not None:
        working &= stuck < 0
    chosen = most_sensitive(levels, working, count, slice_weights(chip), cell, generator=generator)
    return levels, verify(real, levels, chosen, cell, mitigation.tolerance, generator=generator)


def absent_blocks(layer: Lowerable, matmul: Matmul, chip: Chip, strategy: Strategy) -> frozenset[tuple[int, int, int]]:
    """Find the blocks of a plain layer whose crossbars a chip need not have; none where it cannot hold the weights."""
    if layer.weight.is_meta:
        return frozenset()
    w = widen(weight_matrix(layer).detach())
    try:
        q = quantize(w, weight_scale(w, chip.weights, name=matmul.name), *weight_limits(chip.weights))
    except MappingError:  # said again when the weights are written
        return frozenset()
    return empty_blocks(q, placed(matmul, chip, strategy))


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
