"""Signed integer weights to the levels of unsigned cells, and back."""

import torch
from torch import Tensor

from bitline.chip.description import Chip, Pair, TwosComplement
from bitline.errors import MappingError
from bitline.mapping.place import LayerPlacement
from bitline.mapping.quantize import weight_limits


def slice_weights(chip: Chip) -> tuple[int, ...]:
    """What each slice of a weight weighs, least significant first; a sign cell weighs -2**(bits - 1)."""
    body = chip.slices - isinstance(chip.weights.encoding, TwosComplement)
    weights = tuple(2 ** (chip.cell.bits * s) for s in range(body))
    return weights if body == chip.slices else (*weights, -(2 ** (chip.weights.bits - 1)))


def encode(q: Tensor, placement: LayerPlacement) -> Tensor:
    """Turn integer weights into cell levels, reference columns included.

    Args:
        q: integers (any dtype), (groups, rows, cols).
        placement: of the layer.

    Returns:
        Levels, uint8, (groups, sides, slices, rows, stored columns); the second side is the negative one.
        Stored columns are the weight columns, then one reference column of Z for every column tile
        where the encoding asks for it.

    Raises:
        MappingError: an integer outside of what the encoding holds.
    """
    chip, weights = placement.chip, placement.chip.weights
    low, high = weight_limits(weights)
    q = q.to(torch.int32)
    if q.numel() and (q.min() < low or q.max() > high):
        raise MappingError(
            f"layer {placement.matmul.name}: integer weights span [{int(q.min())}, {int(q.max())}]; "
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
        small = side.to(torch.uint8) if weights.bits <= 8 else side
        for s in range(body):
            levels[:, k, s] = (small >> (chip.cell.bits * s)) & chip.cell.max_level
        if body < chip.slices:
            levels[:, k, body] = q < 0
    return levels


def decode(levels: Tensor, placement: LayerPlacement) -> Tensor:
    """Return the weights that levels stand for, as a perfect crossbar would multiply by them.

    Args:
        levels: (groups, sides, slices, rows, stored columns), integer or real.
        placement: of the layer.

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
    return w - chip.weights.zero_point


def column_tiles(placement: LayerPlacement, device: torch.device | None = None) -> Tensor:
    """Column tile of each weight column, (cols,) int64."""
    bounds = torch.tensor(placement.col_bounds[1:-1], device=device)
    return torch.bucketize(torch.arange(placement.matmul.cols, device=device), bounds, right=True)
