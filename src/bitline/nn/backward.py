"""Forward through the chip, backward through the plain product of quantized inputs and weights."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import seeds
from bitline.mapping.encode import set_together
from bitline.mapping.lower import input_view
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.gradient import Quantized, range_gradient

if TYPE_CHECKING:
    from bitline.nn.base import CrossbarLayer


class Answer(torch.autograd.Function):
    """What a layer on a chip answers, with a straight-through gradient.

    The gradient is that of the plain layer at its quantized inputs and weights, and zero where these clip; sums that
    clip in an ADC pass it on all the same. That of ADC ranges, where these train, is estimated by `range_gradients`.
    """

    @staticmethod
    def forward(
        ctx: Any, layer: "CrossbarLayer", x: Tensor, weight: Tensor, bias: Tensor | None, *trained: Tensor | None
    ) -> Tensor:
        """Answer; ctx keeps what the gradient needs."""
        ctx.layer = layer
        if layer.mode == "linear":
            inputs = layer.fake_input(x)
            out = layer.linear_answer(x, inputs)
            inputs = inputs.to(out.dtype)
            ctx.save_for_backward(x[:0], weight, inputs.value, inputs.whole)
        else:
            out = layer.answer(x)
            ctx.save_for_backward(x, weight)
        ctx.read = Read.of(layer) if any(ctx.needs_input_grad[4:]) else None
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight, bias and the trained ranges."""
        x, weight, *quantized = ctx.saved_tensors
        needed = ctx.needs_input_grad
        layer = ctx.layer
        inputs = Quantized(*quantized, *layer.input_format.limits) if quantized else layer.fake_input(x)
        plain = gradients(layer, inputs, weight, grads[0], needed[1:4], x.dtype)
        ranges = (None, None) if ctx.read is None else range_gradients(ctx.layer, ctx.read, x, grads[0], needed[5])
        return None, *plain, *ranges


class Read(NamedTuple):
    """What an answer came from: the cells, the ranges of their ADCs, and the real value of a product of 1."""

    crossbars: Crossbars
    scale: AdcScale
    factor: Tensor

    @classmethod
    def of(cls, layer: "CrossbarLayer") -> Self | None:
        """The layer as it is; None where its ADCs have no ranges that train."""
        if layer.mode != "chip" or not layer.chip.adc.keeps_ranges:
            return None
        crossbars = layer.crossbars(layer.chip, int(layer.chip_seed))
        return cls(crossbars, layer.adc_scale(layer.weight, crossbars), layer.factor_of_one())


