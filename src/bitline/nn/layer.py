"""What every layer on a chip does: quantize, multiply by programmed crossbars, scale back."""

import math
from collections.abc import Callable, Iterator, Sequence
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
from bitline.mapping.lower import (
    Lowerable,
    Matmul,
    check_batch,
    input_rows,
    input_runs,
    input_view,
    output_shape,
    position_axes,
)
from bitline.mapping.place import LayerPlacement, Strategy
from bitline.mapping.quantize import InputFormat, RoundedBias, check_numbers, round_bias
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars, Observer
from bitline.mvm.gradient import Quantized, fake_quantize
from bitline.mvm.paths import crossbar_mvm, native_plan
from bitline.mvm.results import sort_results
from bitline.mvm.sum_histogram import VectorSample, minmax
from bitline.nn import state
from bitline.nn.backward import Answer
from bitline.nn.cells import IDEAL, Cells
from bitline.nn.description import check_traceable, describe
from bitline.nn.ranges import Ranges
from bitline.nn.read import Mode, Pass, Read, ReadNumber, Reads
from bitline.physics.noise import ReadNoise


class CrossbarLayer(nn.Module):
    """What CrossbarLinear, CrossbarConv1d and CrossbarConv2d share; use those.

    Attributes:
        ranges: of its inputs and ADCs.
        cells: its weights as integers and as crossbars.
        strategy: how its groups are laid out on crossbars.
        mode: ``"chip"``: the crossbars answer; ``"linear"``: they do, but conversions neither round nor clip;
            ``"float"``: the plain layer; ``"surrogate"``: what `surrogate` makes of the layer and its input.
        surrogate: answers in its mode, see `bitline.surrogate`.
        chip_seed: which programmed chip this is; -1 for ideal cells.
        tiles_a_step: row tiles converted in a step of training, see `bitline.nn.drawn_tiles`; None: all.
        reads: images read since the chip was programmed.
        network_pass: of the network that the layer is in.
    """

    weight: Tensor
    bias: Tensor | None
    chip_seed: Tensor

    def __init__(self, *args: Any, chip: Chip, matmul: Matmul, strategy: Strategy = "dense", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.strategy: Strategy = strategy
        self.mode: Mode = "chip"
        self.surrogate: Callable[[Any, Tensor], Tensor] | None = None
        self.ranges = Ranges(chip, strategy)
        self.cells = Cells(matmul, strategy)
        self.register_buffer("chip_seed", torch.tensor(IDEAL))
        self.chip = chip
        self.tiles_a_step: int | None = None
        self.reads = Reads()
        self.network_pass = Pass()
        self.register_state_dict_post_hook(state.save)
        self.register_load_state_dict_pre_hook(state.load)
        # A layer with a hook is called by modules that would else compute around it (nn.TransformerEncoder).
        self.register_forward_hook(_nothing)

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

    # What it answers

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer, (batch, ...) to (batch, ...), as the plain layer would.

        Raises:
            ConversionError: the layer is not calibrated.
            MappingError: an input without its batch axis, smaller than the kernel, NaN or infinite.
        """
        check_batch(self._itself, self.cells.matmul.name, input.shape)
        if self.mode == "float":
            return self._plain(input, self.weight, self.bias)
        if self.mode == "surrogate":
            return self._attached()(self, input)
        if torch.compiler.is_compiling() and self.mode == "chip":
            return self._traced_answer(input)
        if input.dtype.itemsize < self.weight.dtype.itemsize and torch.is_autocast_enabled(input.device.type):
            input = input.to(self.weight.dtype)  # of a digital layer in bf16: answers are no coarser for that
        needed = (input, self.weight, self.bias, self.ranges.log2_lsb, self.ranges.offset_shift)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in needed):
            return Answer.apply(self, *needed)  # pyright: ignore[reportReturnType]
        return self.linear_answer(input, self.fake_input(input)) if self.mode == "linear" else self.answer(input)[0]

    def answer(self, input: Tensor) -> tuple[Tensor, Read]:
        """What the chip answers, and what it read for that; no gradient."""
        q = self.integers(input)
        read = self.read(q, number=self.number(input.shape[0]))
        plan = read.plan
        sorts = self.strategy == "packed" or read.crossbars.adapted
        if plan is None or not plan.scales or sorts or input.dtype != torch.float32:
            return self.real(self.multiply(q, read), input, read), read
        factor = read.factor(float(self.ranges.input_scale))
        shape = output_shape(self._itself, input.shape)
        answer = plan.multiply_scaled(
            self._view(q),
            position_axes(self._itself),
            factor.flatten(),
            self._bias(factor),
            shape,
            last=isinstance(self, nn.Linear),
            noise=read.noise,
        )
        return answer, read

    def linear_answer(self, input: Tensor, inputs: Quantized) -> Tensor:
        """What the programmed cells answer where conversions neither round nor clip, to an input quantized already."""
        self.check(input)
        bias = self.bias if self.chip.weights.bias_bits is None else self._bias(self.factor_of_one())
        return self._plain(inputs.value, self.linear_weight(), bias)

    def linear_weight(self) -> Tensor:
        """Real values of the weights as the cells hold them, shaped as the layer's, see `effective_weight`."""
        ideal = int(self.chip_seed) == IDEAL and self.chip.cell.leak == "cancelled"
        return self.fake_weight().value if ideal else self.effective_weight()

    def _attached(self) -> Callable[[Any, Tensor], Tensor]:
        if self.surrogate is None:
            raise ConversionError(
                f"layer {self.cells.matmul.name}: its mode is 'surrogate', and it has none; "
                "call bitline.surrogate.attach(model, surrogate)"
            )
        return self.surrogate

    def plain_answer(self, x: Tensor, weight: Tensor, shift: Tensor) -> Tensor:
        """What the plain layer answers with other weights, and with the bias that the chip adds moved by `shift`."""
        bias = self.bias
        if bias is not None and self.chip.weights.bias_bits is not None:
            bias = bias + (cast("Tensor", self._bias(self.factor_of_one())) - bias).detach()
        shift = shift.to(weight.dtype)
        return self._plain(x, weight, shift if bias is None else bias + shift)

    def _traced_answer(self, input: Tensor) -> Tensor:
        """The answer as one node of a traced graph, see `bitline.nn.operator`.

        Raises:
            ConversionError: the chip has read noise, which differs from read to read, or ADC ranges train.
        """
        ranges = self.ranges
        check_traceable(self.chip, trains=ranges.log2_lsb is not None)
        buffers = [ranges.input_scale, ranges.input_signed, ranges.adc_lsb, ranges.adc_offset, self.chip_seed]
        return torch.ops.bitline.answer(input, self.weight, self.bias, buffers, self._text)

    def number(self, images: int) -> ReadNumber | None:
        """Number the reads of a batch, where it matters."""
        if not self._noisy(self.chip, int(self.chip_seed)):
            return None
        return self.reads.next(images, self.network_pass, training=self.training, layer=self.cells.matmul.name)

    def check(self, x: Tensor) -> None:
        """Raise MappingError for an input or a bias that is NaN or infinite."""
        where = f"layer {self.cells.matmul.name}"
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

    def fake_input(self, x: Tensor) -> Quantized:
        """The inputs as the DACs see them."""
        return fake_quantize(x, float(self.ranges.input_scale), *self.input_format.limits)

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
            weight x activation units, float64, (images, positions, groups, cols).
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
        return sort_results(self._itself, y, q, read.crossbars, self.whole_placement)

    def crossbars(self, chip: Chip, seed: int) -> Crossbars:
        """The layer's cells as they are programmed on a chip; drawn once, the same on every torch device."""
        return self.cells.weights(self._itself).crossbars(chip, seed, signed=self.ranges.signed)

    def real(self, y: Tensor, x: Tensor, read: Read) -> Tensor:
        """Turn integer products of a read, (images, positions, groups, cols), into the layer's output for input `x`."""
        factor = read.factor(float(self.ranges.input_scale))
        out, bias = self._scaled(y, x, factor), self._bias(factor)
        if bias is None:
            return out
        return out + (bias if isinstance(self, nn.Linear) else bias.view(-1, *[1] * (x.dim() - 2)))

    def real_product(self, y: Tensor, x: Tensor) -> Tensor:
        """Turn integer products into the layer's output without its bias."""
        return self._scaled(y, x, self.factor_of_one())

    def _scaled(self, y: Tensor, x: Tensor, factor: Tensor) -> Tensor:
        y = (y * factor).to(x.dtype).flatten(2)
        shape = output_shape(self._itself, x.shape)
        return (y if isinstance(self, nn.Linear) else y.transpose(1, 2)).reshape(shape)

    def plain_product(self, x: Tensor) -> Tensor:
        """The layer's output in floating point, without its bias."""
        return self._plain(x, self.weight, None)

    def factor_of_one(self) -> Tensor:
        """Real value of a product of 1, float64, (groups, cols); 0 for an output whose weights are all zero."""
        weights = self.cells.weights(self._itself)
        return weights.factor(float(self.ranges.input_scale), self.chip.weights)

    def rounded_bias(self) -> RoundedBias | None:
        """The bias in `weights.bias_bits`; None where there is none, or it is a real number."""
        return self._rounded_bias(self.factor_of_one())

    def _rounded_bias(self, factor: Tensor) -> RoundedBias | None:
        bits = self.chip.weights.bias_bits
        return None if self.bias is None or bits is None else round_bias(self.bias, factor.flatten(), bits)

    def _bias(self, factor: Tensor) -> Tensor | None:
        """The bias that the chip adds, (outputs,), for the real value of a product of 1; its gradient is `bias`'s."""
        rounded = self._rounded_bias(factor)
        return self.bias if rounded is None or self.bias is None else rounded.value.to(self.bias.dtype)

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

    def forget(self) -> None:
        """Drop what was counted."""
        self.ranges.sums, self.reads = None, Reads()
        self.cells.forget_errors()

    def program(self, seed: int) -> None:
        """Write the weights into the cells of the chip with this seed; -1 for ideal cells."""
        self.chip_seed.fill_(seeds.check(seed, least=IDEAL))
        self.reads = Reads()
        self.cells.forget_errors()

    def set_chip(self, chip: Chip) -> None:
        """Move to another chip; ADC ranges are fitted again where the partial sums are known and still true."""
        same = self.ranges.sums is not None and same_sums(chip, self.chip)
        fits = self.ranges.fits(chip) and (chip.adc.policy == "trained" or not same)
        if chip.inputs != self.chip.inputs:
            self.ranges.input_scale.fill_(math.nan)
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

    def sample(self, of: int) -> VectorSample:
        """Draw which of so many input vectors ranges are fitted to."""
        return VectorSample(of, self.ranges.sample_size(self.whole_placement))

    def sampled(self, input: Tensor, sample: VectorSample) -> Tensor:
        """Those of an input's vectors that are drawn, as integers, (vectors, groups that share bitlines, rows)."""
        view, axes = self._view(input.detach()), 1 + position_axes(self._itself)
        at, index = sample.of_next(view.shape[:axes].numel()).to(input.device), list[Tensor]()
        for size in reversed(view.shape[:axes]):
            index.insert(0, at % size)
            at = at // size
        return self.integers(view[tuple(index)].flatten(2))

    def _plain(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        raise NotImplementedError


def _nothing(*_: object) -> None:
    """Do nothing."""
