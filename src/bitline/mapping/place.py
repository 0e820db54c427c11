"""Matrix products cut into blocks, one block a crossbar position: the placement that arithmetic and cost share."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

from bitline.chip.description import Chip
from bitline.errors import MappingError
from bitline.mapping.lower import Matmul


@dataclass(frozen=True)
class Block:
    """A piece of a weight matrix that one crossbar multiplies in one step.

    Args:
        group: of the layer.
        rows: of the group's matrix, as a half-open range.
        cols: weight columns of the group's matrix, as a half-open range.
        crossbar: which crossbar of the layer holds it.
        step: which of the crossbar's row tiles it is, hence when it is read.
    """

    group: int
    rows: tuple[int, int]
    cols: tuple[int, int]
    crossbar: int
    step: int


@dataclass(frozen=True)
class LayerPlacement:
    """A layer on crossbars.

    Args:
        matmul: the layer.
        chip: the chip it is on.
        row_bounds: where row tiles begin and the last ends, (row_tiles + 1,); the same in every group.
        col_bounds: where column tiles begin and the last ends, in weight columns, (col_tiles + 1,).
        tiles_per_crossbar: row tiles that share one crossbar and are read one after the other.
    """

    matmul: Matmul
    chip: Chip
    row_bounds: tuple[int, ...]
    col_bounds: tuple[int, ...]
    tiles_per_crossbar: int

    @property
    def row_tiles(self) -> int:
        """Partial sums per result of one input digit and weight slice."""
        return len(self.row_bounds) - 1

    @property
    def col_tiles(self) -> int:
        """Crossbars side by side."""
        return len(self.col_bounds) - 1

    @property
    def crossbars(self) -> int:
        """Crossbars of the layer, all groups."""
        return self.matmul.groups * math.ceil(self.row_tiles / self.tiles_per_crossbar) * self.col_tiles

    @property
    def steps(self) -> int:
        """Row tiles read one after the other in the fullest crossbar."""
        return min(self.row_tiles, self.tiles_per_crossbar)

    @cached_property
    def digits(self) -> int:
        """Input digits streamed per vector."""
        return input_digits(self.chip, signed=self.matmul.signed)

    @property
    def stored_columns(self) -> int:
        """Weight columns of one group and row tile, reference columns included."""
        return self.matmul.cols + self.col_tiles * self.chip.reference_columns

    @property
    def cells(self) -> int:
        """Cells that hold weights or references."""
        return self.matmul.groups * self.matmul.rows * self.stored_columns * self.chip.cells_per_weight

    @property
    def utilization(self) -> float:
        """Fraction of the cells of the layer's crossbars that hold weights or references."""
        return self.cells / (self.crossbars * self.chip.crossbar.rows * self.chip.crossbar.cols)

    @property
    def conversions_per_vector(self) -> int:
        """Uses of an ADC for one input vector of every group."""
        sums = self.row_tiles * self.digits * self.chip.slices * self.stored_columns
        return self.matmul.groups * sums * self.chip.converted_sides

    @property
    def conversions(self) -> int:
        """Uses of an ADC per image."""
        return self.matmul.positions * self.conversions_per_vector

    def blocks(self) -> Iterator[Block]:
        """Walk the blocks, group by group, row tile by row tile."""
        down = math.ceil(self.row_tiles / self.tiles_per_crossbar)
        for group in range(self.matmul.groups):
            for tile in range(self.row_tiles):
                for column in range(self.col_tiles):
                    crossbar = (group * down + tile // self.tiles_per_crossbar) * self.col_tiles + column
                    yield Block(
                        group,
                        (self.row_bounds[tile], self.row_bounds[tile + 1]),
                        (self.col_bounds[column], self.col_bounds[column + 1]),
                        crossbar,
                        tile % self.tiles_per_crossbar,
                    )


@dataclass(frozen=True)
class Placement:
    """A network on a chip, layer by layer in the order of execution."""

    chip: Chip
    layers: tuple[LayerPlacement, ...]

    @property
    def crossbars(self) -> int:
        """Crossbars of all layers, before copies."""
        return sum(layer.crossbars for layer in self.layers)

    @property
    def conversions(self) -> int:
        """Uses of an ADC per image."""
        return sum(layer.conversions for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image."""
        return sum(layer.matmul.macs for layer in self.layers)


def input_digits(chip: Chip, *, signed: bool) -> int:
    """Count the digits an input is streamed in; a sign bit takes a cycle of its own."""
    if signed:
        return math.ceil((chip.inputs.bits - 1) / chip.dac.bits) + 1
    return math.ceil(chip.inputs.bits / chip.dac.bits)


def dense(matmul: Matmul, chip: Chip) -> LayerPlacement:
    """Cut a layer into blocks as large as the crossbar allows, each group on crossbars of its own.

    Row tiles = ceil(rows / active_rows), column tiles = ceil(cols / weight columns of a crossbar).
    """
    height, width = chip.crossbar.active_rows, chip.weight_columns
    rows = (*range(0, matmul.rows, height), matmul.rows)
    cols = (*range(0, matmul.cols, width), matmul.cols)
    return LayerPlacement(matmul, chip, rows, cols, chip.crossbar.row_tiles)


def place(matmuls: Iterable[Matmul], chip: Chip) -> Placement:
    """Place the layers of a network on a chip.

    Raises:
        MappingError: the chip states how many tiles it has, and the network needs more.
    """
    placement = Placement(chip, tuple(dense(matmul, chip) for matmul in matmuls))
    if chip.system.tiles is not None:
        offered = chip.system.tiles * chip.system.macros_per_tile * chip.system.crossbars_per_macro
        needed = placement.crossbars * chip.system.copies
        if needed > offered:
            raise MappingError(
                f"the network needs {needed} crossbars; chip {chip.name} has {offered} "
                f"({chip.system.tiles} tiles of {chip.system.macros_per_tile} macros "
                f"of {chip.system.crossbars_per_macro} crossbars)"
            )
    return placement
