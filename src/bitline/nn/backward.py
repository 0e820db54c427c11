"""Forward through the chip, backward through the plain product of quantized inputs and weights."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

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
        grad_x, grad_w, _ = torch.ops.aten.convolution_backward(
            grad, x, w, None, conv.stride, conv.padding, conv.dilation, False, [0] * len(conv.stride), conv.groups,
            [needed[0], needed[1], False],
        )  # fmt: skip
        return grad_x, grad_w
    with torch.enable_grad():
        x, w = x.requires_grad_(needed[0]), w.requires_grad_(needed[1])
        wanted = [t for t in (x, w) if t.requires_grad]
        found = iter(torch.autograd.grad(layer.plain(x, w), wanted, grad))
    return (next(found) if needed[0] else None, next(found) if needed[1] else None)
