"""One layer cut into blocks, one block a crossbar position: the numbers that arithmetic and cost share."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import ClassVar, Literal

from bitline.chip.description import Chip
from bitline.errors import MappingError
from bitline.mapping.lower import Matmul

Strategy = Literal["dense", "naive", "packed", "strip", "digital"]
"""how a layer of several groups is laid out; see `bitline.mapping.strategies`"""


@dataclass(frozen=True)
class Block:
    """A piece of a weight matrix that one crossbar multiplies in one step.

    Args:
        group: of the expanded product.
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
        absent: (group, row tile, column tile) of every block on a crossbar that is not built, since all of its weights
            are zero; all row tiles of such a crossbar are named.

    Raises:
        MappingError: an absent block that the layer does not have, or a part only of a crossbar's.
    """

    strategy: ClassVar[Strategy] = "dense"

    matmul: Matmul
    chip: Chip
    row_bounds: tuple[int, ...]
    col_bounds: tuple[int, ...]
    tiles_per_crossbar: int
    weight_rows: int = 0
    absent: frozenset[tuple[int, int, int]] = frozenset()

    def __post_init__(self) -> None:
        if self.absent:
            self._check_absent()

    @property
    def expanded(self) -> Matmul:
        """The matrix product with the zeros that a strategy puts between groups: what bounds and blocks cut."""
        return self.matmul

    @property
    def merged(self) -> "LayerPlacement":
        """What the arithmetic multiplies by: groups that share bitlines merged into one, placed plainly."""
        return self

    @property
    def together(self) -> int:
        """Neighbouring groups of the layer that make one group of `merged`; the last may lack some."""
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
        """Crossbars of the layer, all groups; those that are built."""
        return self.expanded.groups * self._down * self.col_tiles - self.removed

    @cached_property
    def removed(self) -> int:
        """Crossbars that are not built, since all of their weights are zero."""
        return len({(group, tile // self.tiles_per_crossbar, column) for group, tile, column in self.absent})

    @property
    def _down(self) -> int:
        """Crossbars below each other, whether built or not."""
        return math.ceil(self.row_tiles / self.tiles_per_crossbar)

    @cached_property
    def built(self) -> Mapping[tuple[int, int], tuple[int, ...]]:
        """Row tiles that there are in a column tile, by (group, column tile), where some are absent."""
        return {
            (group, column): tuple(t for t in range(self.row_tiles) if (group, t, column) not in self.absent)
            for group, column in sorted({(group, column) for group, _, column in self.absent})
        }

    @cached_property
    def partial_sums(self) -> Mapping[int, int]:
        """How many results of one input vector of every group are the sum of so many row tiles: {tiles: results}."""
        counts = Counter({self.row_tiles: self.expanded.groups * self.expanded.cols})
        for (_, column), tiles in self.built.items():
            width = self.col_bounds[column + 1] - self.col_bounds[column]
            counts[self.row_tiles] -= width
            counts[len(tiles)] += width
        return {tiles: counts[tiles] for tiles in sorted(counts) if counts[tiles]}

    @property
    def steps(self) -> int:
        """Reads that the fullest crossbar makes one after the other for one input digit."""
        if not self.absent:
            return min(self.row_tiles, self.tiles_per_crossbar)
        crossbars = Counter(b.crossbar for b in self.blocks())
        return max(crossbars.values(), default=0)

    @cached_property
    def digits(self) -> int:
        """Input digits streamed per vector."""
        return input_digits(self.chip, signed=self.matmul.signed)

    @property
    def stored_columns(self) -> int:
        """Weight columns of one group and row tile, reference columns included."""
        return self.expanded.cols + self.col_tiles * self.chip.reference_columns

    @property
    def cells(self) -> int:
        """Cells that hold weights or references."""
        return self.read_cells

    @property
    def utilization(self) -> float:
        """Fraction of the cells of the layer's crossbars that hold weights or references."""
        return self.cells / max(1, self.crossbars * self.chip.crossbar.rows * self.chip.crossbar.cols)

    @property
    def reads(self) -> int:
        """Reads of a crossbar for one digit of one input vector of every group."""
        return self.expanded.groups * self.row_tiles * self.col_tiles - len(self.absent)

    @property
    def wordlines(self) -> int:
        """Wordlines that these reads select, added up."""
        return self.expanded.groups * self.expanded.rows * self.col_tiles - self._lacking[0]

    @property
    def columns(self) -> int:
        """Weight columns, references included, that these reads convert, added up."""
        return self.expanded.groups * self.row_tiles * self.stored_columns - self._lacking[1]

    @property
    def read_cells(self) -> int:
        """Cells where these wordlines cross these columns, whatever they hold."""
        weights = self.expanded.groups * self.expanded.rows * self.stored_columns - self._lacking[2]
        return weights * self.chip.cells_per_weight

    @cached_property
    def _lacking(self) -> tuple[int, int, int]:
        """Wordlines, weight columns and where these cross, of all absent blocks."""
        rows = [b - a for a, b in pairwise(self.row_bounds)]
        cols = [b - a + self.chip.reference_columns for a, b in pairwise(self.col_bounds)]
        sizes = [(rows[tile], cols[column]) for _, tile, column in self.absent]
        return sum(r for r, _ in sizes), sum(c for _, c in sizes), sum(r * c for r, c in sizes)

    @property
    def stray_levels(self) -> tuple[int, ...]:
        """Level of read cells that hold no weight, by slice."""
        return (0,) * self.chip.slices

    @property
    def columns_in_turn(self) -> int:
        """Cell columns that the busiest ADC meets in one read; neighbouring columns share an ADC."""
        gone = Counter(column for (_, column), tiles in self.built.items() if not tiles)
        groups = self.expanded.groups
        there = [b - a for c, (a, b) in enumerate(pairwise(self.col_bounds)) if gone[c] < groups]
        return self._in_turn(max(there) + self.chip.reference_columns) if there else 0

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
        """Reconstruction the blocks that there are, group by group, row tile by row tile, as crossbars are numbered."""
        numbers: dict[tuple[int, int, int], int] = {}
        for group in range(self.expanded.groups):
            for tile in range(self.row_tiles):
                step = tile % self.tiles_per_crossbar
                for column in range(self.col_tiles):
                    if (group, tile, column) in self.absent:
                        continue
                    yield Block(
                        group,
                        (self.row_bounds[tile], self.row_bounds[tile + 1]),
                        (self.col_bounds[column], self.col_bounds[column + 1]),
                        numbers.setdefault((group, tile // self.tiles_per_crossbar, column), len(numbers)),
                        step,
                        (step * self.chip.crossbar.active_rows, 0),
                    )

    def _check_absent(self) -> None:
        sizes = self.expanded.groups, self.row_tiles, self.col_tiles
        name, per = self.matmul.name, self.tiles_per_crossbar
        for block in self.absent:
            if any(not 0 <= number < size for number, size in zip(block, sizes, strict=True)):
                raise MappingError(
                    f"layer {name}: absent block {block} is not one of its {sizes[0]} groups x {sizes[1]} row tiles x "
                    f"{sizes[2]} column tiles"
                )
            group, tile, column = block
            first = tile // per * per
            whole = {(group, other, column) for other in range(first, min(first + per, self.row_tiles))}
            if not whole <= self.absent:
                raise MappingError(
                    f"layer {name}: block {block} is absent, but not all of the {len(whole)} row tiles of its crossbar"
                )


def input_digits(chip: Chip, *, signed: bool) -> int:
    """Count the digits an input is streamed in; a sign bit takes a cycle of its own."""
    if signed:
        return math.ceil((chip.inputs.bits - 1) / chip.dac.bits) + 1
    return math.ceil(chip.inputs.bits / chip.dac.bits)


def dense(matmul: Matmul, chip: Chip, absent: frozenset[tuple[int, int, int]] = frozenset()) -> LayerPlacement:
    """Cut a layer into blocks as large as the crossbar allows, each group on crossbars of its own.

    Row tiles = ceil(rows / active_rows), column tiles = ceil(cols / weight columns of a crossbar).

    Args:
        matmul: the layer.
        chip: the chip it is on.
        absent: blocks on crossbars that are not built, see `LayerPlacement`.

    Raises:
        MappingError: an absent block that the layer does not have, or a part only of a crossbar's.
    """
    height, width = chip.crossbar.active_rows, chip.weight_columns
    rows = (*range(0, matmul.rows, height), matmul.rows)
    cols = (*range(0, matmul.cols, width), matmul.cols)
    return LayerPlacement(matmul, chip, rows, cols, chip.crossbar.row_tiles, absent=absent)
