"""Straight-through estimators: the forward value of one thing, the gradient of another."""

from typing import Any

import torch
from torch import Tensor

from bitline.mapping.quantize import widen


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, surrogate: Tensor, value: Tensor) -> Tensor:
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return `value`, bit for bit, with the gradient of `surrogate`; shapes and dtypes agree."""
    return _StraightThrough.apply(surrogate, value)  # pyright: ignore[reportReturnType]


def fake_quantize(x: Tensor, scale: Tensor | float, low: int, high: int) -> Tensor:
    """Round to integers times scale; the gradient is 1 where x does not clip and 0 where it does.

    Args:
        x: real, any shape.
        scale: positive, broadcasts against `x`.
        low: lowest integer.
        high: highest integer.
    """
    q = (widen(x.detach()) / scale).round_()
    # Judged by the integer: x / scale may exceed the highest one by a rounding error and still not clip.
    inside = (q >= low) & (q <= high)
    return straight_through((q.clamp_(low, high) * scale).to(x.dtype), x * inside)
