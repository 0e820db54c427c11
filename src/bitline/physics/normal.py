"""Normal numbers that are a pure function of (seed, image, position, row tile, conversion), in integers throughout.

Read noise needs one for every conversion of every image, whatever the batch size, the order or the machine. A keyed
permutation of a 32-bit counter (a Philox-like Feistel network on 16-bit halves; Salmon et al., SC 2011,
10.1145/2063384.2063405) gives two uniform 16-bit numbers, and a piecewise linear quantile function makes them normal.
One in 1,024 lies in a tail, beyond 3.3 standard deviations; the permutation of another counter says where in it.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

SIGMA = 4096
"""integer that stands for one standard deviation"""
FAR = 2**15 - 32
"""from which 15 bits on a number lies in a tail"""
MOST = 30_030
"""no normal number is larger: 7.3 standard deviations"""
MOST_CONVERSIONS = 2**30
"""of a row tile: counters below; those of tails are above"""
_ROUNDS = 7
_MULTIPLIER = 0xE875
_WEYL = 0x9E37
_SEGMENTS = 32
_SCALE = 4088.65
"""of the knots between the middle and the outermost segment, such that the standard deviation of all is SIGMA"""
_MASK = 0xFFFF
_TAIL = 2.0**-11
"""probability of either tail"""


def normals(counter: Tensor, keys: Sequence[Tensor]) -> Tensor:
    """Return pairs of normal numbers in units of 1 / SIGMA.

    Args:
        counter: below `MOST_CONVERSIONS`, int64; its shape broadcasts against the keys, and begins with two axes of
            its own.
        keys: four of 16 bits, int32, from `bitline.seeds.read_keys`.

    Returns:
        int16, (first axis, second axis, 2, remaining axes).
    """
    both = torch.stack(_permute(counter, keys), dim=2)
    z = quantiles().to(both.device).index_select(0, both.flatten()).view(both.shape)
    tails = ((both & 0x7FFF) >= FAR).nonzero(as_tuple=True)
    if len(tails[0]):
        first, second, half, *rest = tails
        own = (first, second, *rest)
        shape = (*both.shape[:2], *both.shape[3:])
        again = counter.expand(shape)[own] + ((2 + half) << 30)
        high, low = _permute(again, [key.expand(shape)[own] for key in keys])
        far = _far((high.long() << 16) + low)
        z[tails] = torch.where(both[tails] < 2**15, far, -far).to(torch.int16)
    return z


def _permute(counter: Tensor, keys: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Two uniform 16-bit numbers for each counter of 32 bits, int32."""
    left, right = (counter & _MASK).int() ^ keys[0], (counter >> 16).int() ^ keys[1]
    for step in range(_ROUNDS):
        # int32 products wrap; their 32 bits are right all the same.
        product = left * _MULTIPLIER
        weyl = (keys[2 + step % 2] + _WEYL * step) & _MASK
        left, right = (product >> 16 & _MASK) ^ weyl ^ right, product & _MASK
    return left, right


@cache
def quantiles() -> Tensor:
    """Return the normal number that each uniform 16-bit number stands for, int16, (65536,); 0 in the tails.

    The quantile function is linear between 32 knots of the upper half, and between 32 more in the last segment of it.
    """
    share = torch.arange(_SEGMENTS + 1).double() / _SEGMENTS
    inner = (torch.special.ndtri((0.5 + share / 2).clamp(max=0.99)) * _SCALE).round().long()
    outer = (torch.special.ndtri((0.5 + (_SEGMENTS - 1 + share) / 64).clamp(max=1 - _TAIL)) * SIGMA).round().long()
    m = torch.arange(2**15)
    segment, fraction = m >> 10, m & 1023
    z = inner[segment] + ((inner.diff()[segment] * (fraction << 6)) >> 16)
    step, rest = fraction >> 5, fraction & 31
    z = torch.where(segment == _SEGMENTS - 1, outer[step] + ((outer.diff()[step] * (rest << 11)) >> 16), z)
    z[FAR:] = 0
    return torch.cat([z, -z]).to(torch.int16)


@cache
def tail() -> Tensor:
    """Return knots of the quantile function in a tail, int64, (1025,): at shares 2**(k/32 - 32) of it, piecewise.

    32 of each octave of the share, evenly spaced; between them it is linear.
    """
    octave, step = torch.arange(32).double()[:, None], torch.arange(32).double()
    share = ((1 + step / 32) * 2 ** (octave - 32)).flatten()
    share = torch.cat([share, torch.ones(1, dtype=torch.float64)])
    return (-torch.special.ndtri(_TAIL * share) * SIGMA).round().long()


def _far(w: Tensor) -> Tensor:
    """How far out a share of the tail of w / 2**32 lies, for w below 2**32, int64."""
    w = w.clamp(min=1)
    # Doubles hold 32 bits exactly, and their exponent is the octave.
    octave = torch.frexp(w.double()).exponent.long() - 1
    fraction = (w << (31 - octave)) & (2**31 - 1)
    knots = tail().to(w.device)
    at = octave * 32 + (fraction >> 26)
    step = fraction >> 10 & _MASK
    return knots[at] + (((knots[at + 1] - knots[at]) * step) >> 16)
