"""Weights into cells, and results of groups that share bitlines sorted again."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bitline import seeds
from bitline.chip.cell import Cell
from bitline.chip.description import Chip
from bitline.chip.formats import Pair
from bitline.errors import MappingError
from bitline.mapping.empty import clear_, empty_blocks
from bitline.mapping.encode import encode, slice_weights, worth
from bitline.mapping.lower import Lowerable, Matmul, weight_matrix
from bitline.mapping.place import LayerPlacement, Strategy, placed
from bitline.mapping.quantize import quantize, weight_limits, weight_scale, widen
from bitline.physics.faults import stuck_levels
from bitline.physics.program import written_levels
from bitline.physics.readback import write_in_turn
from bitline.physics.steps import in_levels, keep
from bitline.physics.verify import most_sensitive, verify
from bitline.programming.nearest import nearest_levels
from bitline.programming.remap import arrange, flip


@dataclass(frozen=True)
class ProgrammedCells:
    """The cells of one layer on one chip, column by column in the order of the kernels.

    Args:
        cells: what each adds to its bitline, laid out by `bitline.mapping.encode.encode` and kept as
            `bitline.physics.steps.keep` does.
        targets: the level that each was given, integers, the same shape.
        flipped: columns that hold their weights with the other sign, to be turned after the conversion, (groups, cols)
            bool; None: none.
        order: column that each kernel takes on the chip, (groups, cols) int64; None: its own.
        turned: columns whose kernels are held with the other sign, those of pairs included, (groups, cols) bool, in the
            order of the kernels; None: none.
        asked: levels that the cells were asked to take, stuck ones included, column by column as they lie on the chip.
        reached_cells: what they add to their bitlines, in that order, kept alike; ``cells`` but for the order and
            removed crossbars.
    """

    cells: Tensor
    targets: Tensor
    asked: Tensor
    reached_cells: Tensor
    flipped: Tensor | None = None
    order: Tensor | None = None
    turned: Tensor | None = None

    @property
    def levels(self) -> Tensor:
        """What each cell adds to its bitline, levels, uint8 or float32."""
        return in_levels(self.cells)

    @property
    def reached(self) -> Tensor:
        """The same, column by column as they lie on the chip."""
        return in_levels(self.reached_cells)


def program_cells(q: Tensor, placement: LayerPlacement, cell: Cell, seed: int) -> ProgrammedCells:
    """Write integer weights into the cells of one chip, as its mitigation of faults and errors says.

    Args:
        q: integers, (groups, rows, cols), on the CPU.
        placement: of the layer, whose name and the seed decide all draws.
        cell: the memory element.
        seed: of the chip.
    """
    targets, name = encode(q, placement), placement.matmul.name
    stuck = stuck_levels(targets.shape, cell, generator=seeds.generator(seed, name, "faults"))
    if stuck is not None:
        clear_(stuck, placement, -1)
    where = arrange(targets, stuck, placement)
    if where is None:
        asked, real = _programmed(targets, stuck, placement, cell, seed)
        return ProgrammedCells(clear_(real, placement), targets, asked, real)
    asked, real = _programmed(where.onto(targets, placement), stuck, placement, cell, seed)
    levels, pair = where.back(real, placement), isinstance(placement.chip.weights.encoding, Pair)
    if not pair:  # of a pair, the inputs of the subtraction are exchanged
        targets = flip(targets, where.flipped, placement)
    flipped = where.flipped if not pair and bool(where.flipped.any()) else None
    return ProgrammedCells(clear_(levels, placement), targets, asked, real, flipped, where.order, where.flipped)


def _programmed(
    levels: Tensor, stuck: Tensor | None, placement: LayerPlacement, cell: Cell, seed: int
) -> tuple[Tensor, Tensor]:
    """Return the levels that cells are asked to take, and what they then add to their bitlines, as `keep` does."""
    name, chip, mitigation = placement.matmul.name, placement.chip, placement.chip.mitigation
    generator = seeds.generator(seed, name, "programming")
    if mitigation.readback and cell.errs:
        rewrites = mitigation.rewrites
        outcome = write_in_turn(levels, stuck, worth(chip), cell, generator=generator, rewrites=rewrites)
        return outcome.asked, keep(outcome.real)
    if mitigation.nearest and stuck is not None:
        levels = nearest_levels(levels, stuck, slice_weights(chip), chip.cell.max_level)
    real = written_levels(levels, stuck, cell, generator=generator)
    if not mitigation.verify or real.dtype == torch.uint8:
        return levels, real
    generator = seeds.generator(seed, name, "write-verify")
    working = clear_(torch.ones_like(levels, dtype=torch.bool), placement)
    count = mitigation.verify * int(working.sum())
    if stuck is not None:
        working &= stuck < 0
    chosen = most_sensitive(levels, working, count, slice_weights(chip), cell, generator=generator)
    return levels, keep(verify(in_levels(real), levels, chosen, cell, mitigation.tolerance, generator=generator))


def absent_blocks(layer: Lowerable, matmul: Matmul, chip: Chip, strategy: Strategy) -> frozenset[tuple[int, int, int]]:
    """Find the blocks of a plain layer whose crossbars a chip need not have; none where it cannot hold the weights."""
    if layer.weight.is_meta:
        return frozenset()
    w = widen(weight_matrix(layer).detach())
    try:
        q = quantize(w, weight_scale(w, chip.weights, name=matmul.name), *weight_limits(chip.weights))
    except MappingError:  # said again when the weights are written
        return frozenset()
    return empty_blocks(q, placed(matmul, chip, strategy))
