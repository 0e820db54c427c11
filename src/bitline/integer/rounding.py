"""Shifts and divisions of integers that round to nearest, ties to even, one for every channel."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


def shift_left(x: Tensor, shift: Tensor) -> Tensor:
    """Shift integers left, (..., channels), each channel by its own number of bits, (channels,)."""
    return x << shift.to(x.dtype) if bool(shift.any()) else x


class RightShift(NamedTuple):
    """A right shift that rounds: ``(x + below_half + ((x >> bits) & last_bit)) >> bits``.

    Args:
        bits: of the shift, (channels,).
        below_half: the largest integer below half of ``2**bits``; half of it and more rounds up where the quotient is
            odd.
        last_bit: mask of the quotient's last bit; 0 where nothing is shifted.
    """

    bits: Tensor
    below_half: Tensor
    last_bit: Tensor


def right_shift(shift: Tensor) -> RightShift:
    """Find what a right shift adds to round; shifts below zero, which go left, count as 0."""
    bits = shift.clamp(min=0)
    last_bit = (bits > 0).to(bits.dtype)
    return RightShift(bits, ((1 << (bits - 1).clamp(min=0)) - 1) * last_bit, last_bit)


def shift_right(x: Tensor, shift: Tensor) -> Tensor:
    """Shift integers right and round, (..., channels), each channel by its own number of bits, (channels,)."""
    bits, below_half, last_bit = (t.to(x.dtype) for t in right_shift(shift))
    if not bool(bits.any()):
        return x
    return (x + below_half + ((x >> bits) & last_bit)) >> bits


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


def reciprocal(divisor: int, shift: Tensor, floor: Tensor, ceiling: Tensor) -> Reciprocal:
    """Find the reciprocal of ``divisor * 2**shift``; the quotient is exact for dividends from `floor` to `ceiling`.

    With a numerator below 2^n and a divisor 2D, ``factor = ceil(2^s / 2D)`` and ``s = n + ceil(log2 2D)`` give the
    quotient exactly: factor * 2D exceeds 2^s by less than 2D <= 2^(s - n) (T. Granlund and P. Montgomery, "Division by
    invariant integers using multiplication", PLDI 1994, doi:10.1145/178243.178249, theorem 4.2).

    Args:
        divisor: odd.
        shift: below zero a left shift of the dividend, (channels,) int64.
        floor: the least dividend, (channels,) int64.
        ceiling: the largest.
    """
    whole = divisor << shift.clamp(min=0)
    left = (-shift).clamp(min=0)
    least, most = floor << left, ceiling << left
    above = -(torch.div(least, 2 * whole, rounding_mode="floor").clamp(max=0)) * 2
    numerator = 2 * (most + above * whole) + whole
    bits = int(numerator.max()).bit_length()
    log = torch.tensor([int(w - 1).bit_length() for w in (2 * whole).tolist()], dtype=torch.int64)
    product_shift = bits + log
    factor = torch.tensor(
        [-(-(1 << s) // (2 * w)) for s, w in zip(product_shift.tolist(), whole.tolist(), strict=True)],
        dtype=torch.int64,
    )
    return Reciprocal(whole, left, above, factor, product_shift, bits)


def divide(x: Tensor, r: Reciprocal) -> Tensor:
    """Divide integers and round, int64, (..., channels)."""
    # Two times the dividend, plus the divisor, never below zero: a quotient that rounds ties up.
    twice = (shift_left(x, r.left) + r.above * r.whole) * 2 + r.whole
    quotient = (twice * r.factor) >> r.shift
    tie = (twice - quotient * (2 * r.whole) == 0).to(x.dtype)
    return quotient - (tie & quotient & 1) - r.above
