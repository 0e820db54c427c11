"""What every layer on a chip answers: crossbars, or what stands for them, scaled back to real numbers."""

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.mapping.lower import check_batch, output_shape, position_axes, with_batch
from bitline.mapping.quantize import RoundedBias, round_bias
from bitline.mvm.gradient import Quantized
from bitline.network.callers import check_caller
from bitline.nn.backward import Answer
from bitline.nn.cells import IDEAL, CellWeights
from bitline.nn.description import check_traceable
from bitline.nn.integer_layer import IntegerLayer
from bitline.nn.ranges import BUFFERS
from bitline.nn.read import Mode, Read


class CrossbarLayer(IntegerLayer):
    """What CrossbarLinear, CrossbarConv1d and CrossbarConv2d share; use those.

    Attributes:
        mode: ``"chip"``: the crossbars answer; ``"linear"``: they do, but conversions neither round nor clip;
            ``"float"``: the plain layer; ``"surrogate"``: what `surrogate` makes of the layer and its input.
        surrogate: answers in its mode, see `bitline.surrogate`.
        tiles_a_step: row tiles converted in a step of training, see `bitline.nn.drawn_tiles`; None: all.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.mode: Mode = "chip"
        self.surrogate: Callable[[Any, Tensor], Tensor] | None = None
        self.tiles_a_step: int | None = None
        # A layer with a hook is called by modules that would else compute around it (nn.TransformerEncoder).
        self.register_forward_hook(_nothing)

    def forward(self, input: Tensor) -> Tensor:
        """Apply the layer, (batch, ...) to (batch, ...), as the plain layer would, also to an input without a batch.

        Raises:
            ConversionError: the layer is not calibrated, or torch.fx, torch.jit, torch.onnx or torch.func calls it.
            MappingError: an input of other axes or channels, smaller than the kernel, NaN or infinite.
        """
        if self.mode != "float":
            check_caller(input, self.cells.matmul.name)
        shape = with_batch(self._itself, input.shape)
        if len(shape) > input.dim():
            return self.forward(input.unsqueeze(0)).squeeze(0)
        check_batch(self._itself, self.cells.matmul.name, shape)
        if self.mode == "float":
            return self._plain(input, self.weight, self.bias)
        if self.images_along and input.dim() > 2 and (self.noisy or self.mode == "surrogate"):
            return self._first(input.movedim(self.images_along, 0)).movedim(0, self.images_along)
        return self._first(input)

    def _first(self, input: Tensor) -> Tensor:
        """Answer an input whose first axis numbers the images."""
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
            self._with_zero(self._bias(factor), read.weights, factor),
            shape,
            last=isinstance(self, nn.Linear),
            noise=read.noise,
        )
        return answer, read

    def linear_answer(self, input: Tensor, inputs: Quantized) -> Tensor:
        """What the programmed cells answer where conversions neither round nor clip, to an input quantized already."""
        self.check(input)
        bias = self.bias if self.chip.weights.bias_bits is None else self._bias(self.factor_of_one())
        weight = self.linear_weight()
        if self.input_zero:  # the sum that is taken off is that of the weights as they should be
            of_zero = self.input_zero * float(self.ranges.input_scale)
            off = (weight - self.fake_weight().value).flatten(1).sum(1) * of_zero
            bias = off if bias is None else bias + off
        return self._plain(inputs.value, weight, bias)

    def _with_zero(self, bias: Tensor | None, weights: CellWeights, factor: Tensor) -> Tensor | None:
        """The bias less what the integer that stands for 0 adds to every product."""
        if not self.input_zero:
            return bias
        off = (weights.sums(self.chip.weights).to(factor) * factor * -self.input_zero).flatten()
        return off.to(self.weight.dtype) if bias is None else bias + off.to(bias.dtype)

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
        buffers = [*(ranges.get_buffer(name) for name in BUFFERS), self.chip_seed]
        return torch.ops.bitline.answer(input, self.weight, self.bias, buffers, self._text)

    # Real numbers

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

    def _plain(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        raise NotImplementedError


def _nothing(*_: object) -> None:
    """Do nothing."""
