"""Events x circuits -> Cost: energy, latency and area of one image, with breakdowns that sum to the totals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from bitline.cost.adc import MODELS, WIDTHS, Model, adc_cost
from bitline.cost.buffers import off_chip, spills, tiles
from bitline.cost.circuits import Areas, Prices, areas, check_clock, prices
from bitline.cost.digital import DigitalCost, digital_cost, mac_area
from bitline.cost.events import Densities, Events, accumulator_bits, assumed, count, peak
from bitline.cost.latency import LayerTime, layer_time, off_chip_time
from bitline.cost.notes import Data, notes
from bitline.cost.result import AdcEstimate, Cost, LayerCost
from bitline.cost.sram import sram
from bitline.cost.table import CostTable, load
from bitline.errors import MappingError
from bitline.units import pretty

if TYPE_CHECKING:  # bitline.mapping imports torch, which pricing does not need
    from bitline.chip.description import Chip
    from bitline.mapping.place import LayerPlacement, Placement

__all__ = ["Cost", "LayerCost", "price"]


def price(
    placement: Placement,
    *,
    densities: Mapping[str, Densities] | None = None,
    fixed: bool = False,
    poolings: Mapping[str, int] | None = None,
) -> Cost:
    """Price one image of a network that is placed on a chip.

    Args:
        placement: that the arithmetic computes with.
        densities: measured, by layer; without them half of the input bits are one and cells are at their middle level.
        fixed: ignore data: every wordline is driven in every cycle.
        poolings: activations that a pooling unit reads behind a layer, by layer; none where absent.

    Raises:
        ChipError: no such cost table, an ADC of a width that its cost model does not hold for, or a clock that the node
            does not reach.
        MappingError: no layers, densities missing or of the wrong shape, poolings behind an unknown layer.
    """
    chip = placement.chip
    if not placement.layers:
        raise MappingError("no layer is placed on the chip: nothing to price")
    if fixed and densities is not None:
        raise MappingError("fixed = True ignores data, and densities are given: leave one out")
    names = [layer.matmul.name for layer in placement.layers]
    for what, given in (("densities", densities), ("poolings", poolings)):
        unknown = [name for name in given or () if name not in names]
        if unknown:
            raise MappingError(f"{what} of layer {unknown[0]!r}, which is not placed; layers: {', '.join(names)}")
    table = load(chip.cost_table)
    check_clock(chip)
    lacking = spills(placement)
    hops = _hops(placement)
    events = [
        count(
            layer,
            _densities(layer, densities, fixed),
            poolings=(poolings or {}).get(layer.matmul.name, 0),
            hops=hops,
            spilled=spill.share,
        )
        for layer, spill in zip(placement.layers, lacking, strict=True)
    ]
    priced: dict[Model, _Priced] = {m: _Priced(placement, events, table, m) for m in _models(chip, table)}
    estimates: dict[Model, AdcEstimate] = {model: each.estimate() for model, each in priced.items()}
    data: Data = "fixed" if fixed else "assumed" if densities is None else "measured"
    said = notes(placement, table, data, lacking)
    if data == "assumed":
        said = (_fewer_ones(placement, events, priced[chip.adc.model]), *said)
    return priced[chip.adc.model].cost(data, estimates, said)


PUBLISHED_ONES = 0.138
"""Share of input bits that are one in VGG-8 on CIFAR-10, 8 bits (DNN+NeuroSim V1.3, the run of its cost table)"""


def _fewer_ones(placement: Placement, events: Sequence[Events], priced: _Priced) -> str:
    """Say what is assumed of the data, and what the energy is where fewer bits are one."""
    fewer = [
        replace(
            was, **{name: getattr(now, name) for name in ("driven_wordlines", "driven_cells", "driven_conductance")}
        )
        for layer, was in zip(placement.layers, events, strict=True)
        for now in (count(layer, assumed(layer, PUBLISHED_ONES)),)
    ]
    energy = priced.digital_energy + math.fsum(
        value
        for each, time in zip(fewer, priced.times, strict=True)
        for value in _energy(each, priced.prices, priced.leakage, time).values()
    )
    return (
        "bit densities are assumed: half of the input bits are one, cells are at their middle level; with "
        f"{PUBLISHED_ONES:g} of the bits one, as in NeuroSim's VGG-8, the energy is {pretty(energy, 'J')}"
    )


def _hops(placement: Placement) -> float:
    """Tiles that activations pass between layers: those of the chip, but no more than there are other tiles in use."""
    system = placement.chip.system
    return min(system.hops, tiles(placement.chip, placement.crossbars * system.copies) - 1)


def _models(chip: Chip, table: CostTable) -> list[Model]:
    """List the ADC models that hold for the chip; the chosen one must."""
    adc_cost(chip.adc.model, chip, table)
    return [model for model in MODELS if WIDTHS[model][0] <= chip.adc.bits <= WIDTHS[model][1]]


def _densities(layer: LayerPlacement, densities: Mapping[str, Densities] | None, fixed: bool) -> Densities:
    if densities is None:
        return peak(layer) if fixed else assumed(layer)
    name = layer.matmul.name
    if name not in densities:
        raise MappingError(f"no densities of layer {name}; given: {', '.join(densities) or 'none'}")
    return densities[name]


@dataclass(frozen=True)
class _Floor:
    """What is built: how many, how large by component [m2], and the edge of a full tile [m]."""

    crossbars: int
    macros: int
    tiles: int
    parts: dict[str, float]
    edge: float

    @property
    def area(self) -> float:
        return math.fsum(self.parts.values())

    @property
    def shared(self) -> float:
        """What crossbars take with all that stands around them, m2."""
        return self.area - self.parts["digital_mac"] - self.parts.get("digital_operations", 0.0)


def _floor(placement: Placement, one: Areas) -> _Floor:
    """Whole macros hold the crossbars, as many tiles as it takes the macros; a chip of a given size is built whole."""
    system = placement.chip.system
    macros = math.ceil(placement.crossbars * system.copies / system.crossbars_per_macro)
    tiles = max(1, math.ceil(macros / system.macros_per_tile))
    if system.tiles is not None:
        tiles, macros = system.tiles, system.tiles * system.macros_per_tile
    crossbars = macros * system.crossbars_per_macro
    parts: dict[str, float] = {}
    for number, each in ((crossbars, one.crossbar), (macros, one.macro), (tiles, one.tile)):
        for part, area in each.items():
            parts[part] = parts.get(part, 0.0) + number * area
    parts["digital_mac"] = math.fsum(mac_area(layer) for layer in placement.layers)
    if digital := _digital(placement):
        parts["digital_operations"] = math.fsum(each.area_m2 for each in digital)
    macro = sum(one.macro.values()) + system.crossbars_per_macro * sum(one.crossbar.values())
    return _Floor(crossbars, macros, tiles, parts, math.sqrt(sum(one.tile.values()) + system.macros_per_tile * macro))


def _digital(placement: Placement) -> tuple[DigitalCost, ...]:
    """Price what makes products off the layers that are placed."""
    return tuple(digital_cost(name, macs, placement.chip) for name, macs in (placement.digital or {}).items())


class _Priced:
    """A placement priced under one ADC model."""

    def __init__(self, placement: Placement, events: Sequence[Events], table: CostTable, model: Model) -> None:
        chip = placement.chip
        self.placement, self.events = placement, events
        self.model: Model = model
        widest = max(accumulator_bits(layer) for layer in placement.layers)
        self.floor = _floor(placement, areas(chip, table, model, widest))
        self.prices = prices(chip, table, model, self.floor.edge)
        conversion = adc_cost(model, chip, table).time
        self.times = [layer_time(layer, e, conversion) for layer, e in zip(placement.layers, events, strict=True)]
        self.leakage = self.floor.crossbars * table.crossbar_leakage.si
        if table.buffer_energy is None:
            self.leakage += self.floor.tiles * sram(chip.node, chip.system.buffer_kib, chip.system.bus_bits).leakage
        self.digital = _digital(placement)
        self.digital_energy = math.fsum(each.energy_J for each in self.digital) + self.leakage * self.digital_time
        self.parts = [_energy(e, self.prices, self.leakage, t) for e, t in zip(events, self.times, strict=True)]

    @property
    def digital_time(self) -> float:
        """Of all operations off the layers, one after the other, s."""
        return math.fsum(each.latency_s for each in self.digital)

    def total(self, part: str) -> float:
        return math.fsum(parts[part] for parts in self.parts)

    @property
    def energy(self) -> float:
        return self.digital_energy + math.fsum(value for parts in self.parts for value in parts.values())

    @property
    def macs(self) -> int:
        return self.placement.macs + self.placement.digital_macs

    def energy_parts(self) -> dict[str, float]:
        parts = {part: self.total(part) for part in self.parts[0]}
        if self.digital:
            parts["leakage"] += self.leakage * self.digital_time
            parts["digital_operations"] = math.fsum(each.energy_J for each in self.digital)
        return parts

    def estimate(self) -> AdcEstimate:
        return AdcEstimate(
            energy_J=self.energy,
            area_m2=self.floor.area,
            tops_per_watt=2e-12 * self.macs / self.energy,
            adc_energy_J=self.total("adc"),
            adc_area_m2=self.floor.parts["adc"],
            conversion_J=self.prices.conversion,
        )

    def cost(self, data: Data, estimates: Mapping[Model, AdcEstimate], notes: tuple[str, ...]) -> Cost:
        placement, floor, times = self.placement, self.floor, self.times
        share = placement.chip.system.copies * floor.shared / max(1, floor.crossbars)
        layers = tuple(
            LayerCost(
                name=layer.matmul.name,
                kind=layer.matmul.kind,
                rows=layer.matmul.rows,
                cols=layer.matmul.cols,
                groups=layer.matmul.groups,
                strategy=layer.strategy,
                row_tiles=layer.row_tiles,
                crossbars=layer.crossbars,
                crossbars_removed=layer.removed,
                steps=layer.steps,
                utilization=layer.utilization,
                conversions=layer.conversions,
                macs=layer.matmul.macs,
                energy_J=math.fsum(parts.values()),
                energy_parts=parts,
                latency_s=time.total,
                area_m2=share * layer.crossbars + mac_area(layer),
                events=events,
            )
            for layer, parts, time, events in zip(placement.layers, self.parts, times, self.events, strict=True)
        )
        latency = {
            "read": math.fsum(time.read for time in times),
            "transfer": math.fsum(time.transfer for time in times),
            "network": math.fsum(time.network for time in times),
            "merge": math.fsum(time.merge for time in times),
            "digital_mac": math.fsum(time.digital_mac for time in times),
            **({"digital_operations": self.digital_time} if self.digital else {}),
        }
        used = placement.crossbars * placement.chip.system.copies
        channel = math.fsum(off_chip_time(each) for each in self.events)  # all layers share it
        interval = max(channel, *(time.total for time in times), *(each.latency_s for each in self.digital))
        return Cost(
            chip=placement.chip.name,
            data=data,
            energy_J=self.energy,
            latency_s=math.fsum(latency.values()),
            interval_s=interval,
            area_m2=floor.area,
            unused_area_m2=floor.shared * (1 - used / max(1, floor.crossbars)),
            leakage_W=self.leakage,
            tops=2e-12 * self.macs / interval,
            tops_per_watt=2e-12 * self.macs / self.energy,
            macs=self.macs,
            conversions=placement.conversions,
            crossbars=used,
            crossbars_built=floor.crossbars,
            tiles=floor.tiles,
            energy_parts=self.energy_parts(),
            area_parts=floor.parts,
            latency_parts=latency,
            layers=layers,
            digital=self.digital,
            adc_model=self.model,
            adc_range=dict(estimates),
            notes=notes,
        )


def _energy(events: Events, price: Prices, leakage: float, time: LayerTime) -> dict[str, float]:
    """Price the events of one layer by component, J; the whole chip leaks while the layer runs."""
    return {
        "adc": events.conversions * price.conversion,
        "wordlines": events.driven_wordlines * price.driven_wordline,
        "cells": events.driven_cells * price.driven_cell + events.driven_conductance * price.driven_siemens,
        "bitlines": events.charged_bitlines * price.bitline,
        "sample_hold": events.samples * price.sample,
        "shift_add": events.shift_adds * price.shift_add,
        "adder_tree": events.tree_adder_bits * price.tree_adder_bit,
        "offset_sum": events.offset_adder_bits * price.offset_adder_bit,
        "digital_mac": events.mac_products * price.mac_product + events.mac_adder_bits * price.mac_adder_bit,
        "input_register": events.input_register_bits * price.input_register_bit,
        "output_register": events.output_register_bits * price.output_register_bit,
        "buffer": events.buffer_read_bits * price.buffer_read_bit + events.buffer_write_bits * price.buffer_write_bit,
        "bus": events.bus_bits * price.bus_bit,
        "off_chip": events.off_chip_bits * off_chip().bit_energy.si,
        "network": events.bit_hops * price.bit_hop,
        "activation": events.activations * price.activation,
        "pooling": events.poolings * price.pooling,
        "leakage": leakage * time.total,
    }
