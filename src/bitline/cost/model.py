"""Events x circuits -> Cost: energy, latency and area of one image, with breakdowns that sum to the totals."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from bitline.cost.adc import FEWEST_SURVEY_BITS, MODELS, Model, adc_cost
from bitline.cost.circuits import Prices, areas, cells_by_conductance, prices
from bitline.cost.events import Densities, Events, accumulator_bits, assumed, count, peak
from bitline.cost.latency import LayerTime, layer_time
from bitline.cost.sram import sram
from bitline.cost.table import CostTable, load
from bitline.errors import MappingError

if TYPE_CHECKING:
    from bitline.chip.description import Chip
    from bitline.mapping.place import LayerPlacement, Placement


@dataclass(frozen=True)
class LayerCost:
    """One layer for one image.

    Args:
        name: of the layer.
        kind: of the layer.
        rows: inputs of one product.
        cols: outputs of one product.
        groups: products.
        row_tiles: partial sums per result, input digit and slice.
        crossbars: of the layer, one copy.
        utilization: fraction of their cells in use.
        conversions: uses of an ADC.
        macs: multiply-accumulates.
        energy_J: its events, and the chip's leakage while it runs.
        energy_parts: by component, J.
        latency_s: of one image.
        area_m2: its share of the chip, copies included.
        events: what was priced.
    """

    name: str
    kind: str
    rows: int
    cols: int
    groups: int
    row_tiles: int
    crossbars: int
    utilization: float
    conversions: int
    macs: int
    energy_J: float  # noqa: N815
    energy_parts: dict[str, float]
    latency_s: float
    area_m2: float
    events: Events = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the events."""
        return {key: value for key, value in vars(self).items() if key != "events"}


@dataclass(frozen=True)
class AdcEstimate:
    """The chip under one model of its ADC.

    Args:
        energy_J: of one image, all parts.
        adc_energy_J: conversions alone.
        adc_area_m2: of all ADCs.
        conversion_J: one conversion.
    """

    energy_J: float  # noqa: N815
    adc_energy_J: float  # noqa: N815
    adc_area_m2: float
    conversion_J: float  # noqa: N815


@dataclass(frozen=True)
class Cost:
    """What a network costs on a chip.

    Args:
        chip: name.
        data: where bit densities come from: ``"measured"``, ``"assumed"`` (half of the bits are one) or ``"fixed"``
            (all wordlines driven).
        energy_J: of one image.
        latency_s: of one image, layer after layer.
        interval_s: between images in a pipeline of layers: the slowest layer.
        area_m2: of what is built.
        unused_area_m2: share of crossbars that are built and hold no layer.
        leakage_W: of the chip; times latency_s it is the part ``leakage`` of the energy.
        tops: 10^12 operations per second at one image per interval; a MAC is two operations.
        tops_per_watt: 10^12 operations per joule.
        macs: per image.
        conversions: per image.
        crossbars: in use, copies included.
        crossbars_built: in whole macros.
        tiles: of the chip.
        energy_parts: J by component.
        area_parts: m2 by component.
        latency_parts: s by cause.
        layers: in order of execution.
        adc_model: that the figures hold for.
        adc_range: the same chip under every ADC model that covers its width; published models differ, so quote a range.
        notes: what was assumed, scaled or left out.
    """

    chip: str
    data: str
    energy_J: float  # noqa: N815
    latency_s: float
    interval_s: float
    area_m2: float
    unused_area_m2: float
    leakage_W: float  # noqa: N815
    tops: float
    tops_per_watt: float
    macs: int
    conversions: int
    crossbars: int
    crossbars_built: int
    tiles: int
    energy_parts: dict[str, float]
    area_parts: dict[str, float]
    latency_parts: dict[str, float]
    layers: tuple[LayerCost, ...]
    adc_model: Model
    adc_range: dict[str, AdcEstimate]
    notes: tuple[str, ...]

    @property
    def energy_span(self) -> tuple[float, float]:
        """Least and most energy of an image among the ADC models, J."""
        energies = [estimate.energy_J for estimate in self.adc_range.values()]
        return min(energies), max(energies)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        nested = {"layers", "adc_range", "notes"}
        return {
            **{key: value for key, value in vars(self).items() if key not in nested},
            "adc_range": {model: asdict(estimate) for model, estimate in self.adc_range.items()},
            "notes": list(self.notes),
            "layers": [layer.to_json() for layer in self.layers],
        }


