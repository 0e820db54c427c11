"""Straight-through estimators: the forward value of one thing, the gradient of another."""

from dataclasses import dataclass
from typing import NamedTuple

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
        if (loop := self._loop(dtype)) is None:
            return self.whole.clamp_(self.low, self.high).mul_(self.scale).to(dtype)
        out = torch.empty_like(self.source, dtype=dtype)
        kernels.native.quantized(*loop, _flat(out), torch.get_num_threads())
        return out

    def passed(self, grad: Tensor) -> Tensor:
        """Let a gradient of the value through where nothing clipped; of the type of `source`."""
        if grad.stride() == self.source.stride() and (loop := self._loop(grad.dtype)) is not None:
            out = torch.empty_like(self.source)
            kernels.native.passed(*loop, _flat(grad), _flat(out), torch.get_num_threads())
            return out
        return grad.to(self.source.dtype).masked_fill(~self.inside, 0)

    def _loop(self, dtype: torch.dtype) -> tuple[Tensor, Tensor, int, int] | None:
        """What loops in C++ take, where they can: numbers in the order of memory and the scales of equal shares."""
        x = self.source
        fits = kernels.native and x.dtype == torch.float32 and dtype in _LOOPS and x.device.type == "cpu"
        if not fits or not torch.ops.aten.is_non_overlapping_and_dense(x) or not x.numel():
            return None
        scale = torch.as_tensor(self.scale, dtype=torch.float32).reshape(-1)
        first = x.dim() > 0 and len(scale) == x.shape[0] and x.stride(0) == x[0].numel()
        each = isinstance(self.scale, Tensor) and self.scale.dim() == x.dim() and self.scale.shape[0] == len(scale)
        return (_flat(x), scale.contiguous(), self.low, self.high) if len(scale) == 1 or (first and each) else None


_LOOPS = (torch.float32, torch.bfloat16)


def _flat(x: Tensor) -> Tensor:
    """Numbers in the order of memory; those of bf16 as 16-bit integers."""
    flat = x.as_strided((x.numel(),), (1,))
    return flat.view(torch.int16) if x.dtype == torch.bfloat16 else flat


class RangeGradient(NamedTuple):
    """Gradient of a loss with respect to the ranges of a layer's ADCs.

    Args:
        lsb: loss per level unit, float64, the shape of the ranges.
        offset: the same; None where it was not asked for.
    """

    lsb: Tensor
    offset: Tensor | None


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
