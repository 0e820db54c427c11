"""Time of a read, and what stands around the crossbars."""

from typing import Annotated

from pydantic import Field

from bitline.chip.records import Count, Hertz, Record, Second, Switch


class Timing(Record):
    """Time of one read of a crossbar."""

    read: Second = 100e-9
    """wordline, cell and bitline settle; without sample-and-hold and under `table` ADCs, the clock of one sensing"""
    pulse: Second | None = None
    """how long the read voltage stays on the cells; `read` where absent"""
    sample_and_hold: Switch = True
    """conversions of one read hide behind the next read (ISAAC); else they follow it"""
    clock: Hertz = 1e9
    """of the digital periphery"""


class System(Record):
    """What stands around the crossbars: macros in a tile, tiles on a chip, buffers and network."""

    crossbars_per_macro: Count = 8
    macros_per_tile: Count = 12
    tiles: Count | None = None
    """tiles on the chip; as many as the network needs where absent"""
    buffer_kib: Count = 64
    """activation buffer of a tile, KiB"""
    bus_bits: Count = 256
    """wires of a tile's bus"""
    hops: Annotated[float, Field(strict=True, ge=0)] = 1.0
    """tiles that a layer's output passes on its way to the next layer"""
    copies: Count = 1
    """copies of every layer, which share its positions"""
