"""The lowest and highest integer of every value whatever the image, and the bits that hold both: the worst case."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from bitline.errors import MappingError

MOST_BITS = 62
"""of a value, its sign left out: int64 holds the sum of two"""
_MOST_SHIFT = 40


@dataclass(frozen=True)
class Format:
    """Integers that a value is rounded to: times 2^exponent, from low to high."""

    exponent: int
    low: int
    high: int


@dataclass(frozen=True)
class Bounds:
    """Between what integers a value lies, for every channel, int64.

    Args:
        exponents: of its unit; the unit is 2^exponent / divisor.
        low: lowest integer that can occur.
        high: highest.
        divisor: odd.
    """

    exponents: Tensor
    low: Tensor
    high: Tensor
    divisor: int = 1

    @staticmethod
    def of_format(form: Format, channels: int) -> "Bounds":
        """Bounds of a value that may be any integer of a format."""
        exponents, low, high = (torch.full((channels,), n) for n in (form.exponent, form.low, form.high))
        return Bounds(exponents, low, high)

    @staticmethod
    def of_channels(values: Sequence["Bounds"]) -> "Bounds":
        """Bounds of several values whose channels stand behind each other."""
        parts = [[value.exponents, value.low, value.high] for value in values]
        exponents, low, high = map(torch.cat, zip(*parts, strict=True))
        return Bounds(exponents, low, high)

    @property
    def bits(self) -> int:
        """Bits, sign included, that hold every integer that can occur."""
        ends = (int(self.high.max()), -int(self.low.min()) - 1)
        return max(0, *ends).bit_length() + 1

    def relu(self) -> "Bounds":
        """Bounds where zero stands in the place of what is below it."""
        return Bounds(self.exponents, self.low.clamp(min=0), self.high.clamp(min=0), self.divisor)

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Bounds":
        """Bounds of channels that are reordered or repeated, by a function of one number for each."""
        return Bounds(move(self.exponents), move(self.low), move(self.high), self.divisor)

    def window_sum(self, places: int, divisor: int, *, padded: bool, where: str) -> "Bounds":
        """Bounds of an average: the sum of a window, in a unit that is finer by the divisor.

        Args:
            places: of the window.
            divisor: of the average; its factors of two go into the exponents.
            padded: zeros may be among the places.
            where: what averages, for errors.

        Raises:
            MappingError: a sum that no 62 bits hold.
        """
        check_room(torch.stack([self.low, self.high]).abs().double() * places, where)
        twos = (divisor & -divisor).bit_length() - 1
        low, high = self.low * places, self.high * places
        if padded:
            low, high = low.clamp(max=0), high.clamp(min=0)
        return Bounds(self.exponents - twos, low, high, divisor >> twos)

    def matrix_product(self, weight: Tensor, bias: Tensor, exponents: Tensor) -> "Bounds":
        """Bounds of a product with a matrix, zeros in the padding included.

        Args:
            weight: int64, (groups, rows, cols).
            bias: in the unit of the products, int64, (groups * cols,).
            exponents: of that unit, (groups * cols,).
        """
        low, high = min(0, int(self.low.min())), max(0, int(self.high.max()))
        most = (weight.clamp(min=0) * high + weight.clamp(max=0) * low).sum(1).flatten() + bias
        least = (weight.clamp(min=0) * low + weight.clamp(max=0) * high).sum(1).flatten() + bias
        return Bounds(exponents, least, most)


class Sum(NamedTuple):
    """A sum in the finest unit of its terms.

    Args:
        shifts: left shift of each term, (channels,) int64.
        bounds: of the sum.
    """

    shifts: tuple[Tensor, ...]
    bounds: Bounds


def sum_of(terms: Sequence[Bounds], where: str) -> Sum:
    """Bounds of a sum; channel by channel, the terms are shifted to the finest of their units.

    Raises:
        MappingError: units too far apart, or a sum that no 62 bits hold.
    """
    return sum_in(torch.stack([term.exponents for term in terms]).amin(0), terms, where)


def sum_in(exponents: Tensor, terms: Sequence[Bounds], where: str) -> Sum:
    """Bounds of a sum in a unit at least as fine as those of its terms; raises as `sum_of` does."""
    shifts = tuple(term.exponents - exponents for term in terms)
    low, high = (
        torch.stack([finer(end, shift, where) for end, shift in zip(ends, shifts, strict=True)]).sum(0)
        for ends in ([term.low for term in terms], [term.high for term in terms])
    )
    return Sum(shifts, Bounds(exponents, low, high))


def finer(integers: Tensor, shift: Tensor, where: str) -> Tensor:
    """Shift integers left to a finer unit.

    Raises:
        MappingError: units too far apart, or integers that no 62 bits hold.
    """
    if int(shift.max()) > _MOST_SHIFT:
        raise MappingError(f"{where}: units differ by 2^{int(shift.max())}; at most 2^{_MOST_SHIFT} can be aligned")
    check_room(torch.ldexp(integers.abs().double(), shift), where)
    return integers << shift


def check_room(magnitudes: Tensor, where: str) -> None:
    """Raise MappingError where 62 bits do not hold a magnitude."""
    if (most := float(magnitudes.max())) >= 2.0**MOST_BITS:
        raise MappingError(f"{where}: sums of up to {most:.3g} can occur; no more than {MOST_BITS} bits can hold any")


def check_width(bounds: Bounds, accumulator_bits: int, where: str) -> None:
    """Raise MappingError where an accumulator does not hold a value."""
    if bounds.bits > accumulator_bits:
        raise MappingError(
            f"{where}: sums from {int(bounds.low.min())} to {int(bounds.high.max())} can occur, which takes "
            f"{bounds.bits} bits; accumulator_bits = {accumulator_bits}"
        )
