"""Normal numbers that are a pure function of (seed, image, position, row tile, conversion), in integers throughout.

Read noise needs one for every conversion of every image, whatever the batch size, the order or the machine. A keyed
permutation of a 32-bit counter (a Philox-like Feistel network on 16-bit halves; Salmon et al., SC 2011,
10.1145/2063384.2063405) gives two uniform 16-bit numbers, and a piecewise linear quantile function makes them normal.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

SIGMA = 4096
"""integer that stands for one standard deviation"""
_ROUNDS = 7
_MULTIPLIER = 0xE875
_WEYL = 0x9E37
_SEGMENTS = 32
_SCALE = 4086.66
"""of the knots, such that the standard deviation of what lies between them is SIGMA"""
_MASK = 0xFFFF


def normals(counter: Tensor, keys: Sequence[Tensor]) -> Tensor:
    """Return pairs of normal numbers in units of 1 / SIGMA.

    Args:
        counter: below 2**32, int64; its shape broadcasts against the keys, and begins with two axes of its own.
        keys: four of 16 bits, int32, from `bitline.seeds.read_keys`.

    Returns:
        int16, (first axis, second axis, 2, remaining axes).
    """
    left, right = (counter & _MASK).int() ^ keys[0], (counter >> 16).int() ^ keys[1]
    for step in range(_ROUNDS):
        # int32 products wrap; their 32 bits are right all the same.
        product = left * _MULTIPLIER
        weyl = (keys[2 + step % 2] + _WEYL * step) & _MASK
        left, right = (product >> 16 & _MASK) ^ weyl ^ right, product & _MASK
    both = torch.stack([left, right], dim=2)
    return quantiles().to(left.device).index_select(0, both.flatten()).view(both.shape)


@cache
def quantiles() -> Tensor:
    """Return the normal number that each uniform 16-bit number stands for, int16, (65536,).

    The quantile function is linear between 32 knots of the upper half, and between 32 more in the last segment of it.
    """
    knots = _knots(torch.arange(_SEGMENTS + 1) / _SEGMENTS)
    tail = _knots((_SEGMENTS - 1 + torch.arange(_SEGMENTS + 1) / _SEGMENTS) / _SEGMENTS)
    m = torch.arange(2**15)
    segment, fraction = m >> 10, m & 1023
    z = knots[segment] + ((knots.diff()[segment] * (fraction << 6)) >> 16)
    step, rest = fraction >> 5, fraction & 31
    z = torch.where(segment == _SEGMENTS - 1, tail[step] + ((tail.diff()[step] * (rest << 11)) >> 16), z)
    return torch.cat([z, -z]).to(torch.int16)


def _knots(share: Tensor) -> Tensor:
    """Quantiles at shares of the upper half, the last one at 1 - 2**-17 of the whole, in integers."""
    p = (0.5 + share.double() / 2).clamp(max=1 - 2**-17)
    return (torch.special.ndtri(p) * _SCALE).round().long()
