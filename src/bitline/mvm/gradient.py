"""Straight-through estimators: the forward value of one thing, the gradient of another."""

from typing import Any

import torch
from torch import Tensor


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
    """Round to integers times scale; the gradient is 1 within the range and 0 where x clips.

    Args:
        x: real, any shape.
        scale: positive, broadcasts against `x`.
        low: lowest integer.
        high: highest integer.
    """
    inside = x.clamp(low * scale, high * scale) if isinstance(scale, float) else torch.clamp(x, low * scale, high * scale)
    value = (x.detach() / scale).round().clamp(low, high) * scale
    return straight_through(value, inside)
