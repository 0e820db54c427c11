"""Straight-through estimators: the forward value of one thing, the gradient of another."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bitline.mapping.encode import column_tiles
from bitline.mapping.quantize import widen
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.torch_fast import analog_sums
from bitline.physics import kernels


@dataclass(frozen=True)
class Quantized:
    """Real numbers rounded to integers times a scale, as little of it at once as is asked for.

    What `torch.fake_quantize_per_tensor_affine` gives where scales are powers of two. For others that one multiplies by
    1 / scale, which takes ties to other integers than the division that the chip's inputs and weights go through.

    Args:
        source: real, any shape; without a gradient.
        scale: positive; one, or one for each of the first axis, (..., 1, 1) as it broadcasts against `source`.
        low: lowest integer.
        high: highest integer.
    """

    source: Tensor
    scale: Tensor | float
    low: int
    high: int

    @property
    def whole(self) -> Tensor:
        """The integers before they are clipped."""
        return (widen(self.source) / self.scale).round_()

    @property
    def value(self) -> Tensor:
        """The numbers after rounding and clipping."""
        return self.of_type(self.source.dtype)

    @property
    def inside(self) -> Tensor:
        """Where nothing clips, bool."""
        # Judged by the integer: x / scale may exceed the highest one by a rounding error and still not clip.
        whole = self.whole
        return (whole >= self.low) & (whole <= self.high)

    def of_type(self, dtype: torch.dtype) -> Tensor:
        """The value, rounded once more to a type."""
        return self.checked(dtype)[0]

    def checked(self, dtype: torch.dtype) -> tuple[Tensor, bool]:
        """The value, rounded once more to a type, and whether no number is seen to be NaN or infinite.

        Without loops nothing is looked at, and the answer is no.
        """
        if (loop := self._loop(dtype)) is None:
            return self.whole.clamp_(self.low, self.high).mul_(self.scale).to(dtype), False
        out = torch.empty_like(self.source, dtype=dtype)
        half = dtype == torch.bfloat16
        return out, kernels.native.quantized(*loop.arguments, out.data_ptr(), half, torch.get_num_threads())

    def passed(self, grad: Tensor) -> Tensor:
        """Let a gradient of the value through where nothing clipped; of the type of `source`."""
        x = self.source
        same = (grad.shape, grad.stride(), grad.device) == (x.shape, x.stride(), x.device)
        if same and (loop := self._loop(grad.dtype)) is not None:
            out, half = torch.empty_like(x), grad.dtype == torch.bfloat16
            kernels.native.passed(*loop.arguments, grad.data_ptr(), half, out.data_ptr(), torch.get_num_threads())
            return out
        return grad.to(x.dtype).masked_fill(~self.inside, 0)

    def erred(self, errors: "WeightErrors", dtype: torch.dtype) -> Tensor:
        """The value with errors of its integers, of a type.

        Args:
            errors: of them.
            dtype: of the result.
        """
        e, x = errors, self.source
        floats = [each.contiguous() for each in (e.mean, e.std, e.numbers, e.factor)]
        fits = all(each.dtype == x.dtype == torch.float32 and each.device == x.device for each in floats)
        loop = self._loop(dtype) if fits and x.stride(0) == x[0].numel() else None
        if loop is None:
            return self._erred(e).to(dtype)
        out = torch.empty_like(x, dtype=dtype)
        mean, std, numbers, factor = (each.data_ptr() for each in floats)
        kernels.native.erred(
            *(*loop.x, *loop.grid, mean, std, len(e.mean), e.low, numbers, len(e.numbers), factor, len(e.factor)),
            *(out.data_ptr(), dtype == torch.bfloat16, torch.get_num_threads()),
        )
        return out

    def _erred(self, e: "WeightErrors") -> Tensor:
        whole = self.whole
        if not torch.ops.aten.is_non_overlapping_and_dense(whole):
            whole = whole.contiguous()
        flat = whole.as_strided((whole.numel(),), (1,))
        index = (flat - e.low).clamp_(0, len(e.mean) - 1).int()
        numbers = e.numbers if len(e.numbers) == len(flat) else e.numbers.repeat(-(-len(flat) // len(e.numbers)))
        wrong = e.std.index_select(0, index).mul_(numbers[: len(flat)]).add_(e.mean.index_select(0, index))
        wrong = wrong.as_strided(whole.shape, whole.stride())
        return wrong.add_(whole.clamp_(self.low, self.high)).mul_(e.factor.view(-1, *[1] * (whole.dim() - 1)))

    def _loop(self, dtype: torch.dtype) -> "_Loop | None":
        """What loops in C++ take, where they can: numbers in the order of memory and the scales of equal shares."""
        x, scale = self.source, self.scale
        fits = kernels.native and (x.dtype, dtype) in _LOOPS and x.device.type == "cpu"
        if not fits or not torch.ops.aten.is_non_overlapping_and_dense(x) or not x.numel():
            return None
        if isinstance(scale, Tensor):
            first = x.dim() == scale.dim() > 0 and len(scale) == scale.numel() == len(x) and x.stride(0) == x[0].numel()
            if scale.numel() != 1 and not first:
                return None
        scales = torch.as_tensor(scale, dtype=torch.float32, device="cpu").reshape(-1).contiguous()
        return _Loop(x, scales, self.low, self.high)


class WeightErrors(NamedTuple):
    """Errors of weights, by the integer that they are.

    Args:
        low: the lowest integer.
        mean: of each, weight units, (integers,).
        std: the same.
        numbers: normal ones, each for a weight in the order of memory; where they end they begin again.
        factor: real value of a weight of 1, (outputs,).
    """

    low: int
    mean: Tensor
    std: Tensor
    numbers: Tensor
    factor: Tensor


class _Loop(NamedTuple):
    """Numbers and scales that outlive a loop over them."""

    source: Tensor
    scales: Tensor
    low: int
    high: int

    @property
    def x(self) -> tuple[int, ...]:
        """Address and count of the numbers."""
        return self.source.data_ptr(), self.source.numel()

    @property
    def grid(self) -> tuple[int, ...]:
        """Address and count of their scales, and the ends."""
        return self.scales.data_ptr(), self.scales.numel(), self.low, self.high

    @property
    def arguments(self) -> tuple[int, ...]:
        """All of it, with what the numbers are."""
        address, count = self.x
        return address, self.source.dtype == torch.bfloat16, count, *self.grid


_LOOPS = {(torch.float32, torch.float32), (torch.float32, torch.bfloat16), (torch.bfloat16, torch.bfloat16)}
"""types of numbers, and of their values or gradients"""


class StraightThrough(torch.autograd.Function):
    """A value that stands for what was quantized; its gradient, times a gain, passes where nothing clipped.

    Apply it to the numbers, the value, the numbers quantized, and the gain, which may be None.
    """

    @staticmethod
    def forward(ctx: Any, source: Tensor, value: Tensor, quantized: Quantized, gain: Tensor | None) -> Tensor:
        """The value."""
        ctx.quantized, ctx.gain = quantized, gain
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the numbers."""
        grad = grads[0] if ctx.gain is None else grads[0] * ctx.gain.to(grads[0].dtype)
        return ctx.quantized.passed(grad), None, None, None


