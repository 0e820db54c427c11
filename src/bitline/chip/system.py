"""Time of a read, and what stands around the crossbars."""

from typing import Annotated, Self

from pydantic import model_validator

from bitline import units
from bitline.chip.plausible import Plausible
from bitline.chip.records import Clock, Record, Second, Switch
from bitline.units import GHz, nm, ps

FO4 = 0.5 * ps / nm
"""Delay of an inverter that drives four, slow corner, for each metre of node (Ho, Mai, Horowitz, Proc. IEEE 2001)"""
FASTEST_FO4 = 0.2 * ps / nm
"""The same of the fastest logic that is sold: POWER6 runs at 5 GHz at 65 nm. Assumed; all of these are recalled"""
FEWEST_FO4 = 10
"""Of them in a clock cycle: 8 of logic and 2 of a flip-flop (Hrishikesh et al., ISCA 2002)"""
DEFAULT_CLOCK = 1 * GHz


def usual_clock(node: float) -> float:
    """Clock that any logic of a node [m] reaches, Hz."""
    return 1 / (FEWEST_FO4 * FO4 * node)


def fastest_clock(node: float) -> float:
    """Clock that no logic of a node [m] exceeds, Hz."""
    return 1 / (FEWEST_FO4 * FASTEST_FO4 * node)


def default_clock(node: float) -> float:
    """Clock of a chip that says none, Hz: 1 GHz, or what logic reaches where the node [m] is older than 200 nm."""
    return min(DEFAULT_CLOCK, usual_clock(node))


class Timing(Record):
    """Time of one read of a crossbar."""

    read: Second = 100e-9
    """wordline, cell and bitline settle; without sample-and-hold and under `table` ADCs, the clock of one sensing"""
    pulse: Second | None = None
    """how long the read voltage stays on the cells; `read` where absent"""
    sample_and_hold: Switch = True
    """conversions of one read hide behind the next read (ISAAC); else they follow it"""
    clock: Clock = DEFAULT_CLOCK
    """of the digital periphery; in a chip of a node above 200 nm, where absent, what its logic reaches"""

    @model_validator(mode="after")
    def _a_pulse_is_part_of_a_read(self) -> Self:
        if self.pulse is not None and self.pulse > self.read:
            raise ValueError(
                f"pulse = {units.pretty(self.pulse, 's')} exceeds read = {units.pretty(self.read, 's')}, which it is "
                "part of"
            )
        return self


def _up_to(most: int, usual: int, why: str) -> Plausible:
    return Plausible(1, most, f"{why}; assumed", usual=(1, usual))


class System(Record):
    """What stands around the crossbars: macros in a tile, tiles on a chip, buffers and network."""

    crossbars_per_macro: Annotated[int, _up_to(2**12, 64, "crossbars that share one control")] = 8
    macros_per_tile: Annotated[int, _up_to(2**12, 256, "macros on one bus")] = 12
    tiles: Annotated[int, _up_to(2**20, 2**14, "a wafer holds no more")] | None = None
    """tiles on the chip; as many as the network needs where absent"""
    buffer_kib: Annotated[int, _up_to(2**20, 2**15, "SRAM of a tile, KiB")] = 64
    """activation buffer of a tile, KiB"""
    bus_bits: Annotated[int, _up_to(2**16, 4096, "wires side by side")] = 256
    """wires of a tile's bus"""
    hops: Annotated[float, Plausible(0, 2048, "across a mesh of 2**20 tiles and back", usual=(0, 128))] = 1.0
    """tiles that a layer's output passes on its way to the next layer"""
    copies: Annotated[int, _up_to(2**14, 1024, "one for each position of a layer")] = 1
    """copies of every layer, which share its positions"""
