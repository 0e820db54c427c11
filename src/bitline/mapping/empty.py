"""Crossbars whose weights are all zero: which these are, and what is left of a layer without them.

Such a crossbar is not built. It adds exactly nothing: no analog sum, no conversion, no error of its cells.
"""

from itertools import pairwise

import torch
from torch import Tensor

from bitline.errors import MappingError
from bitline.mapping.layer import LayerPlacement


def empty_blocks(weights: Tensor, placement: LayerPlacement) -> frozenset[tuple[int, int, int]]:
    """Find the blocks on crossbars that hold no weight but zeros.

    Args:
        weights: of the layer as the cells hold them, integers of any dtype, (groups, rows, cols).
        placement: of the layer; only one that is dense can do without a crossbar.

    Returns:
        (group, row tile, column tile) of each, for `placed(..., absent=...)`; a crossbar of several row tiles counts
        where all of them are empty. Nothing for a layer that is not dense.

    Raises:
        MappingError: weights of another shape than the layer's.
    """
    matmul = placement.matmul
    if tuple(weights.shape) != (matmul.groups, matmul.rows, matmul.cols):
        raise MappingError(
            f"layer {matmul.name}: weights have shape {tuple(weights.shape)}; "
            f"expected {(matmul.groups, matmul.rows, matmul.cols)}"
        )
    if placement.strategy != "dense":
        return frozenset()
    per, tiles = placement.tiles_per_crossbar, placement.row_tiles
    bounds = [*placement.row_bounds[:-1:per], placement.row_bounds[-1]]

    def empty(zero: Tensor) -> Tensor:
        """Of which crossbars all columns are zero, (groups, crossbars below each other, beside each other)."""
        return torch.stack([zero[..., a:b].all(-1) for a, b in pairwise(placement.col_bounds)], -1)

    # Of a layer that lacks nothing, the first row of every crossbar says so.
    if not bool(empty(weights[:, bounds[:-1]] == 0).any()):
        return frozenset()
    whole = empty(~torch.stack([(weights[:, a:b] != 0).any(1) for a, b in pairwise(bounds)], 1))
    return frozenset(
        (group, tile, column)
        for group, crossbar, column in whole.nonzero().tolist()
        for tile in range(crossbar * per, min((crossbar + 1) * per, tiles))
    )


def built(placement: LayerPlacement, device: torch.device | None = None) -> Tensor | None:
    """Say which stored columns of each row tile there are; None where no crossbar is absent.

    Args:
        placement: of the layer.
        device: of the result.

    Returns:
        bool, (row tiles, groups, stored columns).
    """
    if not placement.absent:
        return None
    there = torch.ones(placement.row_tiles, placement.matmul.groups, placement.stored_columns, dtype=torch.bool)
    for group, tile, column in placement.absent:
        for columns in stored(placement, column):
            there[tile, group, columns] = False
    return there.to(device)


def stored(placement: LayerPlacement, column: int) -> list[slice]:
    """Stored columns of a column tile: those of weights, and the reference column where there is one."""
    cols = placement.matmul.cols
    columns = [slice(placement.col_bounds[column], placement.col_bounds[column + 1])]
    return [*columns, slice(cols + column, cols + column + 1)] if placement.stored_columns > cols else columns


def clear_(cells: Tensor, placement: LayerPlacement, value: int = 0) -> Tensor:
    """Set what is said of cells of absent crossbars to a value, in place.

    Args:
        cells: (groups, sides, slices, rows, stored columns) of a dense layer.
        placement: of the layer.
        value: what stands for no cell; 0 for levels, and for what cells add.
    """
    for group, tile, column in placement.absent:
        rows = slice(placement.row_bounds[tile], placement.row_bounds[tile + 1])
        for columns in stored(placement, column):
            cells[group, :, :, rows, columns] = value
    return cells
