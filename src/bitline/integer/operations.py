"""What integers go through: products, sums, shifts, comparisons and moves, each a record with tensors of integers.

Values are laid out (batch, space..., channels), so that what belongs to a channel, a shift say, is a vector. Nothing
here sees a floating-point number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import product as places
from typing import ClassVar

import torch
from torch import Tensor


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
class Product(Operation):
    """Integer weights times integer inputs, plus an integer bias: a linear layer, or a convolution with padding 0.

    Args:
        layer: name of the layer in its network.
        weight: (groups, kernel places * channels of a group, outputs of a group), int8 where that holds it, else int32.
        bias: in units of the accumulator, (outputs,), of the accumulator's dtype.
        kernel: places along every axis; empty for a linear layer.
        stride: the same.
        padding: zeros before and after, for every axis.
        dilation: the same as stride.
        unsigned: inputs are uint8.
    """

    kind: ClassVar[str] = "product"
    layer: str
    weight: Tensor
    bias: Tensor
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    unsigned: bool = False

    def run(self, *values: Tensor) -> Tensor:
        """Multiply, (batch, space..., channels) to (batch, space..., outputs)."""
        x = _padded(values[0], self.padding, 0)
        groups, rows, cols = self.weight.shape
        if groups > 1 and rows == torch.Size(self.kernel).numel():
            return self._depthwise(x)
        windows = _windows(x, self.kernel, self.stride, self.dilation)
        axes = windows.dim() - 1 - len(self.kernel)
        windows = windows.unflatten(-1, (groups, -1)).movedim(-2, axes)
        rows_of = windows.reshape(*windows.shape[:axes], groups, rows).flatten(0, axes - 1)
        y = [self._multiply(rows_of[:, g], self.weight[g]) for g in range(groups)]
        whole = y[0] if groups == 1 else torch.cat(y, 1)
        return whole.add_(self._bias).view(*windows.shape[:axes], groups * cols)

    def _multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.weight.dtype != torch.int8 or x.dtype not in (torch.int8, torch.uint8) or not exact_bytes():
            return x.to(self.bias.dtype) @ weight.to(self.bias.dtype)
        # Bytes are multiplied with a sign; what that takes from unsigned ones is in `_bias`.
        signed = torch.bitwise_xor(x, 128).view(torch.int8) if x.dtype == torch.uint8 else x
        return _product_of_bytes(signed.contiguous(), weight).to(self.bias.dtype)

    @property
    def _bias(self) -> Tensor:
        if not self.unsigned or self.weight.dtype != torch.int8 or not exact_bytes():
            return self.bias
        return self.bias + 128 * self.weight.sum(1, dtype=self.bias.dtype).flatten()

    def _depthwise(self, x: Tensor) -> Tensor:
        """Every group has one channel: one multiplication of whole maps for each place of the kernel."""
        groups, rows, cols = self.weight.shape
        x = x.to(self.bias.dtype).repeat_interleave(cols, -1)
        weight = self.weight.to(self.bias.dtype).transpose(0, 1).reshape(rows, groups * cols)
        slices = _slices(x, self.kernel, self.stride, self.dilation)
        return reduce(torch.add, (part * w for part, w in zip(slices, weight, strict=True))) + self.bias


def _product_of_bytes(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply matrices of int8 to one of int32."""
    return torch._int_mm(x, weight)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


@lru_cache(maxsize=1)
def exact_bytes() -> bool:
    """Whether this computer multiplies matrices of bytes exactly: some kernels saturate at 16 bits."""
    ends = torch.tensor([-128, 127], dtype=torch.int8)
    x, w = ends.repeat(32, 64), ends.repeat_interleave(64)[:, None].repeat(1, 32)
    for a, b in ((x, w), (x.sort(1).values.contiguous(), w), (-1 - x, w), (ends[0].expand(32, 128).contiguous(), w)):
        if not _product_of_bytes(a, b).equal(a.int() @ b.int()):
            return False
    return True


def _padded(x: Tensor, padding: Sequence[tuple[int, int]], value: int) -> Tensor:
    if not any(map(any, padding)):
        return x
    sizes = [n + before + after for n, (before, after) in zip(x.shape[1:-1], padding, strict=True)]
    padded = x.new_full((x.shape[0], *sizes, x.shape[-1]), value)
    inside = [slice(before, before + n) for n, (before, _) in zip(x.shape[1:-1], padding, strict=True)]
    padded[(slice(None), *inside)] = x
    return padded


