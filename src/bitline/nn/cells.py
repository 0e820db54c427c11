"""The weights of one layer, as integers and in the cells of a chip: made once for the same weights, and kept."""

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bitline.chip.description import Chip
from bitline.chip.formats import Weights
from bitline.chip.variants import ideal, with_cells
from bitline.mapping.empty import empty_blocks
from bitline.mapping.lower import Lowerable, Matmul
from bitline.mapping.part import Part
from bitline.mapping.place import LayerPlacement, Strategy, placed
from bitline.mapping.quantize import quantize, weight_limits, weight_scale, widen
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.effective import effective_weights
from bitline.mvm.gradient import Quantized
from bitline.mvm.product import Product
from bitline.programming.cells import program_cells
from bitline.programming.mean_error import correction

IDEAL = -1
"""chip seed of cells that sit exactly where they should"""


class Cells:
    """What the cells of a layer hold.

    Args:
        matmul: the layer as a matrix product, whose name decides all draws.
        strategy: how its groups are laid out on crossbars.
    """

    def __init__(self, matmul: Matmul, strategy: Strategy) -> None:
        self.matmul: Matmul = matmul
        self.strategy: Strategy = strategy
        self._weights: CellWeights | None = None
        self._whole = _Last()
        self.errors: Tensor | None = None
        """of the weights, weight units, as `programmed_weights` holds them; None until it is called"""

    def weights(self, layer: Lowerable) -> "CellWeights":
        """The weights that a layer has now; the same object while they stay as they are, by whatever means."""
        last, weight = self._weights, layer.weight.detach()
        same = last is not None and (last.source.device, last.source.dtype) == (weight.device, weight.dtype)
        if last is None or not same or not last.source.equal(weight):
            last = self._weights = CellWeights(weight.clone(), self.matmul, self.strategy)
        return last

    def whole_placement(self, chip: Chip, *, signed: bool) -> LayerPlacement:
        """Where the weights would be if all crossbars were built: all that does not depend on their values."""
        return self._whole(lambda: placed(replace(self.matmul, signed=signed), chip, self.strategy), chip, signed)

    def programmed_weights(self, layer: Lowerable, chip: Chip, seed: int, *, signed: bool) -> Tensor:
        """Real values of the weights as they are programmed, shaped as the layer's; see `bitline.mvm.effective`.

        Errors are those of the weights at the first call since `forget_errors`: where these learn, the errors stay.
        """
        weights = self.weights(layer)
        q = weights.integers(chip.weights)
        if self.errors is None:
            effective = effective_weights(weights.crossbars(chip, seed, signed=signed))
            self.errors = (effective - q).to(q.dtype)
        w = (q + self.errors) * weights.unit(chip.weights)
        return w.transpose(1, 2).reshape(layer.weight.shape).to(layer.weight.dtype)

    def forget_errors(self) -> None:
        """Take other errors at the next call of `programmed_weights`: the cells are written again."""
        self.errors = None


