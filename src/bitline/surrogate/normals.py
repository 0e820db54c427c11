"""Normal numbers for every output of a layer at the price of reading them.

A draw takes 20 times as long as what is done with it. So one table is drawn, and every image reads a window of it,
whose place is a function of a seed and of the number of the image. A window holds independent numbers; those of two
images may overlap, shifted, so that what they have in common lies at other places of their maps.
"""

from functools import cache

import torch
from torch import Tensor

from bitline import seeds

BASES = 2**18
"""places of the first window of a block of images"""
STEP = 1021
"""from the window of an image to that of the next; a prime, so that no map is a whole number of steps"""
BLOCK = 256
"""images between two draws of a base"""
MOST = 2**22
"""numbers of a window that do not repeat"""


def numbers(seed: int, count: int, like: Tensor) -> Tensor:
    """Return normal numbers that a seed determines, (count,), of the type and on the torch device of `like`.

    Args:
        seed: any.
        count: how many; beyond `MOST` they repeat.
        like: what they are for.
    """
    window = _table(_rounded(min(count, MOST)), like.dtype, like.device)[_base(seed, 0) :][: min(count, MOST)]
    return window if count <= MOST else window.repeat(-(-count // MOST))[:count]


def of_images(seed: int, first: int, like: Tensor) -> Tensor:
    """Return normal numbers for a layer's outputs, a function of (seed, number of the image, place in memory).

    Args:
        seed: of the layer on its chip.
        first: number of the first image.
        like: the outputs, (images, ...), each image dense in memory.

    Returns:
        The shape, type and torch device of `like`; views of a table, not to be written to.
    """
    count = like[0].numel()
    table = _table(_rounded(count), like.dtype, like.device)
    parts: list[Tensor] = []
    start, images = first, like.shape[0]
    while start < first + images:
        block, place = divmod(start, BLOCK)
        some = min(BLOCK - place, first + images - start)
        offset = _base(seed, block) + place * STEP
        parts.append(table.as_strided((some, *like.shape[1:]), (STEP, *like.stride()[1:]), offset))
        start += some
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _base(seed: int, block: int) -> int:
    return seeds.of_step(seed, block) % BASES


def _rounded(count: int) -> int:
    """Sizes of tables: few, so that few are kept."""
    return max(2**20, 2 ** (count - 1).bit_length())


@cache
def _drawn(count: int) -> Tensor:
    # Longer tables begin as shorter ones do: they are drawn in blocks of their own.
    blocks = range(-(-(count + BASES + BLOCK * STEP) // 2**20))
    return torch.cat([torch.randn(2**20, generator=seeds.generator("surrogate", block)) for block in blocks])


@cache
def _table(count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    return _drawn(count).to(device, dtype)