def add_in_place(to: Tensor, more: Tensor, first: int, start: int, count: int) -> None:
    """Add some elements of the first axis of a tensor to those of another.

    Args:
        to: any shape.
        more: of its type, and of its shape but for the first axis.
        first: element of `to` that the first is added to.
        start: first element of `more`.
        count: how many.
    """
    each = to.shape[1:].numel()
    loop = kernels.native and (to.dtype, more.dtype) in _LOOPS and to.dtype == more.dtype and to.device.type == "cpu"
    alike = to.shape[1:] == more.shape[1:] and to.stride() == more.stride() and to.stride(0) == each
    if not (loop and alike and torch.ops.aten.is_non_overlapping_and_dense(to)):
        to[first : first + count] += more[start : start + count]
        return
    size = each * to.itemsize
    half, threads = to.dtype == torch.bfloat16, torch.get_num_threads()
    kernels.native.added(to.data_ptr() + first * size, more.data_ptr() + start * size, count * each, half, threads)


class RangeGradient(NamedTuple):
    """Gradient of a loss with respect to the ranges of a layer's ADCs.

    Args:
        lsb: loss per level unit, float64, the shape of the ranges.
        offset: the same; None where it was not asked for.
    """

    lsb: Tensor
    offset: Tensor | None


FEWEST = 8
"""input vectors that a gradient is estimated from, however many sums each makes"""


