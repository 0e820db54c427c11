"""Forward through the chip, backward through the plain product of quantized inputs and weights."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline import seeds
from bitline.chip.description import Chip
from bitline.mapping.encode import set_together
from bitline.mapping.lower import Lowerable, Matmul, input_view
from bitline.mapping.place import LayerPlacement
from bitline.mapping.quantize import InputFormat
from bitline.mvm.gradient import Quantized, range_gradient
from bitline.nn import drawn_tiles
from bitline.nn.ranges import Ranges
from bitline.nn.read import Mode, Read


class Layer(Protocol):
    """What a gradient asks of a layer."""

    ranges: Ranges
    mode: Mode
    tiles_a_step: int | None
    training: bool

    @property
    def chip(self) -> Chip:
        """The chip that it is on."""
        ...

    @property
    def matmul(self) -> Matmul:
        """The layer as a matrix product."""
        ...

    @property
    def whole_placement(self) -> LayerPlacement:
        """Where its weights would be if all crossbars were built."""
        ...

    @property
    def input_format(self) -> InputFormat:
        """Width and sign of its inputs."""
        ...

    def integers(self, x: Tensor) -> Tensor:
        """Its inputs as integers, the shape of `x`."""
        ...

    def fake_input(self, x: Tensor) -> Quantized:
        """Its inputs as the DACs see them."""
        ...

    def fake_weight(self) -> Quantized:
        """Its weights as ideal cells hold them."""
        ...

    def answer(self, input: Tensor) -> tuple[Tensor, Read]:
        """What the chip answers, and what was read for that."""
        ...

    def linear_answer(self, input: Tensor, inputs: Quantized) -> Tensor:
        """What the cells answer without rounding."""
        ...


class Answer(torch.autograd.Function):
    """What a layer on a chip answers, with a straight-through gradient.

    The gradient is that of the plain layer at its quantized inputs and weights, and zero where these clip; sums that
    clip in an ADC pass it on all the same. That of ADC ranges, where these train, is estimated by `range_gradients`.
    """

    @staticmethod
    def forward(
        ctx: Any, layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None, *trained: Tensor | None
    ) -> Tensor:
        """Answer; ctx keeps what the gradient needs."""
        ctx.layer, ctx.read = layer, None
        device = x.device.type
        # Where plain layers multiply in fewer bits, so does the gradient. The chip answers the same all the while.
        ctx.multiply = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        if layer.mode == "linear":
            ctx.save_for_backward(x, weight)
            return layer.linear_answer(x, layer.fake_input(x))
        some = layer.tiles_a_step if layer.training else None
        out, read = layer.answer(x) if some is None else drawn_tiles.answer(layer, x, some)
        ctx.save_for_backward(x, weight)
        if any(ctx.needs_input_grad[4:]) and layer.chip.adc.keeps_ranges:
            ctx.read = read
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, weight, bias and the trained ranges."""
        x, weight = ctx.saved_tensors
        needed = ctx.needs_input_grad
        layer: Layer = ctx.layer
        plain_layer, dtypes = cast("nn.Module", layer), (x.dtype, weight.dtype)
        with torch.autocast(x.device.type, enabled=False):
            plain = gradients(
                plain_layer,
                layer.fake_input(x),
                layer.fake_weight(),
                grads[0],
                needed[1:4],
                dtypes,
                multiply=ctx.multiply,
            )
        ranges = (None, None) if ctx.read is None else range_gradients(layer, ctx.read, x, grads[0], needed[5])
        return None, *plain, *ranges


def range_gradients(
    layer: Layer, read: Read, x: Tensor, grad: Tensor, offsets: bool
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
    ranges, whole = layer.ranges, layer.whole_placement
    assert ranges.log2_lsb is not None
    assert ranges.range_steps is not None
    generator = seeds.generator(ranges.sampling.seed, layer.matmul.name, "range gradient", int(ranges.range_steps))
    ranges.range_steps.add_(1)
    linear = isinstance(layer, nn.Linear)
    grad = grad if linear else grad.movedim(1, -1)
    total = math.prod(grad.shape[:-1])
    drawn = ranges.sampling.count(total, max(1, read.crossbars.product.placement.conversions_per_vector))
    index = torch.randperm(total, generator=generator)[:drawn].to(x.device)
    index = torch.unravel_index(index, grad.shape[:-1])
    factor = read.factor(float(ranges.input_scale))
    # (drawn vectors, groups, cols)
    weighed = grad[index].double().unflatten(-1, factor.shape) * (factor * (total / max(1, drawn)))
    weighed = set_together(weighed, whole)
    if read.crossbars.flipped is not None:
        weighed = torch.where(read.crossbars.flipped.to(weighed.device), -weighed, weighed)
    # the axes of the output but for that of channels in front
    vectors = x[..., None, :] if linear else input_view(cast("Lowerable", layer), x, whole.together)
    q = layer.integers(vectors[index]).flatten(2)
    gradient = range_gradient(q[None], read.crossbars, read.scale, weighed[None], offsets=offsets)
    raw = ranges.log2_lsb.detach().double().exp2()
    by_log2 = gradient.lsb * raw * math.log(2)
    by_log2 = by_log2.masked_fill((raw <= 1) & (by_log2 > 0), 0)
    shift = None if gradient.offset is None else (gradient.offset * ranges.adc_lsb).float()
    return by_log2.float(), shift


def gradients(
    layer: nn.Module,
    inputs: Quantized,
    weights: Quantized,
    grad: Tensor,
    needed: tuple[bool, bool, bool],
    dtypes: tuple[torch.dtype, torch.dtype],
    *,
    multiply: torch.dtype | None = None,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the straight-through gradients of a layer's input, weight and bias, each None if not needed.

    Args:
        layer: the plain layer.
        inputs: its input as the DACs see it.
        weights: its weights as ideal cells hold them.
        grad: of its output.
        needed: which are.
        dtypes: of the gradients of its input, and of its weight and bias.
        multiply: what products are computed in; None: the type of `grad`.
    """
    axes = [axis for axis in range(grad.dim()) if axis != _channels(layer, grad)]
    bias = grad.sum(axes).to(dtypes[1]) if needed[2] else None
    grad = grad.to(multiply or grad.dtype)
    q, w = inputs.of_type(grad.dtype), weights.of_type(grad.dtype)
    grad_x, grad_w = _product_gradients(layer, q, w, grad, needed)
    return (
        None if grad_x is None else inputs.passed(grad_x).to(dtypes[0]),
        None if grad_w is None else weights.passed(grad_w).to(dtypes[1]),
        bias,
    )


def _channels(layer: nn.Module, grad: Tensor) -> int:
    return grad.dim() - 1 if isinstance(layer, nn.Linear) else 1


def _product_gradients(
    layer: nn.Module, x: Tensor, w: Tensor, grad: Tensor, needed: tuple[bool, bool, bool]
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
