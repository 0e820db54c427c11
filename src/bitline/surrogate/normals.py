"""Normal numbers for the weights of a layer at the price of reading them.

A draw takes 20 times as long as what is done with it. So one table is drawn, and a layer on a chip reads a window of
it, whose place is a function of a seed. A window holds independent numbers; those of two seeds may overlap, shifted.
"""

from functools import cache

import torch
from torch import Tensor

from bitline import seeds

PLACES = 2**18
"""where windows may begin"""
MOST = 2**22
"""numbers of a window"""


def numbers(seed: int, count: int, like: Tensor) -> Tensor:
    """Return normal numbers that a seed determines, of the type and on the torch device of `like`.

    Args:
        seed: any.
        count: how many; no more than `MOST` are there.
        like: what they are for.
    """
    some = min(count, MOST)
    # Sizes of tables are few, so that few are kept.
    table = _table(max(2**20, 2 ** (some - 1).bit_length()), like.dtype, like.device)
    return table[seeds.of_step(seed, 0) % PLACES :][:some]


@cache
def _drawn(count: int) -> Tensor:
    # Longer tables begin as shorter ones do: they are drawn in blocks of their own.
    blocks = range(-(-(count + PLACES) // 2**20))
    return torch.cat([torch.randn(2**20, generator=seeds.generator("surrogate", block)) for block in blocks])


@cache
def _table(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _drawn(count).to(device, dtype)
