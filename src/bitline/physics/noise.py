"""Read noise: what two reads of the same cells differ by, in whole multiples of the resolution of levels."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bitline.chip.cell import AbsoluteReadNoise, Cell, ProportionalReadNoise
from bitline.errors import MappingError
from bitline.physics.normal import MOST, MOST_CONVERSIONS, SIGMA, normals
from bitline.physics.steps import RESOLUTION
from bitline.seeds import read_keys

_VARIANCE_BITS = 24
_SIGMA_BITS = 15
_FINE = 2**_SIGMA_BITS / SIGMA / RESOLUTION
"""steps of a standard deviation in one level"""


def steps(power: Tensor) -> Tensor:
    """Return the standard deviations of sums in steps of 1/1024 level, int64, from their variances, float64."""
    return power.sqrt().mul_(_FINE).round_().long()


def levels(z: Tensor, sigma: Tensor) -> Tensor:
    """Return what noise adds to sums, level units: whole multiples of `RESOLUTION`, halves rounded up.

    Args:
        z: normal numbers in units of 1 / SIGMA, integers.
        sigma: of the sums, from `steps`; broadcasts.

    Returns:
        float32 where that holds them, else float64; the broadcast shape.
    """
    small = not sigma.numel() or int(sigma.max()) * MOST < 2**31 - 2**_SIGMA_BITS
    whole, real = (torch.int32, torch.float32) if small else (torch.int64, torch.float64)
    units = (z.to(whole) * sigma.to(whole)).add_(2 ** (_SIGMA_BITS - 1)).bitwise_right_shift_(_SIGMA_BITS)
    return units.to(real).mul_(RESOLUTION)


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
        """Normal numbers for every conversion of one row tile, in units of 1 / SIGMA.

        Args:
            vectors: numbers of input vectors within the batch, int64, (vectors,).
            positions: input vectors of an image.
            tile: number of the row tile.
            shape: (groups, digits, slices, converted sides, stored columns).

        Returns:
            int16, (groups, digits, vectors, slices, converted sides, stored columns).

        Raises:
            MappingError: a row tile of 2**30 conversions or more.
        """
        groups, digits, slices, sides, columns = shape
        image = vectors.div(positions, rounding_mode="floor")
        keys = read_keys(self.seed, image + self.first_image, vectors - image * positions, tile)
        pairs = math.ceil(digits / 2)
        if (count := groups * columns * slices * sides * pairs) >= MOST_CONVERSIONS:
            raise MappingError(f"read noise of {count} pairs of conversions of a row tile; at most {MOST_CONVERSIONS}")
        # Two digits share a counter; it runs over pairs of digits, sides, slices, columns and groups.
        counter = torch.arange(count, device=vectors.device)
        counter = counter.view(groups, columns, slices, sides, pairs).permute(0, 4, 2, 3, 1)[:, :, None]
        z = normals(counter, [k[:, None, None, None] for k in keys])
        return z.flatten(1, 2)[:, :digits]

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
                unit = _unit(top)
                return (variance / unit).round_().mul_(unit)
            case _:
                return torch.full_like(levels, self.absolute_variance, dtype=torch.float64)

    @property
    def absolute_variance(self) -> float:
        """Variance of any cell driven by a digit of 1, level units squared, of 24 bits; zero if proportional."""
        noise = self.cell.read_noise
        if not isinstance(noise, AbsoluteReadNoise):
            return 0.0
        variance = (noise.sigma / self.cell.step) ** 2
        return round(variance / _unit(variance)) * _unit(variance)


def _unit(top: float) -> float:
    """Value of the last of the bits of variances of at most `top`."""
    return 2.0 ** (math.frexp(top)[1] - _VARIANCE_BITS)
