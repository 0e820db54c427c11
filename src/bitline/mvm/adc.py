"""Analog sum to code: range policies, rounding, clipping.

code = clip(round((a - offset) / lsb), low, high), result = code * lsb + offset, ties to even, in level units.

Two choices keep every path exact. An LSB below one level is never used (where sums are whole levels it resolves
nothing), except for a range that the chip fixes. An LSB has 10 significant bits, as the fixed-point factor of a
shift-and-add unit would, so that weighted codes add up in doubles without rounding.

So a sum's place among the codes, (a - offset) / lsb, lies on a middle between two codes or at least 1 / (2 D) away from
it, D = max(the LSB's odd part, lsb / unit of a). Rounded to f binary places, 2**-f <= 1 / (2 D), no place moves onto or
across a middle if it was off by less than 2**-(f + 1), and those that belong on one come to lie exactly there: then
rounding them to even gives the code of exact arithmetic. `AdcScale.places` says f.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bitline.chip.adc import Adc
from bitline.errors import MappingError
from bitline.mvm.product import Product
from bitline.physics.levels import effective, level_current

Granularity = Literal["layer", "slice", "slice_digit", "column"]
_SIGNIFICANT_BITS = 10


@dataclass(frozen=True)
class AdcScale:
    """Ranges of a layer's ADCs.

    Args:
        lsb: level units, float64, (groups or 1, digits or 1, slices or 1, stored columns or 1).
        offset: level units, the same shape.
        low: lowest code, None if codes have no end.
        high: highest code, None if codes have no end.
    """

    lsb: Tensor
    offset: Tensor
    low: int | None
    high: int | None

    def copy(self) -> "AdcScale":
        """The same ranges, which stay as they are when a buffer that they came from is written."""
        return AdcScale(self.lsb.clone(), self.offset.clone(), self.low, self.high)

    def convert(self, a: Tensor) -> Tensor:
        """Return the codes of analog sums, float64; `a` broadcasts against `lsb`."""
        code = torch.round((a.double() - self.offset) / self.lsb)
        return code if self.low is None else code.clamp(self.low, self.high)

    @property
    def odd(self) -> Tensor:
        """LSBs without their powers of two: whole numbers if they have at most 10 significant bits."""
        mantissa = torch.frexp(self.lsb).mantissa * 2**_SIGNIFICANT_BITS
        return mantissa / torch.gcd(mantissa.long(), torch.tensor(2**_SIGNIFICANT_BITS, device=mantissa.device))

    def places(self, most: float, unit: float) -> int | None:
        """Binary places of (a - offset) / lsb that give the code of exact arithmetic; None if float32 has too few.

        Args:
            most: no sum exceeds it, nor its negative, level units.
            unit: sums are whole multiples of it, level units; a power of two.
        """
        most += float(self.offset.abs().max())
        # 22 bits are exact in float32, as is their difference to an offset.
        if not _whole(self.odd) or not _whole(self.offset / unit) or most > unit * 2**22:
            return None
        places = math.ceil(math.log2(float(torch.maximum(self.odd, self.lsb / unit).max()))) + 1
        # Places beyond the last code may err: they clip.
        end = most / float(self.lsb.min())
        last = end if self.low is None or self.high is None else min(end, max(-self.low, self.high) + 1)
        return places if last < 2 ** (22 - places) else None

    def resolves(self, least: float, most: float) -> bool:
        """Whether every whole number from `least` to `most` converts without rounding or clipping."""
        if not bool((self.lsb == 1).all()) or not bool((self.offset == self.offset.round()).all()):
            return False
        if self.low is None or self.high is None:
            return True
        return bool((self.offset + self.low <= least).all() and (self.offset + self.high >= most).all())


def _whole(x: Tensor) -> bool:
    return bool((x == x.round()).all())


def shape(granularity: Granularity, product: Product) -> tuple[int, int, int, int]:
    """Shape of the ranges under a granularity: (groups, digits, slices, stored columns), 1 where shared."""
    placement = product.placement
    digits, slices = len(product.digit_weights), len(product.slice_weights)
    match granularity:
        case "layer":
            return 1, 1, 1, 1
        case "slice":
            return 1, 1, slices, 1
        case "slice_digit":
            return 1, digits, slices, 1
        case "column":
            return placement.matmul.groups, 1, 1, placement.stored_columns


def code_range(adc: Adc, product: Product) -> tuple[int, int]:
    """Lowest and highest code: signed where pairs are subtracted before conversion; an odd number is symmetric."""
    least = -(adc.codes // 2) if product.subtracts else 0
    return least, least + adc.codes - 1


def lossless() -> AdcScale:
    """One level a step and codes without end: an ADC that rounds to integers."""
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    return AdcScale(one, torch.zeros_like(one), None, None)


def from_range(low: Tensor, high: Tensor, product: Product, adc: Adc | None = None) -> AdcScale:
    """Spread the codes of an ADC evenly from `low` to `high`.

    Args:
        low: least sum to be told apart, level units, (groups or 1, digits or 1, slices or 1, columns or 1).
        high: largest sum, the same shape.
        product: the layer.
        adc: the converter; the chip's where absent.
    """
    adc = adc or product.placement.chip.adc
    least, most = code_range(adc, product)
    if product.subtracts:
        reach = torch.maximum(low.abs(), high.abs()).double()
        lsb = snap(reach / most if most else 2 * reach)
        return AdcScale(lsb, _middle(lsb, most), least, most)
    offset = low.double().round()
    return AdcScale(snap((high.double() - offset) / most), offset, least, most)


def _middle(lsb: Tensor, most: int) -> Tensor:
    """Offset of signed codes: 0, but for the codes -1 and 0 of a comparator, which stand for -lsb/2 and lsb/2."""
    return torch.zeros_like(lsb) if most else torch.round(lsb / 2)


def snap(lsb: Tensor) -> Tensor:
    """Round LSBs to 10 significant bits, and up to at least one level."""
    return _significant(lsb.double()).clamp(min=1)


def _significant(lsb: Tensor) -> Tensor:
    mantissa, exponent = torch.frexp(lsb)
    return torch.ldexp(torch.round(mantissa * 2**_SIGNIFICANT_BITS), exponent - _SIGNIFICANT_BITS)


def full(product: Product) -> AdcScale:
    """Range from zero (for pairs: from the negative) to the largest possible sum of the tallest row tile."""
    high = torch.full((1, 1, 1, 1), largest_sum(product), dtype=torch.float64)
    return from_range(torch.zeros_like(high), high, product)


def largest_sum(product: Product) -> float:
    """Largest analog sum of ideal cells, leak included, level units."""
    cell = product.placement.chip.cell
    level = float(cell.max_level) if cell.leak == "cancelled" else effective(cell.g_max, cell)
    rows = product.placement.weight_rows or product.max_rows
    return product.max_digit * (rows * level + (product.max_rows - rows) * cell.leak_levels)


def fixed(product: Product) -> AdcScale:
    """Range in amperes from the chip file.

    A bitline carries read_voltage x step for each level of a cell that a full-scale digit drives. The highest code
    stands for the upper end of the range, the lowest for the lower one. Where pairs are subtracted before their
    conversion and the ends are alike, code 0 stands for no current: of an even number of codes one is not used.

    Raises:
        MappingError: the chip has no fixed range.
    """
    chip = product.placement.chip
    if chip.adc.range is None:
        raise MappingError(f"chip {chip.name} has no adc.range; policy is {chip.adc.policy}")
    unit = level_current(chip)
    least, most = code_range(chip.adc, product)
    if chip.adc.range.low == -chip.adc.range.high and most:
        least = -most
    low, high = chip.adc.range.low / unit, chip.adc.range.high / unit
    lsb = _significant(torch.full((1, 1, 1, 1), (high - low) / (most - least), dtype=torch.float64))
    return AdcScale(lsb, torch.round(low - least * lsb), least, most)
