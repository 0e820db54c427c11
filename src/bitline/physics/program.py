"""Target levels to the conductances that cells really take, once per write."""

import torch
from torch import Tensor

from bitline.chip.description import Cell, GaussianAbsolute, GaussianProportional, Ideal, LogNormal, PerLevel

RESOLUTION = 2**-7
"""of effective levels: an order below the error of any cell worth adapting to, and coarse enough that the sums of a
row tile are exact in 16 bits and in any order, so that a result does not depend on batch size, threads or torch
device"""


def program(levels: Tensor, cell: Cell, *, generator: torch.Generator) -> Tensor:
    """Write levels into cells.

    A target conductance lies on a line from g_min to g_max; the cell's programming model says how far
    the written one departs from it. No conductance falls below zero.

    Args:
        levels: integers in [0, 2**bits), any shape, on any torch device.
        cell: levels, conductances and the programming model.
        generator: a CPU generator; the same seed writes the same cells on every torch device.

    Returns:
        Conductance as programmed, S, float32, the shape of `levels`.
    """
    target = cell.g_min + levels.float() * cell.step
    noise = torch.randn(levels.shape, generator=generator).to(levels.device)
    match cell.programming:
        case Ideal():
            return target
        case LogNormal(sigma=sigma):
            return target * torch.exp(noise * sigma)
        case GaussianProportional(sigma=sigma):
            return (target * (1 + noise * sigma)).clamp_(min=0)
        case GaussianAbsolute(sigma=sigma):
            return (target + noise * sigma).clamp_(min=0)
        case PerLevel(sigma=sigma, mean=mean):
            index = levels.long()
            if mean is not None:
                target = torch.tensor(mean, device=levels.device)[index]
            return (target + noise * torch.tensor(sigma, device=levels.device)[index]).clamp_(min=0)


def effective_levels(levels: Tensor, stuck: Tensor, cell: Cell, *, generator: torch.Generator) -> Tensor:
    """Return what a read of the cells adds to a bitline per unit of input, in level units.

    (g - g_min) / step where a reference column cancels the leak, g / step where the leak is kept.

    Args:
        levels: integers in [0, 2**bits), any shape.
        stuck: -1 where a cell works, else the level it is stuck at, the same shape, int16.
        cell: the memory element.
        generator: of the programming error.

    Returns:
        uint8 where every cell sits exactly on a level, else float32, whole multiples of `RESOLUTION`.
    """
    ideal = isinstance(cell.programming, Ideal)
    if ideal and cell.leak == "cancelled":
        return torch.where(stuck >= 0, stuck, levels.to(stuck.dtype)).to(torch.uint8)
    g = program(levels, cell, generator=generator)
    g = torch.where(stuck >= 0, cell.g_min + stuck.float() * cell.step, g)
    real = (g - cell.g_min if cell.leak == "cancelled" else g) / cell.step
    return (real / RESOLUTION).round_().mul_(RESOLUTION)
