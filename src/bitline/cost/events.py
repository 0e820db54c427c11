"""What a placement does for one image: counts, exact integers unless data decide.

Together with ``chip/description.py`` and ``mvm/reference.py`` this is the whole idea: the placement that the arithmetic
walks is the one that is counted here. An event has no energy yet; `bitline.cost.circuits` prices it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitline.chip.formats import Offset
from bitline.cost.correction import correction_bits
from bitline.cost.traffic import traffic
from bitline.errors import MappingError
from bitline.physics.levels import target

if TYPE_CHECKING:  # bitline.mapping imports torch, which pricing does not need
    from bitline.chip.description import Chip
    from bitline.mapping.place import LayerPlacement


@dataclass(frozen=True)
class Densities:
    """What a layer's data look like to the wordlines and to the cells.

    Args:
        digit_mean: E[d] of each input digit, least significant first; reported only.
        digit_square_mean: E[d^2] of each input digit; energies go with it, since a wordline is driven to V d / d_max.
        level_mean: E[level] of each weight slice over all its cells; weighted by the E[d^2] of their rows, the cell
            energy is exact in expectation.
    """

    digit_mean: Sequence[float]
    digit_square_mean: Sequence[float]
    level_mean: Sequence[float]


def assumed(layer: LayerPlacement, ones: float = 0.5) -> Densities:
    """Densities where nothing was measured: input bits of one with this probability, cells at the middle level."""
    bits = layer.chip.dac.bits
    mean = ones * (2**bits - 1)
    square = ones * (1 - ones) * sum(4**i for i in range(bits)) + mean**2
    return Densities([mean] * layer.digits, [square] * layer.digits, _middle(layer))


def peak(layer: LayerPlacement) -> Densities:
    """Densities of a fixed-energy model: every wordline at full swing in every cycle, cells at the middle level."""
    top = float(2**layer.chip.dac.bits - 1)
    return Densities([top] * layer.digits, [top**2] * layer.digits, _middle(layer))


def _middle(layer: LayerPlacement) -> list[float]:
    """Mean level of each slice where cells of weights are at the middle level and the others hold what they hold."""
    share = layer.cells / layer.read_cells if layer.read_cells else 1.0
    return [share * layer.chip.cell.max_level / 2 + (1 - share) * stray for stray in layer.stray_levels]


@dataclass(frozen=True)
class Events:
    """Events of one layer for one image."""

    name: str
    """of the layer"""
    vectors: int
    """input vectors"""
    reads: int
    """reads of a crossbar: one row tile of one crossbar under one input digit"""
    rounds: int
    """times a read drives its wordlines: 1 with sample-and-hold, else once a round of the column multiplexer"""
    conversions: int
    """uses of an ADC"""
    wordlines: int
    """wordlines selected, whether their digit is zero or not"""
    driven_wordlines: float
    """wordlines selected, each weighing E[(d / d_max)^2]; expected"""
    cells: int
    """cells on selected wordlines, each read once a digit"""
    driven_cells: float
    """the same, each weighing E[(d / d_max)^2]; expected"""
    driven_conductance: float
    """sum of E[(d / d_max)^2] g over those cells, behind their access transistors, S; expected"""
    bitlines: int
    """bitlines charged to the read voltage"""
    charged_bitlines: float
    """the same, each weighing the share of its length that is charged"""
    samples: int
    """bitlines sampled and held"""
    shift_adds: int
    """codes shifted and added to a sum"""
    tree_adds: int
    """sums of two row tiles, after digits and slices are merged: (row tiles that are built - 1) for each result"""
    tree_adder_bits: int
    """full adders that these take, the sums growing by a bit a stage"""
    offset_adder_bits: int
    """full adders of the offset encoding: sum(x) once an input vector, its subtraction from each result, and what the
    correction of mean errors takes beside them"""
    mac_products: int
    """products of an input and a weight in digital multiply-accumulate units"""
    mac_adder_bits: int
    """full adders that add these up"""
    output_register_bits: int
    """bits of running sums updated: one sum for each row tile, digit and weight column"""
    input_register_bits: int
    """bits written to and read from the input registers of crossbars"""
    buffer_read_bits: int
    """bits read from tile buffers: each input vector whole, once for each tile that holds its rows; for digital units
    also the weight of each product"""
    buffer_write_bits: int
    """bits of activations that arrive in tile buffers"""
    bus_bits: int
    """bits over tile buses: input vectors to macros, sums out of macros"""
    activation_bits: int
    """bits of activations that enter the layer, each once; they pass `hops` tiles. Where crossbars are absent: the
    share of rows that some crossbar reads"""
    forwarded_bits: int
    """bits to a neighbouring tile: activations that several tiles need, sums that several tiles share"""
    hops: float
    """tiles that an activation passes on its way into the layer"""
    off_chip_bits: int
    """bits written to and read from memory off the chip, since no tile buffer holds them"""
    activations: int
    """results of the activation function"""
    poolings: int
    """activations that a pooling unit reads"""

    @property
    def bit_hops(self) -> float:
        """Bits moved between tiles times the tiles they pass."""
        return self.activation_bits * self.hops + self.forwarded_bits


def count(
    layer: LayerPlacement, densities: Densities, *, poolings: int = 0, hops: float | None = None, spilled: float = 0.0
) -> Events:
    """Count what a layer does for one image.

    Args:
        layer: as placed.
        densities: of its inputs and weights.
        poolings: activations that a pooling unit reads behind it.
        hops: tiles that an activation passes on its way in; the chip's where absent.
        spilled: share of what its buffers must hold that they do not, see `bitline.cost.buffers`.

    Raises:
        MappingError: densities of another number of digits or slices, or no possible ones.
    """
    chip, matmul, expanded = layer.chip, layer.matmul, layer.expanded
    check(layer, densities)
    vectors, inputs = matmul.positions, expanded.groups * expanded.rows
    top = (2**chip.dac.bits - 1) ** 2
    on = sum(densities.digit_square_mean) / top
    conductance = sum(mean_conductance(chip, level) for level in densities.level_mean)
    rounds = 1 if chip.timing.sample_and_hold else mux_rounds(layer)
    rows = vectors * layer.wordlines * rounds
    cells = vectors * layer.read_cells
    bitlines = vectors * layer.digits * layer.columns * chip.cells_per_weight
    width = accumulator_bits(layer)
    move = traffic(layer)
    input_bits, macs = chip.inputs.bits, layer.digital_macs
    buffer_read = vectors * move.rows * input_bits + macs * chip.weights.bits
    buffer_write = matmul.inputs * input_bits * move.rows // inputs
    return Events(
        name=matmul.name,
        vectors=vectors,
        reads=vectors * layer.digits * layer.reads,
        rounds=rounds,
        conversions=layer.conversions,
        wordlines=rows * layer.digits,
        driven_wordlines=rows * on,
        cells=cells * layer.digits,
        driven_cells=cells * on,
        driven_conductance=cells // chip.slices * on * conductance,
        bitlines=bitlines,
        charged_bitlines=bitlines * layer.bitline_share,
        samples=bitlines if chip.timing.sample_and_hold else 0,
        shift_adds=layer.conversions,
        tree_adds=vectors * sum((tiles - 1) * n for tiles, n in layer.partial_sums.items() if tiles),
        tree_adder_bits=vectors * sum(tree_bits(tiles, width) * n for tiles, n in layer.partial_sums.items()),
        offset_adder_bits=vectors * _offset_bits(layer, width),
        mac_products=macs,
        mac_adder_bits=macs * mac_bits(layer),
        output_register_bits=vectors * layer.columns * layer.digits * width,
        input_register_bits=vectors * layer.wordlines * (input_bits + layer.digits * chip.dac.bits),
        buffer_read_bits=buffer_read,
        buffer_write_bits=buffer_write,
        bus_bits=vectors * (move.rows * input_bits + move.sums * width),
        activation_bits=matmul.inputs * input_bits * move.once // inputs,
        forwarded_bits=matmul.inputs * input_bits * (move.rows - move.once) // inputs
        + vectors * move.forwarded_sums * width,
        hops=chip.system.hops if hops is None else hops,
        off_chip_bits=math.ceil(spilled * (buffer_read + buffer_write)),
        activations=matmul.outputs,
        poolings=poolings,
    )


def check(layer: LayerPlacement, densities: Densities) -> None:
    """Refuse densities that do not fit the layer.

    Raises:
        MappingError: another number of digits or slices, or values that no digit or level can have.
    """
    name, chip = layer.matmul.name, layer.chip
    top = 2**chip.dac.bits - 1
    for field, values, length, most in (
        ("digit_mean", densities.digit_mean, layer.digits, top),
        ("digit_square_mean", densities.digit_square_mean, layer.digits, top**2),
        ("level_mean", densities.level_mean, chip.slices, chip.cell.max_level),
    ):
        if len(values) != length:
            raise MappingError(f"layer {name}: {field} has {len(values)} entries; the layer has {length}")
        wrong = [value for value in values if not -1e-9 <= value <= most * (1 + 1e-9)]
        if wrong:
            raise MappingError(f"layer {name}: {field} holds {wrong[0]:g}; allowed: 0 to {most:g}")


def mean_conductance(chip: Chip, level: float) -> float:
    """Conductance of a cell and its access transistor at a mean level, S.

    g / (1 + g R) at whole levels, a straight line between them: exact for one-bit cells and for R = 0.
    """
    cell = chip.cell

    def at(whole: int) -> float:
        g = target(float(whole), cell)
        return g / (1 + g * cell.access_resistance)

    below = min(int(level), cell.max_level - 1)
    return at(below) + (level - below) * (at(below + 1) - at(below))


def mux_rounds(layer: LayerPlacement) -> int:
    """Conversions that an ADC makes one after the other in one read."""
    return -(-layer.columns_in_turn * layer.chip.converted_sides // layer.chip.sides)


def accumulator_bits(layer: LayerPlacement) -> int:
    """Width that holds a row tile's sum over digits and slices of the largest codes."""
    chip = layer.chip
    digits = sum(2 ** (chip.dac.bits * p) for p in range(layer.digits))
    slices = sum(2 ** (chip.cell.bits * s) for s in range(chip.slices))
    return ((2**chip.adc.bits - 1) * digits * slices).bit_length()