@dataclass(frozen=True)
class _Floor:
    """What is built: how many, and how large."""

    built: int
    macros: int
    tiles: int
    parts: dict[str, float]

    @property
    def area(self) -> float:
        return math.fsum(self.parts.values())


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
        ChipError: no such cost table, or an ADC wider than the models hold for.
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
    events = [
        count(layer, _densities(layer, densities, fixed), poolings=(poolings or {}).get(layer.matmul.name, 0))
        for layer in placement.layers
    ]
    priced = {model: _Priced(placement, events, table, model) for model in _models(chip, table)}
    estimates = {
        model: AdcEstimate(p.energy, p.total("adc"), p.floor.parts["adc"], p.prices.conversion)
        for model, p in priced.items()
    }
    data = "fixed" if fixed else "assumed" if densities is None else "measured"
    return priced[chip.adc.model].cost(data, estimates, _notes(placement, table, data))


def _models(chip: Chip, table: CostTable) -> list[Model]:
    """ADC models that hold for the chip; the chosen one must."""
    adc_cost(chip.adc.model, chip, table)
    return [model for model in MODELS if model != "survey" or chip.adc.bits >= FEWEST_SURVEY_BITS or chip.adc.model == model]


def _densities(layer: LayerPlacement, densities: Mapping[str, Densities] | None, fixed: bool) -> Densities:
    if densities is None:
        return peak(layer) if fixed else assumed(layer)
    name = layer.matmul.name
    if name not in densities:
        raise MappingError(f"no densities of layer {name}; given: {', '.join(densities) or 'none'}")
    return densities[name]


class _Priced:
    """A placement priced under one ADC model."""

    def __init__(self, placement: Placement, events: Sequence[Events], table: CostTable, model: Model) -> None:
        chip = placement.chip
        self.placement, self.events, self.model = placement, events, model
        self.floor = _floor(placement, table, model)
        self.prices = prices(chip, table, model, math.sqrt(self.floor.area / self.floor.tiles))
        conversion = adc_cost(model, chip, table).time
        self.times = [layer_time(layer, e, conversion) for layer, e in zip(placement.layers, events, strict=True)]
        self.leakage = self.floor.built * table.crossbar_leakage.si
        if table.buffer_energy is None:
            self.leakage += self.floor.tiles * sram(chip.node, chip.system.buffer_kib, chip.system.bus_bits).leakage
        self.parts = [
            _energy(e, self.prices, self.leakage, time) for e, time in zip(events, self.times, strict=True)
        ]

    @property
    def energy(self) -> float:
        return math.fsum(value for parts in self.parts for value in parts.values())

    def total(self, part: str) -> float:
        return math.fsum(parts[part] for parts in self.parts)

    def cost(self, data: str, estimates: dict[Model, AdcEstimate], notes: tuple[str, ...]) -> Cost:
        placement, floor, times = self.placement, self.floor, self.times
        copies = placement.chip.system.copies
        share = floor.area / floor.built
        energy, interval = self.energy, max(time.total for time in times)
        layers = tuple(
            LayerCost(
                name=layer.matmul.name, kind=layer.matmul.kind, rows=layer.matmul.rows, cols=layer.matmul.cols,
                groups=layer.matmul.groups, row_tiles=layer.row_tiles, crossbars=layer.crossbars,
                utilization=layer.utilization, conversions=layer.conversions, macs=layer.matmul.macs,
                energy_J=math.fsum(parts.values()), energy_parts=parts, latency_s=time.total,
                area_m2=share * layer.crossbars * copies, events=events,
            )
            for layer, parts, time, events in zip(placement.layers, self.parts, times, self.events, strict=True)
        )  # fmt: skip
        used = placement.crossbars * copies
        latency_parts = {
            "read": math.fsum(time.read for time in times),
            "transfer": math.fsum(time.transfer for time in times),
            "merge": math.fsum(time.merge for time in times),
        }
        return Cost(
            chip=placement.chip.name, data=data, energy_J=energy, latency_s=math.fsum(latency_parts.values()),
            interval_s=interval, area_m2=floor.area, unused_area_m2=share * (floor.built - used), leakage_W=self.leakage,
            tops=2e-12 * placement.macs / interval, tops_per_watt=2e-12 * placement.macs / energy,
            macs=placement.macs, conversions=placement.conversions, crossbars=used, crossbars_built=floor.built,
            tiles=floor.tiles, energy_parts={part: self.total(part) for part in self.parts[0]}, area_parts=floor.parts,
            latency_parts=latency_parts, layers=layers, adc_model=self.model,
            adc_range={str(model): estimate for model, estimate in estimates.items()}, notes=notes,
        )  # fmt: skip


