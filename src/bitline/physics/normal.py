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


def key(seed: int, image: Tensor, position: Tensor, tile: int) -> list[Tensor]:
    """Hash what a read is known by to four 16-bit keys, int32, each the shape of `image`.

    Args:
        seed: of the layer on its chip, below 2**63.
        image: its number since the chip was programmed, int64.
        position: of the input vector within its image, int64.
        tile: number of the row tile.
    """
    h = _mix(_mix(image * _signed(0x9E3779B97F4A7C15) + position) ^ seed)
    h = _mix(h + _signed(tile * 0xD1B54A32D192ED03 % 2**64))
    return [(h >> shift & _MASK).int() for shift in (0, 16, 32, 48)]


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x


def _mix(x: Tensor) -> Tensor:
    """Finalizer of splitmix64 (Steele et al., OOPSLA 2014); int64 products wrap."""
    x = (x ^ (x >> 30 & 2**34 - 1)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> 27 & 2**37 - 1)) * _signed(0x94D049BB133111EB)
    return x ^ (x >> 31 & 2**33 - 1)


def normals(counter: Tensor, keys: Sequence[Tensor]) -> Tensor:
    """Return pairs of normal numbers in units of 1 / SIGMA.

    Args:
        counter: below 2**32, int64; its shape broadcasts against the keys, and begins with two axes of its own.
        keys: four of 16 bits, int32.

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
