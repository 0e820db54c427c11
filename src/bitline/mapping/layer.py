"""One layer cut into blocks, one block a crossbar position: the numbers that arithmetic and cost share."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal

from bitline.chip.description import Chip
from bitline.mapping.lower import Matmul

Strategy = Literal["dense", "naive", "packed", "strip", "digital"]
"""how a layer of several groups is laid out; see `bitline.mapping.strategies`"""


@dataclass(frozen=True)
class Block:
    """A piece of a weight matrix that one crossbar multiplies in one step.

    Args:
        group: of the product as written out.
        rows: of the group's matrix, as a half-open range.
        cols: weight columns of the group's matrix, as a half-open range.
        crossbar: which crossbar of the layer holds it.
        step: when it is read, of the steps of its crossbar.
        origin: wordline and weight column of the crossbar at which it begins.
    """

    group: int
    rows: tuple[int, int]
    cols: tuple[int, int]
    crossbar: int
    step: int
    origin: tuple[int, int]


@dataclass(frozen=True)
class LayerPlacement:
    """A layer on crossbars, each group on crossbars of its own; what else there is derives from it.

    Args:
        matmul: the layer.
        chip: the chip it is on.
        row_bounds: where row tiles begin and the last ends, (row_tiles + 1,); the same in every group.
        col_bounds: where column tiles begin and the last ends, in weight columns, (col_tiles + 1,).
        tiles_per_crossbar: row tiles that share one crossbar and are read one after the other.
        weight_rows: wordlines of a row tile on which one column holds weights, the others crossing empty cells; all
            of them where 0.
    """

    strategy: ClassVar[Strategy] = "dense"

    matmul: Matmul
    chip: Chip
    row_bounds: tuple[int, ...]
    col_bounds: tuple[int, ...]
    tiles_per_crossbar: int
    weight_rows: int = 0

    @property
    def written(self) -> Matmul:
        """The matrix product as it is written out, which is what bounds and blocks cut."""
        return self.matmul

    @property
    def wired(self) -> "LayerPlacement":
        """What the arithmetic multiplies by: a plain placement of everything that shares bitlines."""
        return self

    @property
    def together(self) -> int:
        """Neighbouring groups of the layer that make one group of `wired`; the last may lack some."""
        return 1

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
        return self.written.groups * math.ceil(self.row_tiles / self.tiles_per_crossbar) * self.col_tiles

    @property
    def steps(self) -> int:
        """Reads that the fullest crossbar makes one after the other for one input digit."""
        return min(self.row_tiles, self.tiles_per_crossbar)

    @cached_property
    def digits(self) -> int:
        """Input digits streamed per vector."""
        return input_digits(self.chip, signed=self.matmul.signed)

    @property
    def stored_columns(self) -> int:
        """Weight columns of one group and row tile, reference columns included."""
        return self.written.cols + self.col_tiles * self.chip.reference_columns

    @property
    def cells(self) -> int:
        """Cells that hold weights or references."""
        return self.read_cells

    @property
    def utilization(self) -> float:
        """Fraction of the cells of the layer's crossbars that hold weights or references."""
        return self.cells / (self.crossbars * self.chip.crossbar.rows * self.chip.crossbar.cols)

    @property
    def reads(self) -> int:
        """Reads of a crossbar for one digit of one input vector of every group."""
        return self.written.groups * self.row_tiles * self.col_tiles

    @property
    def wordlines(self) -> int:
        """Wordlines that these reads select, added up."""
        return self.written.groups * self.written.rows * self.col_tiles

    @property
    def columns(self) -> int:
        """Weight columns, references included, that these reads convert, added up."""
        return self.written.groups * self.row_tiles * self.stored_columns

    @property
    def read_cells(self) -> int:
        """Cells where these wordlines cross these columns, whatever they hold."""
        return self.written.groups * self.written.rows * self.stored_columns * self.chip.cells_per_weight

    @property
    def stray_levels(self) -> tuple[int, ...]:
        """Level of read cells that hold no weight, by slice."""
        return (0,) * self.chip.slices

    @property
    def columns_in_turn(self) -> int:
        """Cell columns that the busiest ADC meets in one read; neighbouring columns share an ADC."""
        widest = max(b - a for a, b in pairwise(self.col_bounds))
        return self._in_turn(widest + self.chip.reference_columns)

    def _in_turn(self, columns: int) -> int:
        return min(self.chip.adc.columns_per_adc, columns * self.chip.cells_per_weight)

    @property
    def bitline_share(self) -> float:
        """Length of wire that one read column charges, over that of a whole bitline."""
        return 1.0

    @property
    def conversions_per_vector(self) -> int:
        """Uses of an ADC for one input vector of every group."""
        return self.columns * self.digits * self.chip.slices * self.chip.converted_sides

    @property
    def conversions(self) -> int:
        """Uses of an ADC per image."""
        return self.matmul.positions * self.conversions_per_vector

    @property
    def digital_macs(self) -> int:
        """Multiply-accumulates per image that digital units do."""
        return 0

    def blocks(self) -> Iterator[Block]:
        """Walk the blocks, group by group, row tile by row tile."""
        down = math.ceil(self.row_tiles / self.tiles_per_crossbar)
        for group in range(self.written.groups):
            for tile in range(self.row_tiles):
                step = tile % self.tiles_per_crossbar
                for column in range(self.col_tiles):
                    yield Block(
                        group,
                        (self.row_bounds[tile], self.row_bounds[tile + 1]),
                        (self.col_bounds[column], self.col_bounds[column + 1]),
                        (group * down + tile // self.tiles_per_crossbar) * self.col_tiles + column,
                        step,
                        (step * self.chip.crossbar.active_rows, 0),
                    )


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
