"""Real numbers to signed integers and a scale, rounding to nearest with ties to even."""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bitline.chip.formats import Offset, Pair, Weights
from bitline.errors import MappingError

Scale = Literal["any", "power_of_two"]
Rounding = Literal["up", "nearest"]


def quantize(x: Tensor, scale: Tensor | float, low: int, high: int) -> Tensor:
    """Round x / scale to the nearest integer, ties to even, and clip it to [low, high]; the dtype stays."""
    return (x / scale).round_().clamp_(low, high)


def widen(x: Tensor) -> Tensor:
    """Return numbers of half precision as float32, which holds 16-bit integers; others as they are."""
    return x.float() if x.dtype.itemsize < 4 else x


def snap(scale: Tensor, kind: Scale, rounding: Rounding = "up") -> Tensor:
    """Round scales to a power of two, or leave them.

    Args:
        scale: positive, any shape.
        kind: ``"any"`` leaves them.
        rounding: ``"up"``, so that nothing clips that did not before; ``"nearest"`` rounds log2 of the scale.
    """
    if kind == "any":
        return scale
    mantissa, exponent = torch.frexp(scale)
    # A mantissa lies in [0.5, 1): its log2 is nearer to -1 than to 0 below the square root of a half.
    lower = mantissa == 0.5 if rounding == "up" else mantissa.double().square() < 0.5
    return torch.ldexp(torch.ones_like(scale), exponent - lower.int())


def weight_limits(weights: Weights) -> tuple[int, int]:
    """Return the lowest and the highest integer weight; a pair is symmetric."""
    top = 2 ** (weights.bits - 1) - 1
    if isinstance(weights.encoding, Pair):
        return -top, top
    if isinstance(weights.encoding, Offset):
        return -weights.zero_point, 2**weights.bits - 1 - weights.zero_point
    return -top - 1, top


def check_numbers(x: Tensor, where: str, what: str) -> None:
    """Refuse numbers that are NaN or infinite.

    Raises:
        MappingError: ``"layer fc: 3 of 8 weights are NaN or infinite"``.
    """
    x = x.detach()
    if math.isfinite(float(x.sum())) or not x.numel():  # a sum is quick; it may overflow where no value does
        return
    count = int((~torch.isfinite(x)).sum())
    if count:
        raise MappingError(f"{where}: {count} of {x.numel()} {what} are NaN or infinite")


def weight_scale(w: Tensor, weights: Weights, *, name: str = "?") -> Tensor:
    """Return the smallest scale at which no weight clips, or the power of two that the chip asks for.

    Args:
        w: (groups, rows, cols).
        weights: bits, granularity and encoding.
        name: of the layer, for errors.

    Returns:
        (groups, 1, cols) for `channel`, (1, 1, 1) for `tensor`; 1 where all weights are zero.

    Raises:
        MappingError: NaN or infinite weights, or weights of a sign that the zero point leaves no room for.
    """
    w = w.detach()
    check_numbers(w, f"layer {name}", "weights")
    low, high = weight_limits(weights)
    axes = (1,) if weights.granularity == "channel" else (0, 1, 2)
    lows, highs = w.amin(1, keepdim=True).amin(axes, keepdim=True), w.amax(1, keepdim=True).amax(axes, keepdim=True)
    least, most = float(lows.min()), float(highs.max())
    if (low == 0 and least < 0) or (high == 0 and most > 0):
        raise MappingError(
            f"layer {name}: zero_point = {weights.zero_point} holds [{low}, {high}]; weights span [{least:g}, {most:g}]"
        )
    scale = torch.maximum(highs.clamp(min=0) / max(high, 1), lows.clamp(max=0) / min(low, -1))
    # A scale below the smallest normal float would divide to infinity.
    scale = torch.where(scale > torch.finfo(w.dtype).tiny, scale, torch.ones_like(scale))
    return snap(scale, weights.scale, weights.rounding)


class RoundedBias(NamedTuple):
    """A bias as integers of few bits.

    Args:
        integers: int64, (outputs,).
        exponents: of the power of two that an integer of 1 stands for, int64, (outputs,).
    """

    integers: Tensor
    exponents: Tensor

    @property
    def value(self) -> Tensor:
        """Real bias, float64, (outputs,)."""
        return torch.ldexp(self.integers.double(), self.exponents)


def round_bias(bias: Tensor, accumulator: Tensor, bits: int) -> RoundedBias:
    """Round a bias to multiples of a power of two, ties to even.

    An output's power of two is that of its accumulator or, if that is higher, the least at which the largest bias of
    the layer fits: what is added is then a whole number of the accumulator's units.

    Args:
        bias: real, (outputs,).
        accumulator: real value of an accumulator's 1, powers of two, (outputs,); 0 where nothing but the bias is added,
            which then has the least power of two at which it fits.
        bits: of a bias with its sign; symmetric.
    """
    top, most = 2 ** (bits - 1) - 1, float(bias.detach().abs().max()) if bias.numel() else 0.0
    units = torch.frexp(accumulator.double()).exponent.long() - 1
    if most > 0:
        least = math.frexp(most)[1] - bits
        while round(math.ldexp(most, -least)) > top:
            least += 1
        units = torch.where(accumulator > 0, units.clamp(min=least), least)
    return RoundedBias(torch.ldexp(bias.detach().double(), -units).round().long(), units)


@dataclass(frozen=True)
class InputFormat:
    """Integers that stand for activations: width and sign."""

    bits: int
    signed: bool

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest and highest integer."""
        return (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)


def digits(x: Tensor, form: InputFormat, width: int) -> Tensor:
    """Cut integers into the digits that the DACs stream, least significant first, a sign bit last.

    Args:
        x: integers within the limits of `form`, any integer dtype, any shape.
        form: their width and sign.
        width: of a digit, bits.

    Returns:
        (digits, *x.shape), int8 for digits of up to 7 bits, else int16.
    """
    dtype = torch.int8 if width < 8 else torch.int16
    body = form.bits - form.signed
    mask = 2**width - 1
    x = x if x.dtype == torch.uint8 and not form.signed else x.to(torch.int32)
    lower = x & (2**body - 1) if form.signed else x
    planes = [((lower >> shift) & mask).to(dtype) for shift in range(0, body, width)]
    if form.signed:
        planes.append((x < 0).to(dtype))
    return torch.stack(planes)


def digit_weights(form: InputFormat, width: int) -> tuple[int, ...]:
    """What each digit weighs; the sign bit weighs -2**(bits - 1)."""
    body = form.bits - form.signed
    weights = [2**shift for shift in range(0, body, width)]
    return (*weights, -(2 ** (form.bits - 1))) if form.signed else tuple(weights)
