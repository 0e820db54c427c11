"""Energy [J], area [m2] and leakage [W] of one event or circuit; each equation with its source."""

import math
from dataclasses import dataclass

from bitline.chip.description import Chip
from bitline.chip.system import FEWEST_FO4, fastest_clock
from bitline.cost.adc import SAR_CAPACITOR, Model, adc_cost
from bitline.cost.digital import mac_prices
from bitline.cost.sram import ports, sram
from bitline.cost.table import CostTable, scale
from bitline.errors import ChipError
from bitline.units import GHz, fF, nm, pretty

DAC_CAPACITANCE = 50 * fF
"""Of a DAC, for each of its bits; none for one bit (KULeuven-MICAS/zigzag 3d12a96, imc_array.py)."""
WIRE_ACTIVITY = 0.25
"""Share of bits that charge their wire: one in four of random data (DNN+NeuroSim V1.3 HTree.cpp)."""
REPEATERS = 2.0
"""Capacitance of a repeated wire over that of the wire. Assumed: fastest repeaters about double it."""
SENSE_PITCH = 4.0
"""Distance of neighbouring sense wires of a segmented crossbar, feature sizes. Assumed: twice the finest pitch."""


def cell_energy(volt: float, conductance: float, seconds: float, access_resistance: float = 0.0) -> float:
    """Heat of one cell under a read pulse, V^2 g / (1 + g R) t (MNSIM-2.0 Crossbar.py; CiMLoop, arXiv:2405.07259).

    Args:
        volt: on wordline or bitline, against the other.
        conductance: S.
        seconds: of the pulse.
        access_resistance: of the transistor in series, ohm.
    """
    return volt**2 * conductance / (1 + conductance * access_resistance) * seconds


def bitline_energy(volt: float, length: float, capacitance: float) -> float:
    """Charge of one bitline, C V^2 with C = capacitance [F/m] x length [m] (DNN+NeuroSim V1.3 SubArray.cpp)."""
    return capacitance * length * volt**2


def dac_energy(bits: int, vdd: float) -> float:
    """Conversion of one digit of several bits, 50 fF b Vdd^2 (zigzag-imc); a one-bit DAC is the wordline driver."""
    return DAC_CAPACITANCE * bits * vdd**2 if bits > 1 else 0.0


def dac_area(bits: int, node: float) -> float:
    """Area of a DAC of several bits: a capacitor a code, as in a SAR ADC (Saberi et al., TCAS-I 2011); m2.

    A one-bit DAC is the wordline driver, which has an area of its own.
    """
    return SAR_CAPACITOR * 2**bits * (node / (32 * nm)) ** 2 if bits > 1 else 0.0


TABLE_CLOCK = 1 * GHz
"""Clock at which the energies of digital events hold. Assumed"""


def check_clock(chip: Chip) -> None:
    """Raise ChipError where no logic of the chip's node reaches its clock."""
    most = fastest_clock(chip.node)
    if chip.timing.clock > most:
        raise ChipError(
            f"timing.clock = {pretty(chip.timing.clock, 'Hz')}: logic at {pretty(chip.node, 'm')} reaches "
            f"{pretty(most, 'Hz')} at most ({FEWEST_FO4} inverter delays a cycle)"
        )


def wire_energy(length: float, capacitance: float, vdd: float) -> float:
    """One bit of random data over a repeated wire: 1/4 of its bits charge C [F/m] x length, repeaters double C."""
    return WIRE_ACTIVITY * REPEATERS * capacitance * length * vdd**2


def _cell_pitch(chip: Chip) -> float:
    """Distance of neighbouring wordlines if cells are square, m."""
    return math.sqrt(chip.cell.area_f2) * chip.node


def segment_area(chip: Chip) -> float:
    """Switches and sense wires of a segmented crossbar, m2; 0 without segments. Assumed, nothing of it is published.

    Every bitline has a switch between two neighbouring segments and one from each segment to a sense wire, each as
    large as a cell, whose access transistor it resembles. Each segment has sense wires enough to keep its share of the
    ADCs busy. They cross the crossbar in a metal layer above the cells, and take area where they run down beside it.
    """
    crossbar = chip.crossbar
    if crossbar.segment_rows is None:
        return 0.0
    segments = crossbar.rows // crossbar.segment_rows
    switches = crossbar.cols * (2 * segments - 1) * chip.cell.area_f2 * chip.node**2
    wires = segments * math.ceil(math.ceil(crossbar.cols / chip.adc.columns_per_adc) / segments)
    return switches + wires * SENSE_PITCH * chip.node * crossbar.rows * _cell_pitch(chip)


@dataclass(frozen=True)
class Areas:
    """Areas of one crossbar, one macro and one tile by component, m2."""

    crossbar: dict[str, float]
    macro: dict[str, float]
    tile: dict[str, float]


