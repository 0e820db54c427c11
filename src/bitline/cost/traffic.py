"""What crosses the borders of macros and tiles, from where the crossbars of a layer stand.

The row tiles of one column of blocks stand in one macro as far as it reaches, so that their sums meet there; the next
column of blocks follows. Each crossbar has an input register of its own, as in ISAAC, whose 2 KB hold 16-bit inputs of
8 x 128 rows. A group of a layer as written out begins a tile of its own for this count.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitline.mapping.place import LayerPlacement


@dataclass(frozen=True)
class Traffic:
    """Words that one input vector of one group moves.

    Args:
        rows: inputs that tile buffers send over their buses; one that several tiles need is counted for each.
        sums: sums that leave macros over a bus.
        forwarded_sums: sums that leave a tile, to be added in another of the layer.
        tiles: tiles that hold the group.
    """

    rows: int
    sums: int
    forwarded_sums: int
    tiles: int


def traffic(layer: LayerPlacement) -> Traffic:
    """Walk the crossbars of one group of a layer as written out."""
    system = layer.chip.system
    per_macro = system.crossbars_per_macro
    per_tile = per_macro * system.macros_per_tile
    step = layer.tiles_per_crossbar
    bounds = [*layer.row_bounds[:-1:step], layer.row_bounds[-1]]
    down, across = len(bounds) - 1, layer.col_tiles
    rows = sum(
        (bounds[r + 1] - bounds[r]) * len({(c * down + r) // per_tile for c in range(across)}) for r in range(down)
    )
    sums = forwarded = 0
    for c in range(across):
        first, last = c * down, c * down + down - 1
        width = layer.col_bounds[c + 1] - layer.col_bounds[c] + layer.chip.reference_columns
        sums += width * (last // per_macro - first // per_macro + 1)
        forwarded += width * (last // per_tile - first // per_tile)
    if not layer.columns:
        sums = forwarded = 0
    return Traffic(rows, sums, forwarded, (down * across - 1) // per_tile + 1)
