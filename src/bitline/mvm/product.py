"""What one layer's crossbars do with integers: the numbers that every path of `mvm` works from."""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from bitline.chip.formats import Offset, Pair
from bitline.mapping.empty import built
from bitline.mapping.encode import slice_weights
from bitline.mapping.place import LayerPlacement
from bitline.mapping.quantize import InputFormat, digit_weights


@dataclass(frozen=True)
class Product:
    """A placed layer, seen as arithmetic.

    Args:
        placement: row and column tiles, and the chip.
        tiles: row tiles that are read; None: all. What the others hold is no part of the product.
    """

    placement: LayerPlacement
    tiles: tuple[int, ...] | None = None

    @cached_property
    def form(self) -> InputFormat:
        """Width and sign of the inputs."""
        return InputFormat(self.placement.chip.inputs.bits, self.placement.matmul.signed)

    @cached_property
    def digit_weights(self) -> tuple[int, ...]:
        """What each input digit weighs, (digits,)."""
        return digit_weights(self.form, self.placement.chip.dac.bits)

    @cached_property
    def slice_weights(self) -> tuple[int, ...]:
        """What each slice weighs, (slices,)."""
        return slice_weights(self.placement.chip)

    @cached_property
    def side_weights(self) -> tuple[int, ...]:
        """What each conversion of a slice weighs: (1,), or (1, -1) for a pair subtracted digitally."""
        return (1, -1) if self.placement.chip.converted_sides == 2 else (1,)

    @cached_property
    def built(self) -> Tensor | None:
        """Which stored columns of each row tile are read, bool, (row tiles, groups, stored columns); None: all."""
        there, placement = built(self.placement), self.placement
        if self.tiles is None:
            return there
        read = torch.zeros(placement.row_tiles, placement.matmul.groups, placement.stored_columns, dtype=torch.bool)
        read[list(self.tiles)] = True
        return read if there is None else read & there

    @property
    def subtracts(self) -> bool:
        """Whether a pair is subtracted before its conversion, so that sums have a sign."""
        encoding = self.placement.chip.weights.encoding
        return isinstance(encoding, Pair) and encoding.subtract == "analog"

    @property
    def digital_offset(self) -> int:
        """Z where Z sum(x) is subtracted by a digital sum, else 0."""
        encoding = self.placement.chip.weights.encoding
        return (
            self.placement.chip.weights.zero_point if isinstance(encoding, Offset) and encoding.sum == "digital" else 0
        )

    @property
    def max_digit(self) -> int:
        """Largest input digit; a sign bit is a digit of 1."""
        body = self.form.bits - self.form.signed
        return max(1, 2 ** min(self.placement.chip.dac.bits, body) - 1)

    @property
    def max_rows(self) -> int:
        """Wordlines of the tallest row tile."""
        return max(b - a for a, b in pairwise(self.placement.row_bounds))

    @property
    def max_sum(self) -> int:
        """Largest analog sum of ideal cells without leak, level units."""
        return self.max_rows * self.max_digit * self.placement.chip.cell.max_level
