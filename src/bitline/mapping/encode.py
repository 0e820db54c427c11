"""Signed integer weights to the levels of unsigned cells, and back."""

from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from bitline.chip.description import Chip
from bitline.chip.formats import Pair, TwosComplement
from bitline.errors import MappingError
from bitline.mapping.empty import built, clear_
from bitline.mapping.layer import LayerPlacement
from bitline.mapping.quantize import weight_limits
from bitline.mapping.strategies import Naive, Packed


def slice_weights(chip: Chip) -> tuple[int, ...]:
    """What each slice of a weight weighs, least significant first; a sign cell weighs -2**(bits - 1)."""
    body = chip.slices - isinstance(chip.weights.encoding, TwosComplement)
    weights = tuple(2 ** (chip.cell.bits * s) for s in range(body))
    return weights if body == chip.slices else (*weights, -(2 ** (chip.weights.bits - 1)))


def worth(chip: Chip) -> Tensor:
    """What a level of each cell of a weight is worth, weight units, int64, (sides, slices)."""
    slices = torch.tensor(slice_weights(chip))
    return torch.stack([slices, -slices][: chip.sides])


def encode(q: Tensor, placement: LayerPlacement) -> Tensor:
    """Turn integer weights into the levels of all cells that share bitlines with them, reference columns included.

    Args:
        q: integers (any dtype), (groups, rows, cols) of the layer.
        placement: of the layer.

    Returns:
        Levels, uint8, (groups, sides, slices, rows, stored columns) of `placement.merged`; the second side is the
        negative one. Stored columns are the weight columns, then one reference column of Z for every column tile
        where the encoding asks for it. Between the groups of a naive layer stand zeros, encoded as any weight is;
        between those of a packed one empty cells, level 0. Cells of absent crossbars have level 0 too.

    Raises:
        MappingError: an integer outside of what the encoding holds.
    """
    match placement:
        case Naive():
            whole = _diagonal(q[:, None, None], placement.matmul.groups)[:, 0, 0]
            return _encode(whole, placement.merged)
        case Packed():
            chip, cols = placement.chip, placement.matmul.cols
            levels = _encode(q, placement)
            parts = [levels[..., :cols], levels[..., cols:]] if chip.reference_columns else [levels]
            return torch.cat([_diagonal(part, placement.per_crossbar) for part in parts], -1)
        case _:
            return clear_(_encode(q, placement), placement)


def _diagonal(x: Tensor, together: int) -> Tensor:
    """Set `together` neighbouring matrices, (groups, ..., rows, cols), on the diagonal of one with zeros beside it."""
    groups, rows, cols = x.shape[0], *x.shape[-2:]
    whole = x.new_zeros(-(-groups // together), *x.shape[1:-2], together * rows, together * cols)
    for slot in range(together):
        part = x[slot::together]
        whole[: len(part), ..., slot * rows : (slot + 1) * rows, slot * cols : (slot + 1) * cols] = part
    return whole


def _encode(q: Tensor, placement: LayerPlacement) -> Tensor:
    chip, weights = placement.chip, placement.chip.weights
    low, high = weight_limits(weights)
    q = q.to(torch.int32)
    # amin and amax, as weights are often transposed: min and max copy those first, and take fifty times as long.
    if q.numel() and (int(q.amin()) < low or int(q.amax()) > high):
        raise MappingError(
            f"layer {placement.matmul.name}: integer weights span [{int(q.amin())}, {int(q.amax())}]; "
            f"{weights.bits} bits in {weights.encoding.kind} encoding hold [{low}, {high}]"
        )
    if chip.reference_columns:
        q = torch.cat([q, q.new_zeros(*q.shape[:2], placement.col_tiles)], dim=2)
    match weights.encoding:
        case Pair():
            sides = (q.clamp(min=0), (-q).clamp(min=0))
        case TwosComplement():
            sides = (q & (2 ** (weights.bits - 1) - 1),)
        case _:
            sides = (q + weights.zero_point,)
    body = chip.slices - isinstance(weights.encoding, TwosComplement)
    levels = torch.empty(q.shape[0], len(sides), chip.slices, *q.shape[1:], dtype=torch.uint8, device=q.device)
    for k, side in enumerate(sides):
        small = (side.to(torch.uint8) if weights.bits <= 8 else side).contiguous()
        for s in range(body):
            levels[:, k, s] = (small >> (chip.cell.bits * s)) & chip.cell.max_level
        if body < chip.slices:
            levels[:, k, body] = q < 0
    return levels


def decode(levels: Tensor, placement: LayerPlacement) -> Tensor:
    """Return the weights that levels stand for, as a perfect crossbar would multiply by them.

    Args:
        levels: (groups, sides, slices, rows, stored columns), integer or real.
        placement: of plain groups, `merged` where the layer's groups share bitlines.

    Returns:
        (groups, rows, cols) float64; exact integers for integer levels.
    """
    chip = placement.chip
    factors = torch.tensor(slice_weights(chip), dtype=torch.float64, device=levels.device)
    sides = torch.einsum("gksrc,s->gkrc", levels.double(), factors)
    w = sides[:, 0] - sides[:, 1] if chip.sides == 2 else sides[:, 0]
    cols = placement.matmul.cols
    if chip.reference_columns:
        return w[:, :, :cols] - w[:, :, cols:].index_select(2, column_tiles(placement, levels.device))
    w -= chip.weights.zero_point
    there = built(placement, levels.device)
    if there is not None:
        heights = torch.tensor([b - a for a, b in pairwise(placement.row_bounds)], device=levels.device)
        w *= there.repeat_interleave(heights, 0).transpose(0, 1)
    return w


def together_again(y: Tensor, placement: LayerPlacement) -> Tensor:
    """Sort results of `placement.merged`, (..., its groups, its cols), by group of the layer, (..., groups, cols)."""
    m = placement.matmul
    if placement.together == 1:
        return y
    return y.flatten(-2)[..., : m.groups * m.cols].unflatten(-1, (m.groups, m.cols))


def set_together(y: Tensor, placement: LayerPlacement) -> Tensor:
    """Sort what belongs to results, (..., groups, cols), as `placement.merged` has them; 0 where it has more."""
    if placement.together == 1:
        return y
    merged = placement.merged.matmul
    flat = F.pad(y.flatten(-2), (0, merged.groups * merged.cols - y.shape[-2] * y.shape[-1]))
    return flat.unflatten(-1, (merged.groups, merged.cols))


def in_use(placement: LayerPlacement, device: torch.device | None = None) -> Tensor | None:
    """Say which stored columns of `placement.merged` a group has, (merged groups, stored columns) bool; None: all."""
    groups, together, merged = placement.matmul.groups, placement.together, placement.merged
    lacking = -groups % together
    if lacking == 0:
        return None
    used = torch.ones(merged.matmul.groups, merged.stored_columns, dtype=torch.bool, device=device)
    cols = merged.matmul.cols
    used[-1, cols - lacking * placement.matmul.cols : cols] = False
    if merged.stored_columns > cols:
        used[-1, merged.stored_columns - lacking :] = False
    return used


def column_tiles(placement: LayerPlacement, device: torch.device | None = None) -> Tensor:
    """Column tile of each weight column, (cols,) int64."""
    bounds = torch.tensor(placement.col_bounds[1:-1], device=device)
    return torch.bucketize(torch.arange(placement.matmul.cols, device=device), bounds, right=True)
