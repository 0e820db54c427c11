"""Digital multiply-accumulate units, for layers that stay off the crossbars: published arithmetic, moved to the node.

What else such a layer costs is counted with everything's: inputs and weights read from tile buffers, buses, results.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from bitline.chip.description import Chip
from bitline.chip.records import Record, Volt
from bitline.cost.events import mac_bits
from bitline.cost.table import Area, Joule, read, scale

if TYPE_CHECKING:
    from bitline.mapping.layer import LayerPlacement

UNITS = 64
"""multiply-accumulate units of a layer, each one product a clock cycle. Assumed: as fast as a layer on crossbars"""


class Arithmetic(Record):
    """Energy and area of integer multipliers and adders."""

    vdd: Volt
    multiply_energy: Joule
    """of 8 x 8 bits"""
    multiply_area: Area
    """of 8 x 8 bits"""
    add_energy: Joule
    """of 32 bits"""
    add_area: Area
    """of 32 bits"""


@lru_cache(maxsize=1)
def arithmetic() -> Arithmetic:
    """Read the published numbers."""
    return read("_horowitz-45nm", Arithmetic)


@dataclass(frozen=True)
class MacPrices:
    """One multiply-accumulate unit on a chip.

    Args:
        product: energy of a product of an input and a weight, J.
        adder_bit: energy of one full adder of the accumulator, J.
        product_area: of its multiplier, m2.
        adder_bit_area: of one full adder, m2.
    """

    product: float
    adder_bit: float
    product_area: float
    adder_bit_area: float


def mac_prices(chip: Chip) -> MacPrices:
    """Move the published numbers to a chip's widths, node and supply."""
    table = arithmetic()
    share = chip.inputs.bits * chip.weights.bits / 64
    energy, area = scale(table.multiply_energy, chip, table.vdd), scale(table.multiply_area, chip, table.vdd)
    return MacPrices(
        product=share * energy,
        adder_bit=scale(table.add_energy, chip, table.vdd) / 32,
        product_area=share * area,
        adder_bit_area=scale(table.add_area, chip, table.vdd) / 32,
    )


@dataclass(frozen=True)
class DigitalCost:
    """Products of one image that no layer on the chip makes, on digital units of their own.

    Args:
        name: of what makes them.
        macs: multiply-accumulates.
        energy_J: of multipliers and of accumulators of 32 bits.
        latency_s: of one image, a product a unit and clock cycle.
        area_m2: of the units.
    """

    name: str
    macs: int
    energy_J: float  # noqa: N815
    latency_s: float
    area_m2: float


_ACCUMULATOR = 32
"""bits. Assumed: what is summed up is not known here"""


def digital_cost(name: str, macs: int, chip: Chip) -> DigitalCost:
    """Price products off the layers; what moves their operands is not priced."""
    one, bits = mac_prices(chip), _ACCUMULATOR
    return DigitalCost(
        name,
        macs,
        energy_J=macs * (one.product + bits * one.adder_bit),
        latency_s=math.ceil(macs / UNITS) / chip.timing.clock,
        area_m2=chip.system.copies * UNITS * (one.product_area + bits * one.adder_bit_area),
    )


def mac_area(layer: LayerPlacement) -> float:
    """Area of the units that a digital layer has, all copies, m2; 0 for a layer on crossbars."""
    if not layer.digital_macs:
        return 0.0
    one = mac_prices(layer.chip)
    return layer.chip.system.copies * UNITS * (one.product_area + mac_bits(layer) * one.adder_bit_area)


def mac_time(layer: LayerPlacement) -> float:
    """Time that a digital layer's units take for one input vector of every group, s."""
    return math.ceil(layer.digital_macs / layer.matmul.positions / UNITS) / layer.chip.timing.clock
