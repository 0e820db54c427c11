"""What the digital correction of mean errors takes, beside the sum of inputs that the offset encoding makes anyway.

A multiplier of a x b bits is a row of b adders of a bits: a b full adders, all switching at every product.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from bitline.chip.formats import Offset

if TYPE_CHECKING:  # bitline.mapping imports torch, which pricing does not need
    from bitline.mapping.layer import LayerPlacement


def correction_bits(layer: LayerPlacement, width: int) -> int:
    """Count the full adders of a layer's correction for one input vector of every group as written out.

    ``expected``: sum(x) times one number, which takes Z's place. ``measured``: in every row tile and weight column the
    sum of the tile's inputs times a number of its own, added to the column's sum.

    Args:
        layer: as placed.
        width: of a column's sum, bits.
    """
    encoding = layer.chip.weights.encoding
    if not isinstance(encoding, Offset) or encoding.correction == "none" or not layer.columns:
        return 0
    # As wide as a weight, a sign and the fraction.
    coefficient = layer.chip.weights.bits + 1 + Offset.CORRECTION_BITS
    inputs = layer.chip.inputs.bits
    if encoding.correction == "expected":
        return layer.expanded.groups * (inputs + (layer.expanded.rows - 1).bit_length()) * coefficient
    tallest = max(b - a for a, b in pairwise(layer.row_bounds))
    return layer.columns * ((inputs + (tallest - 1).bit_length()) * coefficient + width)
