"""What a layer on a chip is: weights in programmed crossbars, inputs as integers, and the product of both."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from bitline import seeds
from bitline.chip.cell import NoReadNoise
from bitline.chip.description import Chip
from bitline.chip.variants import same_sums
from bitline.errors import ConversionError, MappingError
from bitline.mapping.encode import in_use
from bitline.mapping.lower import Lowerable, Matmul, input_rows, input_runs, input_view, output_shape, position_axes
from bitline.mapping.place import LayerPlacement, Strategy
from bitline.mapping.quantize import InputFormat, check_numbers
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars, Observer
from bitline.mvm.gradient import Quantized
from bitline.mvm.paths import crossbar_mvm, native_plan
from bitline.mvm.results import sort_results
from bitline.mvm.sum_histogram import VectorSample, minmax
from bitline.nn import state
from bitline.nn.cells import IDEAL, Cells
from bitline.nn.description import describe
from bitline.nn.ranges import Ranges
from bitline.nn.read import Pass, Read, ReadNumber, Reads
from bitline.physics.noise import ReadNoise


class IntegerLayer(nn.Module):
    """A layer as its chip knows it, in integers; `CrossbarLayer` makes its answers of it.

    Attributes:
        ranges: of its inputs and ADCs.
        cells: its weights as integers and as crossbars.
        strategy: how its groups are laid out on crossbars.
        chip_seed: which programmed chip this is; -1 for ideal cells.
        images_along: axis of its input that numbers the images, by which its read noise is numbered.
        reads: images read since the chip was programmed.
        network_pass: of the network that the layer is in.
    """

    weight: Tensor
    bias: Tensor | None
    chip_seed: Tensor

    def __init__(self, *args: Any, chip: Chip, matmul: Matmul, strategy: Strategy = "dense", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.strategy: Strategy = strategy
        self.ranges = Ranges(chip, strategy)
        self.cells = Cells(matmul, strategy)
        self.register_buffer("chip_seed", torch.tensor(IDEAL))
        self.chip = chip
        self.images_along = 0
        self.reads = Reads()
        self.network_pass = Pass()
        self.register_state_dict_post_hook(state.save)
        self.register_load_state_dict_pre_hook(state.load)

    @property
    def chip(self) -> Chip:
        """The chip that the layer is on."""
        return self._chip

    @chip.setter
    def chip(self, chip: Chip) -> None:
        # torch.compile reads text, not records; it changes with the chip and with nothing else.
        self._chip, self._text = chip, describe(self._itself, chip, self.cells.matmul, self.strategy)

    def extra_repr(self) -> str:
        """Say what the plain layer says, and which chip."""
        try:
            crossbars = self.placement.crossbars
        except MappingError:  # of weights that no cell holds
            crossbars = self.whole_placement.crossbars
        return f"{super().extra_repr()}, chip={self.chip.name}, crossbars={crossbars}"

    @property
    def _itself(self) -> Lowerable:
        """The plain layer that this also is."""
        return cast("Lowerable", self)

    @property
    def matmul(self) -> Matmul:
        """The layer as a matrix product."""
        return replace(self.cells.matmul, signed=self.ranges.signed)

    @property
    def whole_placement(self) -> LayerPlacement:
        """Where the layer's weights would be if all crossbars were built: all that does not depend on the weights."""
        return self.cells.whole_placement(self.chip, signed=self.ranges.signed)

    @property
    def placement(self) -> LayerPlacement:
        """Where the layer's weights are; a crossbar whose weights are all zero is not built.

        Raises:
            MappingError: weights that no cell holds.
        """
        if self.weight.is_meta:
            return self.whole_placement
        weights = self.cells.weights(self._itself)
        return weights.placement(self.chip, signed=self.ranges.signed)

    @property
    def converts(self) -> bool:
        """Whether an ADC stands between the product and the answer."""
        return self.ranges.of_adcs

    # Inputs

    def check(self, x: Tensor | None) -> None:
        """Raise MappingError for an input, if there is one to check, or a bias that is NaN or infinite."""
        where = f"layer {self.cells.matmul.name}"
        if x is not None:
            check_numbers(x, where, "inputs")
        if self.bias is not None:
            check_numbers(self.bias, where, "biases")

    def integers(self, x: Tensor) -> Tensor:
        """Quantize the layer's inputs: integers of the input format, the shape of `x`.

        Raises:
            ConversionError: the layer is not calibrated.
            MappingError: NaN or infinite inputs.
        """
        self.check(x)
        return self.ranges.integers(x, self.chip, self.cells.matmul.name)

    @property
    def input_format(self) -> InputFormat:
        """Width and sign of the inputs."""
        return self.ranges.input_format(self.chip)

    @property
    def input_zero(self) -> int:
        """Integer that stands for 0."""
        return 0 if self.ranges.input_zero.is_meta else int(self.ranges.input_zero)

    def fake_input(self, x: Tensor) -> Quantized:
        """The inputs as the DACs see them."""
        low, high = (limit - self.input_zero for limit in self.input_format.limits)
        return Quantized(x.detach(), float(self.ranges.input_scale), low, high)

    def input_vectors(self, q: Tensor) -> Tensor:
        """Every input vector that the crossbars read, (images, positions, groups that share bitlines, rows)."""
        return input_rows(self._itself, q, self.whole_placement.together)

    def _view(self, q: Tensor) -> Tensor:
        return input_view(self._itself, q, self.whole_placement.together)

    def _runs(self, q: Tensor) -> Iterator[tuple[int, Tensor]]:
        return input_runs(self._itself, q, self.whole_placement.together)

    # Products

    def read(
        self,
        q: Tensor,
        chip: Chip | None = None,
        seed: int | None = None,
        *,
        number: ReadNumber | None = None,
        tiles: Sequence[int] | None = None,
    ) -> Read:
        """Everything that a product asks for: weights, crossbars, ranges, path and noise.

        Args:
            q: integers, shaped as the layer's input; they decide ranges under `batch_minmax` only.
            chip: the layer's chip, or a variant of it that differs in ADC or physics only; None: the layer's.
            seed: of the programmed chip, -1 for ideal cells; None: the layer's.
            number: that the read noise has; None: that of the first read of an evaluation.
            tiles: row tiles that are read; None: all.

        Raises:
            ConversionError: a calibrated range is asked for before calibration.
        """
        chip, seed = chip or self.chip, int(self.chip_seed) if seed is None else seed
        weights = self.cells.weights(self._itself)
        crossbars = weights.crossbars(chip, seed, signed=self.ranges.signed)
        scale = self.ranges.scale(crossbars, lambda: self._range_of(q, crossbars))
        noise = None
        if self._noisy(chip, seed):
            number = number or ReadNumber()
            noise = ReadNoise(chip.cell, number.seed(seed, self.cells.matmul.name), number.first_image)
        if tiles is not None:
            crossbars = crossbars.of_tiles(tiles)
        return Read(chip, weights, crossbars, scale, native_plan(q, crossbars, scale, noise), noise)

    def number(self, images: int) -> ReadNumber | None:
        """Number the reads of a batch, where it matters."""
        if not self.noisy:
            return None
        return self.reads.next(images, self.network_pass, training=self.training, layer=self.cells.matmul.name)

    @property
    def noisy(self) -> bool:
        """Whether every read draws noise."""
        return self._noisy(self.chip, int(self.chip_seed))

    def _noisy(self, chip: Chip, seed: int) -> bool:
        return seed != IDEAL and self.converts and not isinstance(chip.cell.read_noise, NoReadNoise)

    def _range_of(self, q: Tensor, crossbars: Crossbars) -> AdcScale:
        return minmax((rows for _, rows in self._runs(q)), crossbars, in_use(self.whole_placement))

    def multiply(self, q: Tensor, read: Read, *, observer: Observer | None = None) -> Tensor:
        """Multiply integer inputs by the layer's crossbars.

        Args:
            q: integers, shaped as the layer's input.
            read: what answers, from `read`.
            observer: sees analog sums and codes, groups that share bitlines merged; nothing where there is no ADC.

        Returns:
            weight x activation units, float64, (images, positions, groups, cols); less what the integer that stands
            for 0 adds.
        """
        observer = observer if self.converts else None
        if read.plan is not None and observer is None:
            y = read.plan.multiply(self._view(q), position_axes(self._itself), noise=read.noise)[0]
        else:
            outs = [
                crossbar_mvm(rows, read.crossbars, read.scale, noise=read.noise_from(start), observer=observer)
                for start, rows in self._runs(q)
            ]
            if not outs:
                return q.new_zeros(q.shape[0], 0, self.cells.matmul.groups, self.cells.matmul.cols).double()
            y = outs[0] if len(outs) == 1 else torch.cat(outs)
        y = sort_results(self._itself, y, q, read.crossbars, self.whole_placement)
        if self.input_zero:
            y = y - self.input_zero * read.weights.sums(self.chip.weights).to(y)
        return y

    def crossbars(self, chip: Chip, seed: int) -> Crossbars:
        """The layer's cells as they are programmed on a chip; drawn once, the same on every torch device."""
        return self.cells.weights(self._itself).crossbars(chip, seed, signed=self.ranges.signed)

    def factor_of_one(self) -> Tensor:
        """Real value of a product of 1, float64, (groups, cols); 0 for an output whose weights are all zero."""
        weights = self.cells.weights(self._itself)
        return weights.factor(float(self.ranges.input_scale), self.chip.weights)

    def integer_weights(self) -> Tensor:
        """What the cells are to hold, (groups, rows, cols), integers of a floating dtype."""
        return self.cells.weights(self._itself).integers(self.chip.weights)

    def fake_weight(self) -> Quantized:
        """The weights as the cells hold them without error."""
        return self.cells.weights(self._itself).fake(self.chip.weights)

    def effective_weight(self) -> Tensor:
        """Real values of the weights as they are programmed, shaped as the layer's; see `bitline.mvm.effective`.

        Errors are those of the weights that `program` met: where these learn, they hold until it is called again.

        Raises:
            ConversionError: groups that share bitlines, whose cells are not all theirs.
        """
        if self.whole_placement.together > 1:
            name = self.cells.matmul.name
            raise ConversionError(
                f"layer {name} is mapped {self.strategy}: its groups share bitlines; simulate it directly"
            )
        signed = self.ranges.signed
        return self.cells.programmed_weights(self._itself, self.chip, int(self.chip_seed), signed=signed)

    # Chips and ranges

    def forget(self) -> None:
        """Drop what was counted."""
        self.ranges.sums, self.reads = None, Reads()
        self.cells.forget_errors()

    def program(self, seed: int) -> None:
        """Write the weights into the cells of the chip with this seed; -1 for ideal cells."""
        # A tensor of its own: an exported program may hold the one before.
        self.chip_seed = torch.full_like(self.chip_seed, seeds.check(seed, least=IDEAL))
        self.reads = Reads()
        self.cells.forget_errors()

    def set_chip(self, chip: Chip) -> None:
        """Move to another chip; ADC ranges are fitted again where the partial sums are known and still true."""
        same = self.ranges.sums is not None and same_sums(chip, self.chip)
        fits = self.ranges.fits(chip) and (chip.adc.policy == "trained" or not same)
        if chip.inputs != self.chip.inputs:
            self.ranges.input_scale = torch.full_like(self.ranges.input_scale, math.nan)
        self.cells.forget_errors()
        self.chip = chip
        if not same:
            self.ranges.sums = None
        if not fits:
            self.fit()

    def fit(self, vectors: Tensor | None = None, *, outliers: float = 0.0) -> None:
        """Set ADC ranges from the sums that input vectors make, see `sampled`; None: from those counted so far."""
        weights = self.cells.weights(self._itself)
        self.ranges.fit(self.chip, weights, self.whole_placement, vectors, outliers)

    def vectors(self, input: Tensor) -> int:
        """How many vectors the crossbars read of an input."""
        return math.prod(output_shape(self._itself, input.shape)) // (self.matmul.groups * self.matmul.cols)

    def sample(self, of: int, images: int) -> VectorSample:
        """Draw which of so many input vectors ranges are fitted to, those of so many images."""
        return VectorSample(of, self.ranges.sample_size(self.whole_placement, images))

    def sampled(self, input: Tensor, sample: VectorSample) -> Tensor:
        """Those of an input's vectors that are drawn, as integers, (vectors, groups that share bitlines, rows)."""
        view, axes = self._view(input.detach()), 1 + position_axes(self._itself)
        at, index = sample.of_next(view.shape[:axes].numel()).to(input.device), list[Tensor]()
        for size in reversed(view.shape[:axes]):
            index.insert(0, at % size)
            at = at // size
        return self.integers(view[tuple(index)].flatten(2))
