"""What every layer on a chip does: quantize, multiply by programmed crossbars, scale back."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bitline import seeds
from bitline.chip.cell import NoReadNoise
from bitline.chip.description import Chip
from bitline.chip.variants import ideal, lossless, same_sums, with_cells
from bitline.errors import ConversionError, MappingError
from bitline.mapping.encode import in_use, set_together
from bitline.mapping.lower import Matmul, check_batch, input_rows, input_view, output_shape, position_axes
from bitline.mapping.place import Strategy
from bitline.mapping.quantize import InputFormat, RangeHistogram, quantize, widen
from bitline.mvm import adc as ranges
from bitline.mvm import native
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars, Observer
from bitline.mvm.gradient import Quantized, fake_quantize
from bitline.mvm.paths import crossbar_mvm, native_plan
from bitline.mvm.sum_histogram import SumHistogram, minmax
from bitline.nn import operator
from bitline.nn.backward import Answer
from bitline.nn.cells import IDEAL, HoldsWeights
from bitline.nn.results import sort_results
from bitline.nn.state import formats
from bitline.physics.noise import ReadNoise

UNFOLDED_BYTES = 2**26
"""input vectors of a convolution held at once"""

Mode = Literal["chip", "linear", "float", "observe_inputs", "observe_sums"]


class CrossbarLayer(HoldsWeights):
    """What CrossbarLinear, CrossbarConv1d and CrossbarConv2d share; use those.

    Attributes:
        chip: the chip it is on.
        matmul: the layer as a matrix product; its name seeds the cells.
        strategy: how its groups are laid out on crossbars.
        mode: ``"chip"``: the crossbars answer; ``"linear"``: they do, but conversions neither round nor clip;
            ``"float"``: the plain layer. The two others serve `calibrate`.
        input_scale: real value of an input integer of 1; NaN before calibration.
        input_signed: whether inputs below zero occur.
        adc_lsb: LSB of the calibrated ADC ranges, level units, (groups or 1, digits or 1, slices or 1, columns or 1).
        adc_offset: lowest value of the ranges, the same shape.
        chip_seed: which programmed chip this is; -1 for ideal cells.
        reads: images read since the chip was programmed, for each call within one pass of the network.
        call: number of the next call within this pass; None outside of a pass of the whole network.
    """

    def __init__(self, *args: Any, chip: Chip, matmul: Matmul, strategy: Strategy = "dense", **kwargs: Any) -> None:
        super().__init__(*args, chip=chip, matmul=matmul, strategy=strategy, **kwargs)
        self.mode: Mode = "chip"
        nothing = torch.full((1, 1, 1, 1), math.nan, dtype=torch.float64)
        self.register_buffer("input_scale", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("input_signed", torch.tensor(False))
        self.register_buffer("adc_lsb", nothing)
        self.register_buffer("adc_offset", nothing.clone())
        self.register_buffer("chip_seed", torch.tensor(IDEAL))
        self.register_buffer("calibrated_for", torch.tensor(formats(chip, self.layout)))
        self.reads: dict[int, int] = {}
        self.call: int | None = None
        self.inputs: RangeHistogram | None = None
        self.sums: SumHistogram | None = None
        self.described = operator.describe(self, chip, matmul, strategy)
        # A layer with a hook is called by modules that would else compute around it (nn.TransformerEncoder).
        self.register_forward_hook(_nothing)

    def extra_repr(self) -> str:
        """Say what the plain layer says, and which chip."""
        try:
            crossbars = self.placement.crossbars
        except MappingError:  # of weights that no cell holds
            crossbars = self.arranged.crossbars
        return f"{super().extra_repr()}, chip={self.chip.name}, crossbars={crossbars}"

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer, (batch, ...) to (batch, ...), as the plain layer would.

        Raises:
            ConversionError: the layer is not calibrated.
            MappingError: an input without its batch axis, smaller than the kernel, NaN or infinite.
        """
        check_batch(self._itself, self._matmul.name, input.shape)
        if self.mode == "observe_inputs" and self.inputs is not None:
            self._check_finite(input)
            self.inputs.add(input)
        if self.mode in ("float", "observe_inputs"):
            return self._plain(input, self.weight, self.bias)
        if torch.compiler.is_compiling() and self.mode == "chip":
            return operator.answer(self, input)
        needed = (input, self.weight, self.bias, self.log2_lsb, self.offset_shift)
        if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in needed):
            return Answer.apply(self, *needed)  # pyright: ignore[reportReturnType]
        return self.answer(input)

    def answer(self, input: Tensor) -> Tensor:
        """What the chip answers; no gradient."""
        if self.mode == "linear":
            return self.linear_answer(input, self.fake_input(input))
        q = self.integers(input)
        if self.mode == "observe_sums":
            self._count_sums(q)
            return self.real(self.multiply(q, ideal(self.chip), IDEAL), input)
        call, first = self._count_reads(input.shape[0])
        seed = int(self.chip_seed)
        plan = self._plan(q, self.chip, seed) if input.dtype == torch.float32 else None
        sorts = self.strategy == "packed" or self.crossbars(self.chip, seed).adapted
        if plan is None or not plan.scales or sorts:
            return self.real(self.multiply(q, self.chip, seed, first_image=first, call=call), input)
        shape = output_shape(self._itself, input.shape)
        return plan.multiply_scaled(
            self._view(q),
            position_axes(self._itself),
            self.factor_of_one().flatten(),
            self.used_bias(),
            shape,
            last=isinstance(self, nn.Linear),
            noise=self._noise(self.chip, seed, first, call),
        )

    def linear_answer(self, input: Tensor, inputs: Quantized) -> Tensor:
        """What the programmed cells answer where conversions neither round nor clip, to an input quantized already."""
        self._check_finite(input)
        return self._plain(inputs.value, self.effective_weight(), self.used_bias())

    def _count_reads(self, images: int) -> tuple[int, int]:
        """Return which call of this pass this is, and the number of its first image."""
        call = self.call or 0
        first = self.reads.get(call, 0)
        self.reads[call] = first + images
        if self.call is not None:
            self.call += 1
        return call, first

    def _check_finite(self, x: Tensor) -> None:
        x = x.detach()
        if math.isfinite(float(x.sum())) or not x.numel():  # a sum is quick; it may overflow where no value does
            return
        if not all(math.isfinite(float(end)) for end in x.aminmax()):
            raise MappingError(f"layer {self._matmul.name}: inputs are NaN or infinite")

    def integers(self, x: Tensor) -> Tensor:
        """Quantize the layer's inputs: integers of the input format, the shape of `x`.

        Raises:
            ConversionError: the layer is not calibrated.
            MappingError: NaN or infinite inputs.
        """
        self._check_finite(x)
        scale = float(self.input_scale)
        if not math.isfinite(scale):
            raise self._uncalibrated("input")
        form = self.input_format
        dtype = torch.int32 if form.bits > 8 else torch.int8 if form.signed else torch.uint8
        return quantize(widen(x.detach()), scale, *form.limits).to(dtype)

    @property
    def input_format(self) -> InputFormat:
        """Width and sign of the inputs."""
        return InputFormat(self.chip.inputs.bits, bool(self.input_signed))

    def multiply(
        self, q: Tensor, chip: Chip, seed: int, *, first_image: int = 0, call: int = 0, observer: Observer | None = None
    ) -> Tensor:
        """Multiply integer inputs by the layer's crossbars.

        Args:
            q: integers, shaped as the layer's input.
            chip: the layer's chip, or a variant of it that differs in ADC or physics only.
            seed: of the programmed chip, -1 for ideal cells.
            first_image: number of the first image since the chip was programmed; decides the read noise.
            call: number of this call within one pass of the network, where a layer runs several times.
            observer: sees analog sums and codes, as the layer is wired; nothing where it has no ADC.

        Returns:
            weight x activation units, float64, (images, positions, groups, cols).
        """
        observer = observer if self.converts else None
        plan = self._plan(q, chip, seed) if observer is None else None
        if plan is not None:
            noise = self._noise(chip, seed, first_image, call)
            y = plan.multiply(self._view(q), position_axes(self._itself), noise=noise)[0]
            return sort_results(self, y, q, self.crossbars(chip, seed))
        crossbars = self.crossbars(chip, seed)
        images, scale = q.shape[0], self.adc_scale(q, crossbars)
        outs: list[Tensor] = []
        for start, rows in self.vectors(q):
            noise = self._noise(chip, seed, first_image + start, call)
            outs.append(crossbar_mvm(rows, crossbars, scale, noise=noise, observer=observer))
        if not outs:
            return q.new_zeros(images, 0, self.matmul.groups, self.matmul.cols).double()
        return sort_results(self, outs[0] if len(outs) == 1 else torch.cat(outs), q, crossbars)

    def _noise(self, chip: Chip, seed: int, first_image: int, call: int) -> ReadNoise | None:
        """Return the noise of some reads; ideal cells are read without."""
        if seed == IDEAL or not self.converts or isinstance(chip.cell.read_noise, NoReadNoise):
            return None
        return ReadNoise(chip.cell, seeds.derive(seed, self._matmul.name, "read noise", call), first_image)

    def _plan(self, q: Tensor, chip: Chip, seed: int) -> native.Plan | None:
        """Return what computes the product natively; None where tensors do."""
        crossbars = self.crossbars(chip, seed)
        return native_plan(q, crossbars, self.adc_scale(q, crossbars), self._noise(chip, seed, 0, 0))

    def real(self, y: Tensor, x: Tensor) -> Tensor:
        """Turn integer products, (images, positions, groups, cols), into the layer's output for input `x`."""
        out, bias = self.real_product(y, x), self.used_bias()
        if bias is None:
            return out
        return out + (bias if isinstance(self, nn.Linear) else bias.view(-1, *[1] * (x.dim() - 2)))

    def real_product(self, y: Tensor, x: Tensor) -> Tensor:
        """Turn integer products into the layer's output without its bias."""
        y = (y * self.factor_of_one()).to(x.dtype).flatten(2)
        shape = output_shape(self._itself, x.shape)
        return (y if isinstance(self, nn.Linear) else y.transpose(1, 2)).reshape(shape)

    def plain_product(self, x: Tensor) -> Tensor:
        """The layer's output in floating point, without its bias."""
        return self._plain(x, self.weight, None)

    def input_vectors(self, q: Tensor) -> Tensor:
        """Every input vector that the crossbars read, (images, positions, groups, rows) as the layer is wired."""
        return input_rows(self._itself, q, self.arranged.together)

    def _view(self, q: Tensor) -> Tensor:
        return input_view(self._itself, q, self.arranged.together)

    def forget(self) -> None:
        """Drop what was counted."""
        self.sums, self.reads, self._errors = None, {}, None

    def program(self, seed: int) -> None:
        """Write the weights into the cells of the chip with this seed; -1 for ideal cells."""
        self.chip_seed.fill_(seed)
        self.reads, self._errors = {}, None

    def set_chip(self, chip: Chip) -> None:
        """Move to another chip; ADC ranges are fitted again where the partial sums are known and still true."""
        same = self.sums is not None and same_sums(chip, self.chip)
        kept = self.keeps(chip) and (chip.adc.policy == "trained" or not same)
        if chip.inputs != self.chip.inputs:
            self.input_scale.fill_(math.nan)
        self._errors = None
        self.chip, self.described = chip, operator.describe(self, chip, self._matmul, self.strategy)
        if not same:
            self.sums = None
        if not kept:
            self.fit()

    def fit(self) -> None:
        """Set ADC ranges from the partial sums counted so far."""
        if self.sums is None or not self.chip.adc.keeps_ranges:
            lsb = torch.full((1, 1, 1, 1), math.nan, dtype=torch.float64)
            offset = lsb.clone()
        else:
            exact = self.crossbars(ideal(self.chip), IDEAL)
            squares = self._unit().square()[:, 0].expand(self.matmul.groups, self.matmul.cols)
            ideal_cells, squares = self.crossbars(_unread(self.chip), IDEAL), set_together(squares, self.arranged)
            scale = self.sums.fit(self.chip.adc, ideal_cells, exact, squares)
            lsb, offset = scale.lsb, scale.offset
        self.take_ranges(lsb, offset)

    def adc_scale(self, q: Tensor, crossbars: Crossbars) -> AdcScale:
        """Ranges of the layer's ADCs on the chip of `crossbars`; `q` decides them under `batch_minmax` only.

        Raises:
            ConversionError: a calibrated range is asked for before calibration.
        """
        product = crossbars.product
        adc = product.placement.chip.adc
        match adc.policy:
            case "lossless":
                scale = ranges.lossless()
            case "full":
                scale = ranges.full(product)
            case "fixed":
                scale = ranges.fixed(product)
            case "batch_minmax":
                scale = minmax((rows for _, rows in self.vectors(q)), crossbars, in_use(self.arranged))
            case "calibrated" | "trained":
                scale = AdcScale(self.lsb, self.offset, *ranges.code_range(adc, product))
                if not bool((scale.lsb + scale.offset).isfinite().all()):
                    raise self._uncalibrated("ADC")
                return scale
        return replace(scale, lsb=scale.lsb.to(q.device), offset=scale.offset.to(q.device))

    def _uncalibrated(self, what: str) -> ConversionError:
        return ConversionError(
            f"layer {self._matmul.name}: {what} range unknown; "
            "call calibrate(model, batches) before running on the chip"
        )

    def count_sums(self, input: Tensor) -> None:
        """Count the partial sums that a batch of inputs makes on ideal cells, of some of its vectors."""
        self._count_sums(self.integers(input))

    def _count_sums(self, q: Tensor) -> None:
        if not self.converts:
            return
        crossbars = self.crossbars(_unread(self.chip), IDEAL)
        if self.sums is None:
            self.sums = SumHistogram(crossbars.product, in_use(self.arranged))
        for _, rows in self.vectors(q):
            self.sums.count(rows, crossbars, rows.shape[0] / q.shape[0])

    def vectors(self, q: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Yield (first image, input vectors of some images), a bounded number at a time."""
        per_image = q[:1].numel()
        if not isinstance(self, nn.Linear):
            per_image = self.matmul.rows * self.matmul.groups * math.prod(output_shape(self._itself, q.shape)[2:])
        most = max(1, UNFOLDED_BYTES // max(1, per_image * q.element_size()))
        for start in range(0, q.shape[0], most):
            yield start, self.input_vectors(q[start : start + most])

    def fake_input(self, x: Tensor) -> Quantized:
        """The inputs as the DACs see them."""
        return fake_quantize(x, float(self.input_scale), *self.input_format.limits)

    def _plain(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        raise NotImplementedError


def _unread(chip: Chip) -> Chip:
    """The same chip with ideal cells and a lossless ADC, its leak included: what calibration looks at."""
    return lossless(with_cells(chip))


def _nothing(*_: object) -> None:
    """Do nothing."""