class CellWeights:
    """One value of a layer's weights, and what follows from it.

    Args:
        source: the weights, shaped as the layer's.
        matmul: the layer as a matrix product.
        strategy: how its groups are laid out on crossbars.
    """

    def __init__(self, source: Tensor, matmul: Matmul, strategy: Strategy) -> None:
        self.source = source
        self.matmul: Matmul = matmul
        self.strategy: Strategy = strategy
        self._scale, self._factor, self._placement, self._crossbars = _Last(), _Last(), _Last(), _Last()
        self._sums = _Last()

    @cached_property
    def _used(self) -> Tensor:
        """Which outputs have a weight that is not zero, (groups, 1, cols) bool."""
        return self._matrix().any(1, keepdim=True)

    def _matrix(self) -> Tensor:
        """The weights as crossbars see them, wide enough to quantize, (groups, rows, cols)."""
        groups, cols = self.matmul.groups, self.matmul.cols
        return widen(self.source.reshape(groups, cols, -1).transpose(1, 2))

    def scale(self, weights: Weights) -> Tensor:
        """Real value of a weight integer of 1, (groups or 1, 1, cols or 1)."""
        return self._scale(lambda: weight_scale(self._matrix(), weights, name=self.matmul.name), weights)

    def unit(self, weights: Weights) -> Tensor:
        """The same; 0 where an output has no weight but zeros.

        Such an output is known without its cells, so that what these err by is not in it.
        """
        return self.scale(weights) * self._used

    def factor(self, input_scale: float, weights: Weights) -> Tensor:
        """Real value of a product of 1, float64, (groups, cols); 0 for an output whose weights are all zero."""

        def make() -> Tensor:
            factor = input_scale * self.unit(weights).double()
            return factor[:, 0, :].expand(self.matmul.groups, self.matmul.cols).contiguous()

        return self._factor(make, input_scale, weights)

    def integers(self, weights: Weights) -> Tensor:
        """What the cells are to hold, (groups, rows, cols), whole numbers of a floating dtype."""
        return quantize(self._matrix(), self.scale(weights), *weight_limits(weights))

    def sums(self, weights: Weights) -> Tensor:
        """Sum of the integers of every output, float64, (groups, cols)."""
        return self._sums(lambda: self.integers(weights).sum(1, dtype=torch.float64), weights)

    def fake(self, weights: Weights) -> Quantized:
        """The weights as the cells hold them without error, shaped as the layer's."""
        scale = self.scale(weights).transpose(1, 2).reshape(-1, *[1] * (self.source.dim() - 1))
        return Quantized(self.source, scale, *weight_limits(weights))

    def placement(self, chip: Chip, *, signed: bool) -> LayerPlacement:
        """Where the weights are; a crossbar whose weights are all zero is not built.

        Raises:
            MappingError: weights that no cell holds.
        """
        return self._placement(lambda: self._placed(self.integers(chip.weights), chip, signed), chip, signed)

    def part(self, part: Part, weights: Weights) -> "CellWeights":
        """The weights of some columns, with their scales in the layer; nothing made of them is kept here."""
        m, scale = self.matmul, self.scale(weights)
        if (len(part.groups), len(part.cols)) == (m.groups, m.cols) or self.strategy in ("naive", "packed"):
            new = CellWeights(self.source, m, self.strategy)
        else:
            channels = (part.groups[:, None] * m.cols + part.cols).flatten().to(self.source.device)
            matmul = replace(m, groups=len(part.groups), cols=len(part.cols))
            new = CellWeights(self.source[channels], matmul, self.strategy)
            scale = scale[part.groups] if len(scale) > 1 else scale
            scale = scale[..., part.cols] if scale.shape[2] > 1 else scale
        new._scale(lambda: scale, weights)
        return new

    def crossbars(self, chip: Chip, seed: int, *, signed: bool) -> Crossbars:
        """Return the cells as they are programmed on a chip; drawn once, the same on every torch device."""
        if self.strategy == "digital":
            chip, seed = ideal(chip), IDEAL
        return self._crossbars(lambda: self._programmed(chip, seed, signed), chip, seed, signed)

    def _programmed(self, chip: Chip, seed: int, signed: bool) -> Crossbars:
        q = self.integers(chip.weights)
        placement = self._placed(q, chip, signed)
        cell = (with_cells(chip) if seed == IDEAL else chip).cell
        with torch.autocast("cpu", enabled=False):  # cells are the same whatever precision their network has
            cells = program_cells(q.cpu(), placement, cell, seed)
            mean = correction(cells.cells, cells.targets, placement, cell)
        return Crossbars(Product(placement.merged), cells.cells.to(self.source.device), mean, cells.flipped)

    def _placed(self, q: Tensor, chip: Chip, signed: bool) -> LayerPlacement:
        matmul = replace(self.matmul, signed=signed)
        whole = placed(matmul, chip, self.strategy)
        absent = empty_blocks(q, whole)
        return placed(matmul, chip, self.strategy, absent) if absent else whole


class _Last:
    """The last value that something had, and what it was made for."""

    def __init__(self) -> None:
        self._entry: tuple[tuple[Any, ...], Any] | None = None

    def __call__(self, make: Callable[[], Any], *key: Any) -> Any:
        """Return the value for a key, made only if the last one was for another."""
        entry = self._entry
        if entry is None or entry[0] != key:
            entry = self._entry = (key, make())
        return entry[1]