def mac_bits(layer: LayerPlacement) -> int:
    """Width that holds the sum of a digital layer's products."""
    return layer.chip.inputs.bits + layer.chip.weights.bits + (layer.matmul.rows - 1).bit_length()


def tree_bits(inputs: int, width: int) -> int:
    """Full adders of a tree: n(b + 1) - (b + log2 n + 1) where n is a power of two (zigzag 3d12a96, imc_array.py)."""
    adders = 0
    while inputs > 1:
        adders += inputs // 2 * width
        inputs, width = -(-inputs // 2), width + 1
    return adders


def _offset_bits(layer: LayerPlacement, width: int) -> int:
    """Full adders that Z sum(x) takes for one input vector of every group of the expanded product."""
    encoding = layer.chip.weights.encoding
    if not isinstance(encoding, Offset) or not layer.columns:
        return 0
    subtract = sum(n for tiles, n in layer.partial_sums.items() if tiles) * width
    if encoding.sum != "digital":
        return subtract
    pruned = {group for group, _ in layer.built}
    whole = (layer.expanded.groups - len(pruned)) * tree_bits(layer.expanded.rows, layer.chip.inputs.bits)
    sums = whole + sum(_input_sums(layer, group) for group in pruned)
    return subtract + sums + correction_bits(layer, width)


def _input_sums(layer: LayerPlacement, group: int) -> int:
    """Full adders that sum the inputs of a group's column tiles, whose row tiles differ.

    Column tiles of the same row tiles share their sum. Where there are several sums, the inputs of each row tile are
    added up once, and each sum adds up those of its row tiles.
    """
    every = tuple(range(layer.row_tiles))
    sums = {layer.built.get((group, column), every) for column in range(layer.col_tiles)} - {()}
    bounds, bits = layer.row_bounds, layer.chip.inputs.bits
    if len(sums) == 1:
        return tree_bits(sum(bounds[t + 1] - bounds[t] for t in sums.pop()), bits)
    heights = [bounds[t + 1] - bounds[t] for t in sorted({t for tiles in sums for t in tiles})]
    widest = bits + (max(heights, default=1) - 1).bit_length()
    return sum(tree_bits(height, bits) for height in heights) + sum(tree_bits(len(tiles), widest) for tiles in sums)