def _sizes(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    spaces = zip(x.shape[1:-1], kernel, stride, dilation, strict=True)
    return [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in spaces]


def _windows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """What a kernel sees everywhere, (batch, space..., kernel..., channels); a view."""
    if not kernel:
        return x
    x = x.contiguous()
    steps = x.stride()[1:-1]
    return x.as_strided(
        (x.shape[0], *_sizes(x, kernel, stride, dilation), *kernel, x.shape[-1]),
        (
            x.stride(0),
            *(a * b for a, b in zip(steps, stride, strict=True)),
            *(a * b for a, b in zip(steps, dilation, strict=True)),
            1,
        ),
        x.storage_offset(),
    )


def _slices(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[Tensor]:
    """What every place of a kernel sees, each (batch, space..., channels)."""
    sizes = _sizes(x, kernel, stride, dilation)
    return [
        x[
            (
                slice(None),
                *(
                    slice(p * d, p * d + (n - 1) * s + 1, s)
                    for p, d, n, s in zip(place, dilation, sizes, stride, strict=True)
                ),
            )
        ]
        for place in places(*map(range, kernel))
    ]


@dataclass(frozen=True)
class Relu(Operation):
    """Zero in the place of what is below it."""

    kind: ClassVar[str] = "relu"

    def run(self, *values: Tensor) -> Tensor:
        """Compare with zero."""
        return values[0].clamp(min=0)


@dataclass(frozen=True)
class _Pool(Operation):
    """What is computed of every window.

    Args:
        kernel: places along every axis.
        stride: the same.
        padding: the same, on both ends.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]

    def _parts(self, x: Tensor, value: int) -> list[Tensor]:
        x = _padded(x, [(p, p) for p in self.padding], value)
        return _slices(x, self.kernel, self.stride, (1,) * len(self.kernel))


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
        return [_shifted(value.to(dtype), shift) for value, shift in zip(values, self.shifts, strict=True)]


def _shifted(x: Tensor, shift: Tensor) -> Tensor:
    return x << shift.to(x.dtype) if bool(shift.any()) else x


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
        """Sort as the network does."""
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
        """Sort channels."""
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
        rounded = self._divided(x) if self.divisor > 1 else self._right(self._left(x))
        return rounded.clamp(self.low, self.high).to(self.dtype)

    def _left(self, x: Tensor) -> Tensor:
        return _shifted(x, (-self.shift).clamp(min=0))

    def _right(self, x: Tensor) -> Tensor:
        shift, half, odd = (t.to(x.dtype) for t in halves(self.shift))
        if not bool(shift.any()):
            return x
        # Just below a half is added, and one more where the quotient would be odd.
        return (x + half + ((x >> shift) & odd)) >> shift

    def _divided(self, x: Tensor) -> Tensor:
        r = reciprocal(self)
        # Two times the dividend, plus the divisor, never below zero: a quotient that rounds ties up.
        twice = (_shifted(x, r.left) + r.above * r.whole) * 2 + r.whole
        quotient = (twice * r.factor) >> r.shift
        tie = (twice - quotient * (2 * r.whole) == 0).to(x.dtype)
        return quotient - (tie & quotient & 1) - r.above


def halves(shift: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Right shifts, what is added before, and the mask of the quotient's last bit, which a shift of 0 lacks."""
    right = shift.clamp(min=0)
    some = (right > 0).to(right.dtype)
    return right, ((1 << (right - 1).clamp(min=0)) - 1) * some, some


@dataclass(frozen=True)
class Reciprocal:
    """Division of integers by `whole` as a product and a shift, all (channels,) int64.

    Args:
        whole: the divisor.
        left: left shift of the dividend.
        above: even multiple of the divisor that is added so that no dividend is below zero.
        factor: the reciprocal times ``2**shift``, rounded up.
        shift: of the product.
        bits: of twice the dividend plus the divisor.
    """

    whole: Tensor
    left: Tensor
    above: Tensor
    factor: Tensor
    shift: Tensor
    bits: int


def reciprocal(step: Requantize) -> Reciprocal:
    """Derive the division of a requantization; it is exact for every dividend from `floor` to `ceiling`.

    With a numerator below 2^n and a divisor 2D, ``factor = ceil(2^s / 2D)`` and ``s = n + ceil(log2 2D)`` give the
    quotient exactly: factor * 2D exceeds 2^s by less than 2D <= 2^(s - n) (T. Granlund and P. Montgomery, "Division by
    invariant integers using multiplication", PLDI 1994, doi:10.1145/178243.178249, theorem 4.2).
    """
    whole = step.divisor << step.shift.clamp(min=0)
    left = (-step.shift).clamp(min=0)
    least, most = step.floor << left, step.ceiling << left
    above = -(torch.div(least, 2 * whole, rounding_mode="floor").clamp(max=0)) * 2
    numerator = 2 * (most + above * whole) + whole
    bits = int(numerator.max()).bit_length()
    log = torch.tensor([int(w - 1).bit_length() for w in (2 * whole).tolist()], dtype=torch.int64)
    shift = bits + log
    factor = torch.tensor(
        [-(-(1 << s) // (2 * w)) for s, w in zip(shift.tolist(), whole.tolist(), strict=True)], dtype=torch.int64
    )
    return Reciprocal(whole, left, above, factor, shift, bits)


KINDS: dict[str, Callable[..., Operation]] = {
    cls.kind: cls for cls in (Product, Relu, MaxPool, SumPool, Add, Concat, Reshape, Take, Requantize)
}