def range_gradients(
    layer: "CrossbarLayer", read: Read, x: Tensor, grad: Tensor, offsets: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Estimate the gradients of a layer's `log2_lsb` and `offset_shift` from some of a batch's input vectors.

    Their sum over the vectors drawn, times how many there are over how many are drawn: unbiased. It passes the
    rounding of an LSB or offset straight through; an LSB of one level feels nothing that would make it less.

    Args:
        layer: the layer, whose ranges train; its draws go on.
        read: what it answered from.
        x: its input.
        grad: of its output.
        offsets: whether offsets train.
    """
    assert layer.log2_lsb is not None
    assert layer.range_steps is not None
    generator = seeds.generator(layer.sampling.seed, layer.matmul.name, "range gradient", int(layer.range_steps))
    layer.range_steps.add_(1)
    grad = grad if isinstance(layer, nn.Linear) else grad.movedim(1, -1)
    total = math.prod(grad.shape[:-1])
    drawn = layer.sampling.count(total, max(1, read.crossbars.product.placement.conversions_per_vector))
    index = torch.randperm(total, generator=generator)[:drawn].to(x.device)
    index = torch.unravel_index(index, grad.shape[:-1])
    # (drawn vectors, groups, cols)
    weighed = grad[index].double().unflatten(-1, read.factor.shape) * (read.factor * (total / max(1, drawn)))
    weighed = set_together(weighed, layer.arranged)
    if read.crossbars.flipped is not None:
        weighed = torch.where(read.crossbars.flipped.to(weighed.device), -weighed, weighed)
    q = layer.integers(_view(layer, x)[index]).flatten(2)
    found = range_gradient(q[None], read.crossbars, read.scale, weighed[None], offsets=offsets)
    raw = layer.log2_lsb.detach().double().exp2()
    by_log2 = found.lsb * raw * math.log(2)
    by_log2 = by_log2.masked_fill((raw <= 1) & (by_log2 > 0), 0)
    shift = None if found.offset is None else (found.offset * layer.adc_lsb).float()
    return by_log2.float(), shift


def _view(layer: Any, x: Tensor) -> Tensor:
    """Return the input vectors of a layer, with the axes of its output but for that of channels in front."""
    return x[..., None, :] if isinstance(layer, nn.Linear) else input_view(layer, x, layer.arranged.together)


def gradients(
    layer: "CrossbarLayer",
    inputs: Quantized,
    weight: Tensor,
    grad: Tensor,
    needed: tuple[bool, bool, bool],
    dtype: torch.dtype,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the straight-through gradients of a layer's input, weight and bias, each None if not needed.

    Args:
        layer: the layer.
        inputs: its input as the DACs see it.
        weight: its weights.
        grad: of its output.
        needed: which are.
        dtype: of its input's gradient.
    """
    weights = layer.fake_weight()
    axes = [axis for axis in range(grad.dim()) if axis != _channels(layer, grad)]
    bias = grad.sum(axes).to(weight.dtype) if needed[2] else None
    # autocast may have computed the answer, and so its gradient, in fewer bits
    q, w = inputs.value.to(grad.dtype), weights.value.to(grad.dtype)
    grad_x, grad_w = _product_gradients(layer, q, w, grad, needed)
    return (
        None if grad_x is None else inputs.passed(grad_x).to(dtype),
        None if grad_w is None else weights.passed(grad_w.to(weight.dtype)),
        bias,
    )


def _channels(layer: nn.Module, grad: Tensor) -> int:
    return grad.dim() - 1 if isinstance(layer, nn.Linear) else 1


def _product_gradients(
    layer: "CrossbarLayer", x: Tensor, w: Tensor, grad: Tensor, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    if isinstance(layer, nn.Linear):
        flat = grad.flatten(0, -2)
        return (grad @ w if needed[0] else None, flat.T @ x.flatten(0, -2) if needed[1] else None)
    conv: Any = layer
    if conv.padding_mode == "zeros" and not isinstance(conv.padding, str):
        return _convolution_gradients(conv, x, w, grad, needed, conv.padding)
    pad, mode = list(conv._reversed_padding_repeated_twice), conv.padding_mode
    padded = F.pad(x, pad) if mode == "zeros" else F.pad(x, pad, mode=mode)
    grad_x, grad_w = _convolution_gradients(conv, padded, w, grad, needed, [0] * len(conv.stride))
    if grad_x is not None and mode == "zeros":
        grad_x = F.pad(grad_x, [-p for p in pad])
    elif grad_x is not None:
        # Every padded element is a copy of one of x.
        size = x.shape[2:]
        source = torch.arange(size.numel(), dtype=torch.float64, device=x.device).view(1, 1, *size)
        source = F.pad(source, pad, mode=mode).flatten().long()
        grad_x = torch.zeros_like(x).flatten(2).index_add_(2, source, grad_x.flatten(2)).view_as(x)
    return grad_x, grad_w


def _convolution_gradients(
    conv: Any, x: Tensor, w: Tensor, grad: Tensor, needed: tuple[bool, bool, bool], padding: Sequence[int]
) -> tuple[Tensor | None, Tensor | None]:
    grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
        grad,
        x,
        w,
        None,
        conv.stride,
        padding,
        conv.dilation,
        False,
        [0] * len(conv.stride),
        conv.groups,
        [needed[0], needed[1], False],
    )
    return grad_x, grad_w
