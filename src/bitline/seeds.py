"""Seeds that depend on what is drawn, never on order, batch size, threads or torch device.

`derive` and `generator` serve whatever has a name: cells of a chip, stages of a recipe, samples; so does anything new.
`of_step` serves one step of a training, `of_call` the positions that a reconstruction samples in one call of a layer,
and `read_keys` the noise of reads, a tensor of them at once. Chips and trainings that exist draw what they always drew.
"""

import hashlib
from operator import index
from typing import SupportsIndex, cast

import torch
from torch import Tensor

from bitline.errors import DataError, shown

_GOLDEN, _FIRST, _SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
"""of SplitMix64: G. Steele et al., OOPSLA 2014, doi:10.1145/2660193.2660195"""
_TILE = 0xD1B54A32D192ED03
_MASK = 2**64 - 1


MOST = 2**63 - 1
"""the highest seed; torch takes signed numbers of 64 bits"""


def check(seed: object, name: str = "seed", *, least: int = 0, count: int = 1) -> int:
    """Return a seed that is a whole number in range; nothing is rounded, cut off or read as one.

    Args:
        seed: the first one.
        name: of the option, for the message.
        least: lowest that is allowed.
        count: how many follow each other from it.

    Raises:
        DataError: another type, or out of range.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise DataError(
            f"{name} is {shown(seed)}, a {type(seed).__name__}; allowed: whole numbers from {least} to 2**63 - 1"
        )
    value = index(cast("SupportsIndex", seed))
    if not least <= value <= MOST - max(count - 1, 0):
        following = f" less the {count - 1} that follow it" if count > 1 else ""
        raise DataError(f"{name} is {shown(value)}; allowed: {least} to 2**63 - 1{following}")
    return value


def derive(*parts: int | str) -> int:
    """Return a 63-bit seed that the parts determine: ``derive(chip_seed, "conv2", "programming")``."""
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded by the parts; results are moved to where they are needed."""
    return torch.Generator().manual_seed(derive(*parts))


def of_step(*numbers: int) -> int:
    """Return the 63-bit seed of one step of a training: ``of_step(seed, epoch, batch)``.

    The finalizer of SplitMix64 after each number, so that neighbours have unrelated random numbers.
    """
    state = 0
    for number in numbers:
        state = (state + number + _GOLDEN) & _MASK
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state >> 1  # torch takes signed 64-bit seeds


def of_call(seed: int, batch: int, call: int) -> int:
    """Return the seed of one call of a layer on one batch, unlike all others below 1,009 calls and 100,003 batches."""
    return (seed * 100_003 + batch) * 1_009 + call


def read_keys(seed: int, image: Tensor, position: Tensor, tile: int) -> list[Tensor]:
    """Hash what a read is known by to four 16-bit keys, int32, each the shape of `image`.

    The finalizer of SplitMix64 on tensors; the native kernels compute the same.

    Args:
        seed: of the layer on its chip, below 2**63.
        image: its number since the chip was programmed, int64.
        position: of the input vector within its image, int64.
        tile: number of the row tile.
    """
    h = _mix(_mix(image * _signed(_GOLDEN) + position) ^ seed)
    h = _mix(h + _signed(tile * _TILE % 2**64))
    return [(h >> shift & 0xFFFF).int() for shift in (0, 16, 32, 48)]


def _mix(x: Tensor) -> Tensor:
    """Finalizer of SplitMix64; int64 products wrap, and the bits that a signed shift brings in are masked."""
    x = (x ^ (x >> 30 & 2**34 - 1)) * _signed(_FIRST)
    x = (x ^ (x >> 27 & 2**37 - 1)) * _signed(_SECOND)
    return x ^ (x >> 31 & 2**33 - 1)


def _signed(x: int) -> int:
    return x - 2**64 if x >= 2**63 else x
