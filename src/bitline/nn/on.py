"""Which chip a converted network is on: its layers, where they are, and moves, for good or for a while."""

from collections.abc import Generator
from contextlib import contextmanager
from operator import attrgetter
from typing import cast

from torch import nn

from bitline import seeds
from bitline.chip.description import Chip
from bitline.errors import ConversionError
from bitline.mapping.lower import Lowerable
from bitline.mapping.place import Placement, place
from bitline.network.trace import modules
from bitline.nn.cells import IDEAL
from bitline.nn.grid import grids
from bitline.nn.layer import CrossbarLayer
from bitline.programming.cells import absent_blocks


def crossbar_layers(model: nn.Module) -> dict[str, CrossbarLayer]:
    """Layers of a converted network that are on crossbars, by name.

    Raises:
        ConversionError: there are none.
    """
    layers = {name: module for name, module in modules(model) if isinstance(module, CrossbarLayer)}
    if not layers:
        raise ConversionError(f"{type(model).__name__} has no layer on crossbars; call to_crossbar(model, chip) first")
    return layers


def placement(model: nn.Module) -> Placement:
    """Where a converted network is: the placement that its arithmetic uses and its cost is counted from.

    Raises:
        ConversionError: nothing is on crossbars, or the network was converted without an example.
    """
    layers = crossbar_layers(model)
    unknown = [name for name, layer in layers.items() if layer.matmul.inputs == 0]
    if unknown:
        raise ConversionError(f"positions per image of layer {unknown[0]} are unknown; give to_crossbar an example")
    first = next(iter(layers.values()))
    return Placement(first.chip, tuple(layer.placement for layer in layers.values()), first.network_pass.digital)


def program(model: nn.Module, seed: int) -> None:
    """Write a converted network into the cells of the chip with this seed; -1 for ideal cells."""
    seeds.check(seed, least=IDEAL)  # before any layer changes
    for layer in crossbar_layers(model).values():
        layer.program(seed)


def set_chip(model: nn.Module, chip: Chip) -> None:
    """Move a converted network to another chip; every layer keeps its mapping.

    Calibrated ADC ranges are fitted again from the partial sums counted by `calibrate`; where crossbar size, cell
    or number formats differ these are no longer true, and `calibrate` must run again. Trained ranges stay as they are
    on a chip of the same ADCs, crossbars and number formats, and are fitted or unknown as calibrated ones on others.

    Raises:
        ConversionError: ADC ranges train that would not stay.
        MappingError: the chip has too few crossbars, or a layer does not fit as it is mapped.
    """
    layers = crossbar_layers(model).values()
    products = [(layer.matmul, layer) for layer in layers]
    absent = {m.name: absent_blocks(cast("Lowerable", layer), m, chip, layer.strategy) for m, layer in products}
    place((m for m, _ in products), chip, {m.name: layer.strategy for m, layer in products}, absent=absent)
    for layer in layers:
        layer.ranges.fits(chip)  # refuses before any layer has moved
    for grid in grids(model).values():
        if chip.inputs != grid.inputs:
            grid.forget(chip.inputs)
    for layer in layers:
        layer.set_chip(chip)


@contextmanager
def on(model: nn.Module, chip: Chip | None = None, seed: int = IDEAL) -> Generator[None]:
    """Let a network, or a single layer of one, answer as a programmed chip does; then everything is as it was.

        with on(model, ideal(chip)):
            exact = model(images)

    Args:
        model: converted.
        chip: a variant of the chip it is on: the same integers and calibrated ADC ranges, but other errors of cells,
            or an ADC that needs no calibration, such as a lossless one. None: that chip itself.
        seed: of the programmed chip; -1 for ideal cells.

    Raises:
        ConversionError: nothing is on crossbars, or a chip for which the ranges or the integers are not those of the
            network, or that were changed within; `set_chip` moves to such a chip.
    """
    layers = list(crossbar_layers(model).values())
    if chip is not None:
        for layer in layers:
            _check_variant(layer, chip)
    before = [(layer.chip, int(layer.chip_seed), layer.reads, layer.cells.errors) for layer in layers]
    seeds.check(seed, least=IDEAL)
    formats = [int(layer.ranges.calibrated_for) for layer in layers]
    try:
        for layer in layers:
            if chip is not None:
                layer.chip = chip
            layer.program(seed)
        yield
        for layer, number in zip(layers, formats, strict=True):
            if chip is not None and (layer.chip is not chip or int(layer.ranges.calibrated_for) != number):
                raise ConversionError(
                    f"layer {layer.matmul.name} got ADC ranges of chip {layer.chip.name} within `with on(...)`, after "
                    f"which it is on another: calibrate and set_chip outside of it"
                )
    finally:
        for layer, (own, own_seed, reads, errors) in zip(layers, before, strict=True):
            layer.chip = own
            layer.program(own_seed)
            layer.reads, layer.cells.errors = reads, errors


def _check_variant(layer: CrossbarLayer, chip: Chip) -> None:
    own, kept = layer.chip, ("weights", "inputs", "crossbar", "dac")
    if chip.adc.keeps_ranges and layer.converts and not layer.ranges.fits(chip):
        kept = (*kept, "adc", "cell.bits", "cell.leak")
    pairs = {key: (attrgetter(key)(own), attrgetter(key)(chip)) for key in kept}
    told = [f"{key} ({mine} there, {other} here)" for key, (mine, other) in pairs.items() if mine != other]
    if told:
        raise ConversionError(
            f"layer {layer.matmul.name} is on chip {own.name}, whose integers and ADC ranges it has; this chip "
            f"{chip.name} differs in {'; '.join(told)}. Move with set_chip(model, chip), which fits its ranges"
        )
