"""Straight-through estimators: the forward value of one thing, the gradient of another."""

from typing import NamedTuple

from torch import Tensor

from bitline.mapping.quantize import widen


class Quantized(NamedTuple):
    """Real numbers rounded to integers times a scale.

    Args:
        value: what became of them.
        inside: where they did not clip, bool; the gradient is 1 there and 0 elsewhere.
    """

    value: Tensor
    inside: Tensor


def fake_quantize(x: Tensor, scale: Tensor | float, low: int, high: int) -> Quantized:
    """Round to integers times scale.

    Args:
        x: real, any shape.
        scale: positive, broadcasts against `x`.
        low: lowest integer.
        high: highest integer.
    """
    q = (widen(x.detach()) / scale).round_()
    # Judged by the integer: x / scale may exceed the highest one by a rounding error and still not clip.
    inside = (q >= low) & (q <= high)
    return Quantized((q.clamp_(low, high) * scale).to(x.dtype), inside)
