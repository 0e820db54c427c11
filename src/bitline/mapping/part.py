"""A few columns of a layer that stand for all of them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bitline.mapping.layer import LayerPlacement


@dataclass(frozen=True)
class Part:
    """Some groups of a layer, and of each of them some whole column tiles, so that a tile stays what it is.

    Args:
        groups: of `LayerPlacement.merged`, int64.
        cols: weight columns of each, int64.
        stored: the same with reference columns, as they are stored, int64.
    """

    groups: Tensor
    cols: Tensor
    stored: Tensor


def part(placement: LayerPlacement, columns: int | None = None) -> Part:
    """Choose column tiles and groups evenly, of about so many weight columns; None: all.

    Groups that share bitlines make their sums together, so that of a layer of these all are taken.
    """
    merged = placement.merged
    m, tiles, bounds = merged.matmul, merged.col_tiles, torch.tensor(merged.col_bounds)
    if columns is None or placement.strategy in ("naive", "packed"):
        columns = m.groups * m.cols
    chosen = _even(tiles, -(-columns * tiles // m.cols) if columns < m.cols else tiles)
    cols = torch.cat([torch.arange(int(bounds[tile]), int(bounds[tile + 1])) for tile in chosen.tolist()])
    stored = torch.cat([cols, m.cols + chosen]) if merged.stored_columns > m.cols else cols
    return Part(_even(m.groups, max(1, columns // len(cols))), cols, stored)


def _even(of: int, count: int) -> Tensor:
    """`count` numbers below `of`, evenly spread."""
    count = max(1, min(of, count))
    return (2 * torch.arange(count) + 1) * of // (2 * count)
