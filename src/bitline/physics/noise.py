"""Read noise: what two reads of the same cells differ by."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bitline.chip.cell import AbsoluteReadNoise, Cell, ProportionalReadNoise
from bitline.physics.normal import SIGMA, normals
from bitline.seeds import read_keys

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

    def draw(self, vectors: Tensor, positions: int, tile: int, shape: tuple[int, int, int, int, int]) -> Tensor:
        """Standard normal numbers for every conversion of one row tile.

        Args:
            vectors: numbers of input vectors within the batch, int64, (vectors,).
            positions: input vectors of an image.
            tile: number of the row tile.
            shape: (groups, digits, slices, converted sides, stored columns).

        Returns:
            float32, (groups, digits, vectors, slices, converted sides, stored columns).
        """
        groups, digits, slices, sides, columns = shape
        image = vectors.div(positions, rounding_mode="floor")
        keys = read_keys(self.seed, image + self.first_image, vectors - image * positions, tile)
        pairs = math.ceil(digits / 2)
        # Two digits share a counter; it runs over pairs of digits, sides, slices, columns and groups.
        counter = torch.arange(groups * columns * slices * sides * pairs, device=vectors.device)
        counter = counter.view(groups, columns, slices, sides, pairs).permute(0, 4, 2, 3, 1)[:, :, None]
        z = normals(counter, [k[:, None, None, None] for k in keys])
        return z.flatten(1, 2)[:, :digits].float() / SIGMA

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
                cancelled = self.cell.zero / self.cell.step
                variance = ((levels.double() + cancelled) * sigma).square()
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
