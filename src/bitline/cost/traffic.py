"""What crosses the borders of macros and tiles, from where the crossbars of a layer stand.

The row tiles of one column of blocks stand in one macro as far as it reaches, so that their sums meet there; the next
column of blocks follows. A crossbar that is not built leaves no gap. Each crossbar has an input register of its own, as
in ISAAC, whose 2 KB hold 16-bit inputs of 8 x 128 rows. A group of a layer as written out begins a tile of its own for
this count.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bitline.mapping.place import LayerPlacement


@dataclass(frozen=True)
class Traffic:
    """Words that one input vector of one group, or of every group, moves.

    Args:
        rows: inputs that tile buffers send over their buses; one that several tiles need is counted for each.
        once: the same, each counted once; one that no crossbar reads is left out.
        sums: sums that leave macros over a bus.
        forwarded_sums: sums that leave a tile, to be added in another of the layer.
        tiles: tiles that hold the group.
    """

    rows: int
    once: int
    sums: int
    forwarded_sums: int
    tiles: int


def traffic(layer: LayerPlacement) -> Traffic:
    """Reconstruction the crossbars of all groups of a layer as written out."""
    groups = layer.expanded.groups
    if not layer.absent:
        one = group_traffic(layer, 0)
        return Traffic(*(groups * words for words in astuple(one)))
    each = [astuple(group_traffic(layer, group)) for group in range(groups)]
    return Traffic(*map(sum, zip(*each, strict=True)))


def group_traffic(layer: LayerPlacement, group: int) -> Traffic:
    """Reconstruction the crossbars of one group of a layer as written out."""
    system = layer.chip.system
    per_macro = system.crossbars_per_macro
    per_tile = per_macro * system.macros_per_tile
    step = layer.tiles_per_crossbar
    bounds = [*layer.row_bounds[:-1:step], layer.row_bounds[-1]]
    gone = {(tile // step, column) for other, tile, column in layer.absent if other == group}
    readers: list[set[int]] = [set() for _ in bounds[1:]]
    number = sums = forwarded = 0
    for c in range(layer.col_tiles):
        first = number
        for r, tiles in enumerate(readers):
            if (r, c) not in gone:
                tiles.add(number // per_tile)
                number += 1
        if number == first:
            continue
        width = layer.col_bounds[c + 1] - layer.col_bounds[c] + layer.chip.reference_columns
        sums += width * ((number - 1) // per_macro - first // per_macro + 1)
        forwarded += width * ((number - 1) // per_tile - first // per_tile)
    heights = [b - a for a, b in pairwise(bounds)]
    rows = sum(height * len(tiles) for height, tiles in zip(heights, readers, strict=True))
    once = sum(height for height, tiles in zip(heights, readers, strict=True) if tiles)
    if not layer.columns:
        sums = forwarded = 0
    return Traffic(rows, once, sums, forwarded, -(-number // per_tile))
