"""Forward through the chip, backward through the plain product of quantized inputs and weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from bitline.nn.base import CrossbarLayer


class Answer(torch.autograd.Function):
    """What a layer on a chip answers, with a straight-through gradient.

    The gradient is that of the plain layer at its quantized inputs and weights, and zero where these clip.
    """

    @staticmethod
    def forward(ctx: Any, layer: "CrossbarLayer", x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Answer; ctx keeps what the gradient needs."""
        ctx.layer = layer
        ctx.save_for_backward(x, weight)
        return layer.answer(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor | None, Tensor | None, Tensor | None]:
        """Return the gradients of x, weight and bias."""
        x, weight = ctx.saved_tensors
        _, need_x, need_w, need_b = ctx.needs_input_grad
        return None, *gradients(ctx.layer, x, weight, grads[0], (need_x, need_w, need_b))


def gradients(
    layer: "CrossbarLayer", x: Tensor, weight: Tensor, grad: Tensor, needed: tuple[bool, bool, bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Return the straight-through gradients of a layer's input, weight and bias, each None if not needed.

    Args:
        layer: the layer.
        x: its input.
        weight: its weights.
        grad: of its output.
        needed: which are.
    """
    inputs, weights = layer.fake_input(x), layer.fake_weight()
    bias = grad.sum([axis for axis in range(grad.dim()) if axis != _channels(layer, grad)]) if needed[2] else None
    grad_x, grad_w = _product_gradients(layer, inputs.value, weights.value, grad, needed)
    return (
        None if grad_x is None else grad_x * inputs.inside,
        None if grad_w is None else grad_w * weights.inside,
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
        grad, x, w, None, conv.stride, padding, conv.dilation, False, [0] * len(conv.stride), conv.groups,
        [needed[0], needed[1], False],
    )  # fmt: skip
    return grad_x, grad_w