def _floor(placement: Placement, table: CostTable, model: Model) -> _Floor:
    """Whole macros hold the crossbars, whole tiles the macros; a chip of a given size is built whole."""
    chip, system = placement.chip, placement.chip.system
    macros = math.ceil(placement.crossbars * system.copies / system.crossbars_per_macro)
    tiles = math.ceil(macros / system.macros_per_tile)
    if system.tiles is not None:
        tiles, macros = system.tiles, system.tiles * system.macros_per_tile
    built = macros * system.crossbars_per_macro
    one = areas(chip, table, model, max(accumulator_bits(layer) for layer in placement.layers))
    parts: dict[str, float] = {}
    for number, each in ((built, one.crossbar), (macros, one.macro), (tiles, one.tile)):
        for part, area in each.items():
            parts[part] = parts.get(part, 0.0) + number * area
    return _Floor(built, macros, tiles, parts)


def _energy(events: Events, price: Prices, leakage: float, time: LayerTime) -> dict[str, float]:
    """Energy of one layer by component, J."""
    return {
        "adc": events.conversions * price.conversion,
        "wordlines": events.driven_wordlines * price.driven_wordline,
        "cells": events.driven_cells * price.driven_cell + events.driven_conductance * price.driven_siemens,
        "bitlines": events.bitlines * price.bitline,
        "sample_hold": events.samples * price.sample,
        "shift_add": events.shift_adds * price.shift_add,
        "adder_tree": events.tree_adder_bits * price.tree_adder_bit,
        "offset_sum": events.offset_adder_bits * price.offset_adder_bit,
        "input_register": events.input_register_bits * price.input_register_bit,
        "output_register": events.output_register_bits * price.output_register_bit,
        "buffer": events.buffer_read_bits * price.buffer_read_bit + events.buffer_write_bits * price.buffer_write_bit,
        "bus": events.bus_bits * price.bus_bit,
        "network": events.bit_hops * price.bit_hop,
        "activation": events.activations * price.activation,
        "pooling": events.poolings * price.pooling,
        "leakage": leakage * time.total,
    }


def _notes(placement: Placement, table: CostTable, data: str) -> tuple[str, ...]:
    """Say what was assumed, scaled or left out."""
    chip = placement.chip
    notes: list[str] = []
    if data == "assumed":
        notes.append("bit densities are assumed: half of the input bits are one, cells are at their middle level")
    if data == "fixed":
        notes.append("data are ignored: every wordline is driven in every cycle, cells are at their middle level")
    if abs(chip.node / table.node - 1) > 1e-6:
        notes.append(f"table {table.name} is scaled from {table.node * 1e9:g} to {chip.node * 1e9:g} nm")
    elif abs(chip.vdd / table.vdd - 1) > 1e-6:
        notes.append(f"energies of table {table.name} are scaled from {table.vdd:g} to {chip.vdd:g} V")
    if table.buffer_energy is None and sram(chip.node, chip.system.buffer_kib, chip.system.bus_bits).scaled:
        notes.append(f"buffers are scaled to {chip.node * 1e9:g} nm from the nearest node of the SRAM grid")
    if chip.adc.bits != table.adc_bits and chip.adc.model == "table":
        notes.append(f"the table's ADC of {table.adc_bits} bits is scaled to {chip.adc.bits}")
    if chip.adc.bits < FEWEST_SURVEY_BITS:
        notes.append(f"the survey of ADCs begins at {FEWEST_SURVEY_BITS} bits: below, its model is left out unless chosen")
    if not cells_by_conductance(chip, table, chip.adc.model):
        inside = " inside its conversions" if table.cell_energy.within == "adc_energy" else ""
        notes.append(f"cells are priced by table {table.name}{inside}: conductances do not move the energy")
    if chip.weights.scale == "any":
        notes.append("real scales need a multiplication for each output, which is not priced")
    silent = [layer.matmul.name for layer in placement.layers if not layer.matmul.inputs]
    if silent:
        notes.append(f"unknown number of inputs: their arrival is not priced in {', '.join(silent)}")
    return tuple(notes)


__all__ = ["AdcEstimate", "Cost", "Densities", "LayerCost", "price"]
