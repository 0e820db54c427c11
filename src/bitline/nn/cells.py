"""What every layer on a chip holds: weights as integers, where they are placed, the cells they are written to."""

from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor

from bitline.chip.description import Chip
from bitline.chip.formats import Weights
from bitline.chip.variants import ideal, with_cells
from bitline.errors import ConversionError
from bitline.mapping.empty import empty_blocks
from bitline.mapping.lower import Lowerable, Matmul, weight_matrix
from bitline.mapping.place import LayerPlacement, Strategy, placed
from bitline.mapping.quantize import RoundedBias, quantize, round_bias, weight_limits, weight_scale, widen
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.effective import effective_weights
from bitline.mvm.gradient import Quantized, fake_quantize
from bitline.mvm.product import Product
from bitline.nn.state import KeepsRanges
from bitline.programming.cells import program_cells
from bitline.programming.mean_error import correction

IDEAL = -1
"""chip seed of cells that sit exactly where they should"""


class HoldsWeights(KeepsRanges):
    """A layer whose weights are in the cells of a chip; `CrossbarLayer` registers the buffers that it reads."""

    bias: Tensor | None
    input_signed: Tensor
    chip_seed: Tensor

    def __init__(self, *args: Any, chip: Chip, matmul: Matmul, strategy: Strategy, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.chip, self.strategy = chip, strategy
        self._matmul = matmul
        self._cells: tuple[tuple[Any, ...], Crossbars] | None = None
        self._errors: Tensor | None = None
        self._where: tuple[tuple[Any, ...], LayerPlacement] | None = None
        self._factor: tuple[Weights, Tensor] | None = None
        self._used: Tensor | None = None
        self._made_from: Tensor | None = None

    @property
    def _itself(self) -> Lowerable:
        """The plain layer that this also is."""
        return cast("Lowerable", self)

    @property
    def matmul(self) -> Matmul:
        """The layer as a matrix product."""
        return replace(self._matmul, signed=bool(self.input_signed))

    @property
    def arranged(self) -> LayerPlacement:
        """Where the layer's weights would be if all crossbars were built: all that does not depend on the weights."""
        return placed(self.matmul, self.chip, self.strategy)

    @property
    def placement(self) -> LayerPlacement:
        """Where the layer's weights are; a crossbar whose weights are all zero is not built.

        Raises:
            MappingError: weights that no cell holds.
        """
        if self.weight.is_meta:
            return self.arranged
        self._forget_other_weights()
        key = (self.chip, bool(self.input_signed))
        if self._where is None or self._where[0] != key:
            self._where = (key, self._placed(self.chip, self._integer_weights(self.chip)))
        return self._where[1]

    def _placed(self, chip: Chip, q: Tensor) -> LayerPlacement:
        whole = placed(self.matmul, chip, self.strategy)
        absent = empty_blocks(q, whole)
        return placed(self.matmul, chip, self.strategy, absent) if absent else whole

    def integer_weights(self) -> Tensor:
        """What the cells are to hold, (groups, rows, cols), integers of a floating dtype."""
        return self._integer_weights(self.chip)

    def _integer_weights(self, chip: Chip) -> Tensor:
        """Weights as the cells of a chip hold them, whole numbers, (groups, rows, cols)."""
        return quantize(self._weight_matrix(), self._weight_scale(), *weight_limits(chip.weights))

    def crossbars(self, chip: Chip, seed: int) -> Crossbars:
        """Return the layer's programmed cells on a chip; drawn once, the same on every torch device."""
        self._forget_other_weights()
        if not self.converts:
            chip, seed = ideal(chip), IDEAL
        key = (chip, seed, bool(self.input_signed))
        if self._cells is not None and self._cells[0] == key:
            return self._cells[1]
        q = self._integer_weights(chip)
        placement = self._placed(chip, q)
        cell = (with_cells(chip) if seed == IDEAL else chip).cell
        with torch.autocast("cpu", enabled=False):  # cells are the same whatever precision their network has
            written = program_cells(q.cpu(), placement, cell, seed)
            away = correction(written.levels, written.targets, placement, cell)
        levels = written.levels.to(self.weight.device)
        crossbars = Crossbars(Product(placement.wired), levels, away, written.flipped)
        self._cells = (key, crossbars)
        return crossbars

    def effective_weight(self) -> Tensor:
        """Real values of the weights as they are programmed, shaped as the layer's; see `bitline.mvm.effective`.

        Errors are those of the weights that `program` found: where these learn, they hold until it is called again.

        Raises:
            ConversionError: groups that share bitlines, whose cells are not all theirs.
        """
        if self.arranged.together > 1:
            raise ConversionError(
                f"layer {self._matmul.name} is mapped {self.strategy}: its groups share bitlines; simulate it directly"
            )
        self._forget_other_weights()
        q = self._integer_weights(self.chip)
        if self._errors is None:
            written = effective_weights(self.crossbars(self.chip, int(self.chip_seed)))
            self._errors = (written - q).to(q.dtype)
        w = (q + self._errors) * self._unit()
        return w.transpose(1, 2).reshape(self.weight.shape).to(self.weight.dtype)

    def fake_weight(self) -> Quantized:
        """The weights as the cells hold them without error."""
        scale = self._weight_scale().transpose(1, 2).reshape(-1, *[1] * (self.weight.dim() - 1))
        return fake_quantize(self.weight, scale, *weight_limits(self.chip.weights))

    def factor_of_one(self) -> Tensor:
        """Real value of a product of 1, float64, (groups, cols); 0 for an output whose weights are all zero."""
        factor = float(self.input_scale) * self._unit().double()
        return factor[:, 0, :].expand(self.matmul.groups, self.matmul.cols)

    def accumulator(self) -> Tensor:
        """Real value of 1 in the sum of an output, float64, (outputs,); 0 where all its weights are zero."""
        return self.factor_of_one().flatten()

    def rounded_bias(self) -> RoundedBias | None:
        """The bias in `weights.bias_bits`; None where there is none, or it is a real number."""
        if self.bias is None or self.chip.weights.bias_bits is None:
            return None
        return round_bias(self.bias, self.accumulator(), self.chip.weights.bias_bits)

    def used_bias(self) -> Tensor | None:
        """The bias that the chip adds, (outputs,); its gradient is that of `bias`."""
        rounded = self.rounded_bias()
        return self.bias if rounded is None or self.bias is None else rounded.value.to(self.bias.dtype)

    def _unit(self) -> Tensor:
        """Real value of a weight integer of 1, shaped as the scale; 0 where an output has no weight but zeros.

        Such an output is known without its cells, so that what these err by is not in it.
        """
        if self._used is None:
            self._used = self._weight_matrix().any(1, keepdim=True)
        return self._weight_scale() * self._used

    def _weight_scale(self) -> Tensor:
        """Real value of a weight integer of 1 in the cells last written, (groups or 1, 1, cols or 1)."""
        weights = self.chip.weights
        if self._factor is None or self._factor[0] != weights:
            self._factor = (weights, weight_scale(self._weight_matrix(), weights, name=self._matmul.name))
        return self._factor[1]

    def _weight_matrix(self) -> Tensor:
        return widen(weight_matrix(self._itself).detach())

    def _forget_other_weights(self) -> None:
        """Drop cells and scales made from weights that have changed since, by whatever means."""
        made, weight = self._made_from, self.weight.detach()
        if made is None or (made.device, made.dtype) != (weight.device, weight.dtype) or not made.equal(weight):
            self._made_from, self._cells, self._factor, self._where = weight.clone(), None, None, None
            self._used = None
