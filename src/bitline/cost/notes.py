"""What a price rests on: assumptions, scalings and omissions, said in words beside the figures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from bitline.chip.description import Chip
from bitline.chip.formats import Pair
from bitline.chip.leak import leak_remark
from bitline.chip.system import usual_clock
from bitline.cost.adc import MODELS, WIDTHS, turns
from bitline.cost.buffers import Spill, off_chip, tiles
from bitline.cost.circuits import TABLE_CLOCK, cells_by_conductance
from bitline.cost.digital import UNITS
from bitline.cost.sram import WIDEST, ports, sram
from bitline.cost.table import CostTable
from bitline.units import nm, pretty

if TYPE_CHECKING:
    from bitline.mapping.place import Placement

Data = Literal["measured", "assumed", "fixed"]

_DATA: dict[Data, tuple[str, ...]] = {
    "measured": (),
    "assumed": (),  # what it would be otherwise takes prices: `bitline.cost.model`
    "fixed": ("data are ignored: every wordline is driven in every cycle, cells are at their middle level",),
}

_ADC_NODE = {"isaac": 32 * nm, "zigzag": 28 * nm}
"""Nodes of the ADC models that have one"""


_SPARSE = 0.05
"""utilization below which a layer of several groups is said to leave its crossbars empty"""


def notes(placement: Placement, table: CostTable, data: Data, lacking: Sequence[Spill]) -> tuple[str, ...]:
    """Say what was assumed, scaled or left out.

    Args:
        placement: that is priced.
        table: that it is priced by.
        data: where bit densities come from.
        lacking: what does not fit the buffers.
    """
    chip = placement.chip
    lines = [*_DATA[data], *_scaled(chip, table), *_compared(chip, table), *_elsewhere(table), *_adc(placement, table)]
    lines += [*_surroundings(placement), *_ports(chip, table), *_spilled(chip, lacking)]
    if not cells_by_conductance(chip, table, chip.adc.model):
        inside = ", inside its conversions" if table.cell_energy.within == "adc_energy" else ""
        lines.append(f"cells are priced by table {table.name}{inside}: conductances do not move the energy")
    if chip.weights.scale == "any":
        lines.append("the scale of each output is a real number: multiplying by it is digital and not priced")
    if chip.inputs.zero_point:
        lines.append(
            "what the zero points of inputs add to a result is taken off with its bias: one constant, no event"
        )
    lines += [leak] if (leak := leak_remark(chip)) else []
    silent = [layer.matmul.name for layer in placement.layers if not layer.matmul.inputs]
    if silent:
        lines.append(f"number of inputs unknown, so that their arrival is not priced: {', '.join(silent)}")
    return tuple(_digital(placement) + lines + _mapping(placement) + _sparse(placement))


def _digital(placement: Placement) -> list[str]:
    """Say what share of the multiplications no layer that is placed makes, and what of them is priced."""
    if placement.digital is None:
        return ["what makes products off these layers is not known, and not priced: to_crossbar had no example"]
    left, macs = placement.digital_macs, placement.macs + placement.digital_macs
    if not left:
        return []
    return [
        f"{left:,} of {macs:,} MACs ({left / macs:.1%}) are of digital operations: their multipliers and accumulators "
        f"are priced after Horowitz (ISSCC 2014), {UNITS} units each; moving their operands is not"
    ]


def _sparse(placement: Placement) -> list[str]:
    """Point to other layouts where layers of several groups leave nearly all cells of their crossbars empty."""
    sparse = [
        layer
        for layer in placement.layers
        if layer.matmul.groups > 1 and layer.strategy == "dense" and layer.utilization < _SPARSE
    ]
    if not sparse:
        return []
    least = min(sparse, key=lambda layer: layer.utilization)
    return [
        f"layers of several groups (depthwise, grouped) take {sum(layer.crossbars for layer in sparse)} of "
        f"{placement.crossbars} crossbars and use less than {_SPARSE:.0%} of their cells, least {least.matmul.name} "
        f"with {least.utilization:.1%}: --mapping auto lays each out as costs least energy"
    ]


def _compared(chip: Chip, table: CostTable) -> list[str]:
    """Say what the table is known to miss, and where the chip lies outside of what it was compared with."""
    lines = [f"table {table.name}: {table.caution}"] if table.caution else []
    for limit in table.limits:
        value = limit.value(chip)
        of_adc = limit.key in ("adc.bits", "adc.columns_per_adc")
        if limit.low * (1 - 1e-6) <= value <= limit.high * (1 + 1e-6) or (of_adc and chip.adc.model != "table"):
            continue
        low, high, given = (pretty(v, "m") if limit.key == "node" else f"{v:g}" for v in (limit.low, limit.high, value))
        compared = low if low == high else f"{low} to {high}"
        lines.append(f"{limit.key} = {given}, and table {table.name} was compared at {compared}: {limit.beyond}")
    return lines


def _elsewhere(table: CostTable) -> list[str]:
    """Say which model prices what the table has no entry for."""
    missing = [
        (("buffer_energy", "buffer_area"), "SRAM buffers come from a grid of CACTI 7 runs"),
        (("bus_energy", "hop_energy"), "a bit to a macro or to the next tile takes a repeated wire as long as a tile"),
        (("adc_time",), "a conversion of model table takes 1 / adc.sample_rate"),
        (("adc_level_energy",), "a comparator takes its share of adc_energy") if table.adc_law == "flash" else ((), ""),
    ]
    return [
        f"table {table.name} has no {' and no '.join(absent)}: {instead}"
        for names, instead in missing
        if (absent := [name for name in names if getattr(table, name) is None])
    ]


def _surroundings(placement: Placement) -> list[str]:
    """Say what is assumed of the network, the clock and the DACs, and what they do not pay for."""
    chip, lines = placement.chip, list[str]()
    system = chip.system
    used = tiles(chip, placement.crossbars * system.copies)
    if system.hops > used - 1:
        most = (
            f"in {used} tiles an activation passes {used - 1} at most"
            if used > 1
            else "on one tile nothing passes between tiles"
        )
        lines.append(f"system.hops = {system.hops:g}: {most}")
    if chip.timing.clock > TABLE_CLOCK:
        lines.append(
            f"timing.clock = {pretty(chip.timing.clock, 'Hz')}: digital energies and areas are those of "
            f"{pretty(TABLE_CLOCK, 'Hz')}; faster logic and its clock tree are not priced"
        )
    usual = usual_clock(chip.node)
    if chip.timing.clock > usual:
        lines.append(
            f"timing.clock = {pretty(chip.timing.clock, 'Hz')}: logic at {pretty(chip.node, 'm')} mostly reaches "
            f"{pretty(usual, 'Hz')}; the energy and area of faster logic are not priced"
        )
    elif chip.timing.clock == usual:
        lines.append(f"timing.clock = {pretty(usual, 'Hz')}, what logic at {pretty(chip.node, 'm')} mostly reaches")
    if chip.dac.bits > 1:
        lines.append(
            f"DACs of {chip.dac.bits} bits have a capacitor for each code, as in a SAR ADC, and take 50 fF a bit; "
            "that they settle within timing.read is not checked"
        )
    return lines


def _ports(chip: Chip, table: CostTable) -> list[str]:
    """Say what a bus takes that is wider than a buffer's port."""
    widest = WIDEST if table.buffer_area is None else table.bus_wires
    several = ports(chip.system.bus_bits, widest)
    if several == 1:
        return []
    return [
        f"system.bus_bits = {chip.system.bus_bits}: buffers have {several} ports of {widest} bits, each with the area "
        "and the leakage of a whole buffer (assumed)"
    ]