@dataclass(frozen=True)
class Sampling:
    """Which input vectors of a batch the gradient of ADC ranges is estimated from.

    Args:
        vectors: drawn from a batch, at most.
        sums: analog sums computed for them, at most; but never fewer than `FEWEST` vectors.
        seed: of the draws.
    """

    vectors: int = 128
    sums: int = 2**21
    seed: int = 0

    def count(self, vectors: int, sums: int) -> int:
        """How many to draw of some vectors that each make so many sums."""
        return min(vectors, self.vectors, max(FEWEST, self.sums // sums))


def range_gradient(
    x: Tensor, crossbars: Crossbars, scale: AdcScale, grad: Tensor, *, offsets: bool = True
) -> RangeGradient:
    """Return the gradient of ADC ranges, that of a learned step size.

    A conversion gives code lsb + offset, with code = round((a - offset) / lsb) straight through the rounding. Inside
    the range the result moves by code - (a - offset) / lsb with the LSB, and not with the offset; where it clips it
    moves by the code, and with the offset. Reads are taken as free of noise. Esser et al., "Learned step size
    quantization", ICLR 2020, arXiv:1902.08153, eq. 3, for an LSB shared by the sums of a range.

    Args:
        x: integers within the input format, (images, positions, groups, rows).
        crossbars: the programmed layer.
        scale: ranges of its ADCs, whose codes have ends, on the torch device of `x`.
        grad: of the product in weight x activation units, (images, positions, groups, cols).
        offsets: whether the gradient of offsets is wanted too.
    """
    product = crossbars.product
    assert scale.low is not None
    assert scale.high is not None
    grad = _of_stored_columns(grad.flatten(0, 1), crossbars).transpose(0, 1).to(crossbars.real)
    # Axes (groups, digits, vectors, slices, sides, columns).
    lsb, offset = (t[:, :, None, :, None, :].to(crossbars.real) for t in (scale.lsb, scale.offset))
    digit = torch.tensor(product.digit_weights, dtype=torch.float64, device=x.device)[:, None]
    weight = digit * torch.tensor(product.slice_weights, dtype=torch.float64, device=x.device)
    totals = torch.zeros(1 + offsets, grad.shape[0], *weight.shape, grad.shape[2], dtype=torch.float64, device=x.device)
    start, tiles, shifted = 0, product.placement.row_tiles, bool(offset.any())
    # Axes (row tiles, groups, 1, 1, 1, 1, columns).
    built = None if product.built is None else product.built.to(x.device)[:, :, None, None, None, None]
    sums: list[Tensor] = []
    for number, a in enumerate(analog_sums(x, crossbars)):
        slopes = _slopes((a.sub_(offset) if shifted else a).div_(lsb), scale.low, scale.high, offsets)
        slopes = slopes if built is None else [each.mul_(built[number % tiles]) for each in slopes]
        sums = [total.add_(each) for total, each in zip(sums, slopes, strict=True)] if number % tiles else slopes
        if number % tiles == tiles - 1:
            stop = start + a.shape[2]
            for total, each in zip(totals, sums, strict=True):
                one = each[..., 0, :] if len(product.side_weights) == 1 else each[..., 0, :] - each[..., 1, :]
                total += one.mul_(grad[:, None, start:stop, None, :]).sum(2)
            start = stop
    by_lsb, *by_offset = (totals * weight[:, :, None]).unbind()
    size = scale.lsb.shape
    return RangeGradient(by_lsb.sum_to_size(size), by_offset[0].sum_to_size(size) if by_offset else None)


def _slopes(position: Tensor, low: int, high: int, offsets: bool) -> list[Tensor]:
    """How fast results rise with the LSB and, if asked, with the offset.

    Args:
        position: of sums within the range, in LSBs.
        low: lowest code.
        high: highest code.
        offsets: whether the second is wanted.
    """
    code = position.round()
    end = code.clamp(low, high)
    # 1 inside the range, 0 outside, as numbers: ten times as quick as with bool.
    inside = code.eq_(end)
    by_lsb = torch.sub(end, position.mul_(inside), out=position)
    return [by_lsb, 1 - inside] if offsets else [by_lsb]


def _of_stored_columns(grad: Tensor, crossbars: Crossbars) -> Tensor:
    """Return the gradient of what is read, (vectors, groups, stored columns), from that of the product."""
    placement = crossbars.product.placement
    references = placement.stored_columns - placement.matmul.cols
    if not references:
        return grad
    away = grad.new_zeros(*grad.shape[:2], references)
    return torch.cat([grad, away.index_add_(2, column_tiles(placement, grad.device), grad, alpha=-1)], dim=2)
