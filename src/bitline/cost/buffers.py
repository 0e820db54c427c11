"""What tile buffers must hold, and what goes off the chip where they are too small.

Activations stream: a buffer holds the rows of an input that a kernel spans, not the whole of it, ((k - 1) W + k) C for
a k x k kernel over C channels of width W (ISAAC, ISCA 2016; the layers of a network work at the same time). A share
that no buffer holds is written to memory off the chip and read from there for every input vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bitline.chip.records import Record
from bitline.cost.table import Joule, Time, read
from bitline.cost.traffic import traffic

if TYPE_CHECKING:  # bitline.mapping imports torch, which pricing does not need
    from bitline.chip.description import Chip
    from bitline.mapping.place import LayerPlacement, Placement


class OffChip(Record):
    """Memory off the chip."""

    bit_energy: Joule
    """of one bit read or written"""
    bit_time: Time
    """of one bit"""


@lru_cache(maxsize=1)
def off_chip() -> OffChip:
    """Read the published numbers."""
    return read("_off-chip", OffChip)


@dataclass(frozen=True)
class Spill:
    """What a layer's buffers lack.

    Args:
        layer: name.
        needed: bits that must be at hand, in all tiles of the layer.
        share: of them that no buffer holds, [0, 1].
    """

    layer: str
    needed: int
    share: float


def tiles(chip: Chip, crossbars: int) -> int:
    """Tiles that so many crossbars stand in; a network that has none still has one."""
    return max(1, math.ceil(crossbars / (chip.system.crossbars_per_macro * chip.system.macros_per_tile)))


def needed_bits(layer: LayerPlacement) -> int:
    """Count the bits that the buffers of a layer must hold: the inputs of a kernel's rows, in each tile that reads any.

    Digital units also keep the layer's weights there.
    """
    chip, matmul, expanded = layer.chip, layer.matmul, layer.expanded
    words = matmul.window or matmul.groups * matmul.rows
    weights = matmul.groups * matmul.rows * matmul.cols * chip.weights.bits if layer.digital_macs else 0
    return words * chip.inputs.bits * traffic(layer).rows // (expanded.groups * expanded.rows) + weights


def spills(placement: Placement) -> tuple[Spill, ...]:
    """Say of every layer what its buffers lack.

    A layer has the buffers of the tiles that its crossbars take, and all layers together have those of the network.
    """
    chip = placement.chip
    capacity = chip.system.buffer_kib * 8 * 1024
    needed = [needed_bits(layer) for layer in placement.layers]
    everything = chip.system.copies * sum(needed)
    room = tiles(chip, placement.crossbars * chip.system.copies) * capacity / max(1, everything)
    return tuple(
        Spill(layer.matmul.name, bits, max(0.0, 1 - min(room, tiles(chip, layer.crossbars) * capacity / max(1, bits))))
        for layer, bits in zip(placement.layers, needed, strict=True)
    )