def _spilled(chip: Chip, lacking: Sequence[Spill]) -> list[str]:
    """Say which layers do not fit their buffers."""
    spilled = [spill for spill in lacking if spill.share]
    if not spilled:
        return []
    worst = max(spilled, key=lambda spill: spill.share)
    return [
        f"buffers of {chip.system.buffer_kib} KiB a tile (system.buffer_kib) are too small for {len(spilled)} layers, "
        f"most of all {worst.layer}: {100 * worst.share:.2g} % of its {worst.needed / 8192:.3g} KiB go off the chip, "
        f"at {pretty(off_chip().bit_energy.si, 'J')} a bit over one channel of "
        f"{1e-9 / off_chip().bit_time.si / 8:.3g} GB/s for all layers; the area of that interface is not priced"
    ]


def _mapping(placement: Placement) -> list[str]:
    """Say what layers that are not dense rest on."""
    lines, strategies = list[str](), {layer.strategy for layer in placement.layers}
    if "digital" in strategies:
        lines.append(
            f"digital layers are priced after Horowitz (ISSCC 2014), {UNITS} units each; inputs and weights are read "
            "from tile buffers for every position"
        )
    if placement.chip.crossbar.segment_rows is not None:
        lines.append("area of segment switches and sense wires is assumed, and they take no time")
    elif "strip" in strategies:
        lines.append("no bitline segments (crossbar.segment_rows): strips share columns over time, nothing more")
    return lines


