"""The operations of an integer network, each a record with tensors of integers; products stand in `product`.

Values are laid out (batch, space..., channels), so that what belongs to a channel, a shift say, is a vector. Nothing
here sees a floating-point number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

import torch
from torch import Tensor

from bitline.integer.rounding import Reciprocal, divide, reciprocal, shift_left, shift_right
from bitline.integer.windows import pad, slices


@dataclass(frozen=True)
class Operation:
    """One step of an integer network.

    Args:
        name: of the value it makes.
        inputs: names of the values it reads.
    """

    kind: ClassVar[str] = ""
    name: str
    inputs: tuple[str, ...]

    def run(self, *values: Tensor) -> Tensor:
        """Compute the value."""
        raise NotImplementedError


@dataclass(frozen=True)
class Relu(Operation):
    """Zero in the place of what is below it."""

    kind: ClassVar[str] = "relu"

    def run(self, *values: Tensor) -> Tensor:
        """Compare with zero."""
        return values[0].clamp(min=0)


@dataclass(frozen=True)
class _Pool(Operation):
    """One number from every window.

    Args:
        kernel: places along every axis.
        stride: the same.
        padding: the same, on both ends.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def _parts(self, x: Tensor, value: int) -> list[Tensor]:
        x = pad(x, [(p, p) for p in self.padding], value)
        return slices(x, self.kernel, self.stride, (1,) * len(self.kernel))


@dataclass(frozen=True)
class MaxPool(_Pool):
    """The largest of every window."""

    kind: ClassVar[str] = "max pool"

    def run(self, *values: Tensor) -> Tensor:
        """Compare the places of a window."""
        x = values[0]
        return reduce(torch.maximum, self._parts(x, torch.iinfo(x.dtype).min))


@dataclass(frozen=True)
class SumPool(_Pool):
    """The sum of every window: an average in another unit.

    Args:
        wide: the sum needs more than 32 bits.
    """

    kind: ClassVar[str] = "sum pool"
    wide: bool = False

    def run(self, *values: Tensor) -> Tensor:
        """Add the places of a window."""
        x = values[0]
        x = x.long() if self.wide else x.int() if x.dtype.itemsize < 4 else x
        return reduce(torch.add, self._parts(x, 0))


@dataclass(frozen=True)
class Add(Operation):
    """Values of different units, added up in the finest.

    Args:
        shifts: left shift of every input, each (channels,).
        wide: the sum needs more than 32 bits.
    """

    kind: ClassVar[str] = "add"
    shifts: tuple[Tensor, ...]
    wide: bool = False

    def run(self, *values: Tensor) -> Tensor:
        """Shift and add; one input is only shifted."""
        return reduce(torch.add, self.aligned(values))

    def aligned(self, values: Sequence[Tensor]) -> list[Tensor]:
        """Every input in the unit of the result."""
        dtype = torch.int64 if self.wide else torch.int32
        return [shift_left(value.to(dtype), shift) for value, shift in zip(values, self.shifts, strict=True)]


@dataclass(frozen=True)
class Concat(Operation):
    """Channels of several values behind each other, each in its unit."""

    kind: ClassVar[str] = "concat"

    def run(self, *values: Tensor) -> Tensor:
        """Join channels."""
        widest = max((value.dtype for value in values), key=lambda dtype: (dtype.itemsize, dtype.is_signed))
        same = all(value.dtype == widest for value in values)
        dtype = widest if same else max(widest, torch.int32, key=lambda dtype: dtype.itemsize)
        return torch.cat([value.to(dtype) for value in values], -1)


@dataclass(frozen=True)
class Reshape(Operation):
    """The same integers in another shape.

    Args:
        shape: (channels, space...), without the batch; flattening goes by channel first.
    """

    kind: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def run(self, *values: Tensor) -> Tensor:
        """Reshape with channels first, as the network does."""
        x = values[0].movedim(-1, 1).reshape(-1, *self.shape)
        return x.movedim(1, -1)


@dataclass(frozen=True)
class Take(Operation):
    """Channels in another order.

    Args:
        index: which channel each is, (channels,) int64.
    """

    kind: ClassVar[str] = "take"
    index: Tensor

    def run(self, *values: Tensor) -> Tensor:
        """Reorder channels."""
        return values[0].index_select(-1, self.index)


@dataclass(frozen=True)
class Requantize(Operation):
    """Integers of few bits, from wide ones: a right shift that rounds to nearest, ties to even, and clips.

    Where windows of `divisor` places were added up, the shift is a division by ``divisor * 2**shift``, made by
    multiplying with an integer reciprocal; see docs/integer.md for why the quotient is exact.

    Args:
        exponent: of the result's unit.
        low: lowest integer of the result.
        high: highest.
        shift: right shift, below zero a left shift, (channels,) int64.
        floor: what is clipped before the shift, so that nothing overflows, (channels,) int64.
        ceiling: the same.
        wide: 32 bits do not hold what the shift adds.
        divisor: odd; 1 where nothing is to be divided.
    """

    kind: ClassVar[str] = "requantize"
    exponent: int
    low: int
    high: int
    shift: Tensor
    floor: Tensor
    ceiling: Tensor
    wide: bool = False
    divisor: int = 1

    @property
    def dtype(self) -> torch.dtype:
        """Of the result."""
        if self.low >= 0:
            return torch.uint8 if self.high < 256 else torch.int32
        return torch.int8 if self.high < 128 else torch.int32

    def run(self, *values: Tensor) -> Tensor:
        """Clip, shift and round."""
        x = values[0]
        dtype = torch.int64 if self.wide or x.dtype == torch.int64 else torch.int32
        x = torch.maximum(torch.minimum(x.to(dtype), self.ceiling.to(dtype)), self.floor.to(dtype))
        if self.divisor > 1:
            x = divide(x, self.reciprocal)
        else:
            x = shift_right(shift_left(x, (-self.shift).clamp(min=0)), self.shift)
        return x.clamp(self.low, self.high).to(self.dtype)

    @property
    def reciprocal(self) -> Reciprocal:
        """The division as a product and a shift."""
        return reciprocal(self.divisor, self.shift, self.floor, self.ceiling)
