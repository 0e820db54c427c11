"""Effective levels as memory keeps them: whole levels in a byte, else whole steps of a resolution in 16 bits."""

import torch
from torch import Tensor

RESOLUTION = 2**-7
"""of effective levels: an order below the error of any cell worth adapting to, and coarse enough that the sums of a
row tile are exact in 16 bits and in any order, so that a result does not depend on batch size, threads or torch
device"""
_MOST = 2**15 - 1


def keep(levels: Tensor) -> Tensor:
    """Return effective levels as memory keeps them.

    Args:
        levels: uint8, or float32 in whole multiples of `RESOLUTION`; any shape.

    Returns:
        uint8 as it is; else the multiples, int16, or the levels themselves where a cell is beyond 16 bits.
    """
    if levels.dtype != torch.float32 or not levels.numel():
        return levels
    low, high = levels.aminmax()
    fits = max(-float(low), float(high)) <= _MOST * RESOLUTION
    return (levels * (1 / RESOLUTION)).to(torch.int16) if fits else levels


def in_levels(kept: Tensor) -> Tensor:
    """Return what `keep` keeps in level units, uint8 or float32."""
    return kept * RESOLUTION if kept.dtype == torch.int16 else kept