def _scaled(chip: Chip, table: CostTable) -> list[str]:
    """Say what was scaled to another node or supply."""
    lines: list[str] = []
    if abs(chip.node / table.node - 1) > 1e-6:
        lines.append(f"table {table.name} is scaled from {table.node / nm:g} to {chip.node / nm:g} nm")
    elif abs(chip.vdd / table.vdd - 1) > 1e-6:
        lines.append(f"energies of table {table.name} are scaled from {table.vdd:g} to {chip.vdd:g} V")
    if table.buffer_energy is None and sram(chip.node, chip.system.buffer_kib, chip.system.bus_bits).scaled:
        lines.append(f"buffers are scaled to {chip.node / nm:g} nm from the nearest node of the SRAM grid")
    return lines


def _adc(placement: Placement, table: CostTable) -> list[str]:
    """Say where an ADC is not the one that its model describes."""
    chip, lines = placement.chip, list[str]()
    bits = chip.adc.bits
    several = turns(chip.adc.model, chip, table)
    if several > 1:
        lines.append(
            f"{several} ADCs of model {chip.adc.model} take turns at adc.sample_rate = "
            f"{pretty(chip.adc.sample_rate, 'Hz')}, in place of each"
        )
    home = _ADC_NODE.get(chip.adc.model)
    if home is not None and abs(chip.node / home - 1) > 1e-6:
        lines.append(f"ADC model {chip.adc.model} is scaled from {home / nm:g} to {chip.node / nm:g} nm")
    for model in MODELS:
        least, most = WIDTHS[model]
        if not least <= bits <= most:
            lines.append(f"ADC model {model} holds for {least} to {most} bits: it is left out of the range")
    if chip.adc.model in ("survey", "median"):
        lines.append(f"ADC model {chip.adc.model} is fitted to ADCs at their own supply: vdd does not move it")
    if chip.adc.codes < 2**bits and (chip.adc.model != "table" or table.adc_law == "sar"):
        lines.append(f"ADCs of {chip.adc.codes} codes are priced as ADCs of {bits} bits")
    if chip.adc.policy == "lossless":
        rows = min(chip.crossbar.active_rows, max(layer.expanded.rows for layer in placement.layers))
        encoding = chip.weights.encoding
        signed = isinstance(encoding, Pair) and encoding.subtract == "analog"
        needed = (rows * (2**chip.dac.bits - 1) * chip.cell.max_level).bit_length() + signed
        if needed > bits:
            lines.append(
                f"ADCs are priced at adc.bits = {bits}; exact ones, as policy lossless has, need {needed} bits"
            )
    return lines