def areas(chip: Chip, table: CostTable, model: Model, accumulator: int) -> Areas:
    """Price what stands at every crossbar, macro and tile.

    Args:
        chip: sizes.
        table: areas.
        model: of the ADC.
        accumulator: width of a running sum, bits.
    """
    rows, cols = chip.crossbar.rows, chip.crossbar.cols
    adcs = math.ceil(cols / chip.adc.columns_per_adc)
    per_macro = chip.system.crossbars_per_macro

    def of(entry: str) -> float:
        return scale(getattr(table, entry), chip, table.vdd)

    crossbar = {
        "cells": rows * cols * chip.cell.area_f2 * chip.node**2,
        "segments": segment_area(chip),
        "row_drivers": rows * (of("row_driver_area") + dac_area(chip.dac.bits, chip.node)),
        "adc": adcs * adc_cost(model, chip, table).area,
        "sample_hold": cols * of("sample_hold_area") if chip.timing.sample_and_hold else 0.0,
        "shift_add": adcs * of("shift_add_area"),
        "periphery": of("periphery_area"),
    }
    sums = per_macro * (chip.weight_columns + chip.reference_columns) * accumulator
    macro = {
        "input_register": per_macro * rows * chip.inputs.bits * of("input_register_area"),
        "output_register": sums * of("output_register_area"),
    }
    kib, wires = chip.system.buffer_kib, chip.system.bus_bits
    if table.buffer_area is None:
        buffer = sram(chip.node, kib, wires).area
    else:
        buffer = ports(wires, table.bus_wires) * kib * of("buffer_area")
    tile = {
        "adder_tree": of("adder_tree_area"),
        "output_register": of("tile_register_area"),
        "buffer": buffer,
        "bus": of("bus_area") * wires / table.bus_wires,
        "network": of("router_area"),
        "activation": of("activation_area"),
        "pooling": of("pooling_area"),
    }
    return Areas(crossbar, macro, tile)


@dataclass(frozen=True)
class Prices:
    """Energy of one event of each kind, J; the fields are events of `bitline.cost.events.Events`."""

    conversion: float
    driven_wordline: float
    driven_cell: float
    driven_siemens: float
    """of one siemens of driven cells"""
    bitline: float
    sample: float
    shift_add: float
    tree_adder_bit: float
    offset_adder_bit: float
    mac_product: float
    mac_adder_bit: float
    output_register_bit: float
    input_register_bit: float
    buffer_read_bit: float
    buffer_write_bit: float
    bus_bit: float
    bit_hop: float
    activation: float
    pooling: float


def prices(chip: Chip, table: CostTable, model: Model, tile_edge: float) -> Prices:
    """Price one event of each kind.

    Args:
        chip: voltages, times, sizes.
        table: energies.
        model: of the ADC.
        tile_edge: length of a bus and of a hop where the table has no energy of its own for them, m.
    """

    def of(entry: str) -> float:
        return scale(getattr(table, entry), chip, table.vdd)

    volt, seconds = chip.cell.read_voltage, chip.timing.pulse or chip.timing.read
    capacitance = table.wire_capacitance.si
    wire = wire_energy(tile_edge, capacitance, chip.vdd)
    physical, mac = cells_by_conductance(chip, table, model), mac_prices(chip)
    kib, wires = chip.system.buffer_kib, chip.system.bus_bits
    if table.buffer_energy is None:
        read, write = sram(chip.node, kib, wires).read, sram(chip.node, kib, wires).write
    else:
        read = write = of("buffer_energy")
    drive = of("wordline_energy") + chip.crossbar.cols * of("wordline_energy_per_column")
    return Prices(
        conversion=adc_cost(model, chip, table).energy,
        driven_wordline=drive + dac_energy(chip.dac.bits, chip.vdd),
        driven_cell=0.0 if physical else of("cell_energy"),
        driven_siemens=cell_energy(volt, 1.0, seconds) if physical else 0.0,
        bitline=bitline_energy(volt, chip.crossbar.rows * _cell_pitch(chip), capacitance) if physical else 0.0,
        sample=of("sample_hold_energy"),
        shift_add=of("shift_add_energy"),
        tree_adder_bit=of("adder_tree_energy"),
        offset_adder_bit=of("adder_bit_energy"),
        mac_product=mac.product,
        mac_adder_bit=mac.adder_bit,
        output_register_bit=of("output_register_energy"),
        input_register_bit=of("input_register_energy"),
        buffer_read_bit=read,
        buffer_write_bit=write,
        bus_bit=wire if table.bus_energy is None else of("bus_energy"),
        bit_hop=wire if table.hop_energy is None else of("hop_energy"),
        activation=of("activation_energy"),
        pooling=of("pooling_energy"),
    )


def cells_by_conductance(chip: Chip, table: CostTable, model: Model) -> bool:
    """Whether cells are priced as V^2 g t: if the chip says so, or if the table has them in an ADC that is not used."""
    return chip.cell_cost == "conductance" or (table.cell_energy.within == "adc_energy" and model != "table")
