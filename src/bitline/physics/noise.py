"""Read noise: what two reads of the same cells differ by."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bitline.chip.description import AbsoluteReadNoise, Cell, ProportionalReadNoise
from bitline.physics import seeds

BLOCK = 16
"""positions of one image that share a seed, hence the least that is drawn at once"""
_VARIANCE_BITS = 24


@dataclass(frozen=True)
class ReadNoise:
    """Noise of every read of one layer's cells, a function of (chip seed, layer, image number, place).

    Independent cell noise of variance v adds up along a bitline to variance sum(digit^2 v).

    Args:
        cell: the memory element and its noise.
        seed: of this layer on this chip.
        first_image: number of the batch's first image since the chip was programmed.
    """

    cell: Cell
    seed: int
    first_image: int = 0

    def draw(self, image: int, tile: int, position: int, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers for one row tile and the block of positions that starts at `position`."""
        source = seeds.generator(self.seed, self.first_image + image, tile, position)
        return torch.randn(shape, generator=source)

    @property
    def proportional(self) -> bool:
        """Whether the noise of a cell grows with its conductance."""
        return isinstance(self.cell.read_noise, ProportionalReadNoise)

    def cell_variance(self, levels: Tensor) -> Tensor:
        """Variance of each cell in level units squared, float64, the shape of `levels`.

        It has 24 bits, so that sums of variances are exact in any order.
        """
        match self.cell.read_noise:
            case ProportionalReadNoise(sigma=sigma):
                leak = self.cell.g_min / self.cell.step if self.cell.leak == "cancelled" else 0.0
                variance = ((levels.double() + leak) * sigma).square()
                top = float(variance.max()) if variance.numel() else 0.0
                unit = 2.0 ** (math.frexp(top)[1] - _VARIANCE_BITS)
                return (variance / unit).round_().mul_(unit)
            case AbsoluteReadNoise(sigma=sigma):
                return torch.full_like(levels, (sigma / self.cell.step) ** 2, dtype=torch.float64)
            case _:
                return torch.zeros_like(levels, dtype=torch.float64)

    @property
    def absolute_sigma(self) -> float:
        """Standard deviation of one cell driven by a digit of 1, level units; zero if proportional."""
        noise = self.cell.read_noise
        return noise.sigma / self.cell.step if isinstance(noise, AbsoluteReadNoise) else 0.0


def blocks(images: int, positions: int, most: int) -> list[tuple[int, int]]:
    """Cut images x positions vectors into runs of at most `most` vectors, or one block of positions.

    Returns:
        Half-open ranges of vectors, none of which splits a block of `BLOCK` positions of one image.
    """
    per_image = math.ceil(positions / BLOCK)
    ends = [i * positions + min((b + 1) * BLOCK, positions) for i in range(images) for b in range(per_image)]
    runs: list[tuple[int, int]] = []
    start = stop = 0
    for end in ends:
        if end - start > most and stop > start:
            runs.append((start, stop))
            start = stop
        stop = end
    if stop > start:
        runs.append((start, stop))
    return runs
