"""From what a network does to what integers go through: units, ranges and widths of every value, worst case."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError, MappingError
from bitline.integer import trace as graph
from bitline.integer.operations import (
    Add,
    Concat,
    MaxPool,
    Operation,
    Product,
    Relu,
    Requantize,
    Reshape,
    SumPool,
    Take,
    reciprocal,
)
from bitline.integer.trace import Step
from bitline.nn.grid import grid_of
from bitline.nn.layers import CrossbarLayer

REQUANTIZE = "requantize"
_MOST_SHIFT = 40
_MOST_BITS = 62
"""of a value, its sign left out: int64 holds the sum of two"""
_COMMUTES = (graph.RELU, graph.MAX_POOL, graph.RESHAPE, graph.TAKE, graph.SAME)
"""what may come before or after a requantization: it changes no order, and keeps zero"""


@dataclass(frozen=True)
class Format:
    """Integers that a value is stored as: times 2^exponent, from low to high."""

    exponent: int
    low: int
    high: int


@dataclass(frozen=True)
class Value:
    """What is known of a value before any input is seen, for every channel, int64.

    Args:
        exponents: of its unit; the unit is 2^exponent / divisor.
        low: lowest integer that can occur.
        high: highest.
        divisor: odd.
    """

    exponents: Tensor
    low: Tensor
    high: Tensor
    divisor: int = 1

    @property
    def ends(self) -> tuple[Tensor, Tensor, Tensor]:
        """Exponents, lowest and highest."""
        return self.exponents, self.low, self.high

    @property
    def bits(self) -> int:
        """Bits, sign included, that hold every integer that can occur."""
        ends = (int(self.high.max()), -int(self.low.min()) - 1)
        return max(0, *ends).bit_length() + 1


class Made(NamedTuple):
    """An operation, None where nothing is to be done, and what is known of its value."""

    operation: Operation | None
    value: Value


@dataclass
class Derived:
    """The operations of an integer network.

    Args:
        operations: in the order they run; the last one makes the result.
        source: name of the input.
        source_format: integers that the input is.
        values: what is known of every value.
    """

    operations: list[Operation] = field(default_factory=list[Operation])
    source: str = ""
    source_format: Format = Format(0, 0, 0)
    values: dict[str, Value] = field(default_factory=dict[str, Value])


def with_requantization(found: Sequence[Step]) -> list[Step]:
    """Put a requantization where a crossbar reads and where a value is stored; where nothing is lost, earlier.

    A requantization moves in front of operations that keep order and zero, where no other operation reads their input:
    pooling then compares integers of few bits.
    """
    steps: list[Step] = []
    stored: dict[str, str] = {}
    reads: dict[tuple[str, Format], str] = {}
    for step in found:
        inputs = tuple(stored.get(name, name) for name in step.inputs)
        if isinstance(step.module, CrossbarLayer):
            form = _read_format(step.module)
            if (inputs[0], form) not in reads:
                reads[inputs[0], form] = read = f"{step.name}_read"
                steps.append(_requantize(read, inputs, _shape_of(found, step.inputs[0]), form, step.where))
            inputs = (reads[inputs[0], form],)
        steps.append(replace(step, inputs=inputs))
        grid = grid_of(step.module)
        if grid is not None:
            kept = f"{step.name}_stored"
            form = Format(int(grid.exponent), int(grid.low), int(grid.high))
            steps.append(_requantize(kept, (step.name,), step.shape, form, step.where))
            stored[step.name] = kept
    moved = True
    while moved:
        moved = _move_one(steps)
    return steps


def _requantize(name: str, inputs: tuple[str, ...], shape: tuple[int, ...], form: Format, where: str) -> Step:
    return Step(REQUANTIZE, name, inputs, shape, None, where, {"format": form})


def _read_format(layer: CrossbarLayer) -> Format:
    low, high = layer.input_format.limits
    return Format(exponent_of(float(layer.input_scale)), low, high)


def exponent_of(scale: float) -> int:
    """Exponent of a power of two."""
    return int(torch.frexp(torch.tensor(scale, dtype=torch.float64)).exponent) - 1


def _shape_of(found: Sequence[Step], name: str) -> tuple[int, ...]:
    return next(step.shape for step in found if step.name == name)


def _move_one(steps: list[Step]) -> bool:
    """Move one requantization in front of the operation whose value it reads; False if none can move."""
    by_name = {step.name: (place, step) for place, step in enumerate(steps)}
    for place, step in enumerate(steps):
        if step.kind != REQUANTIZE:
            continue
        before, source = by_name[step.inputs[0]]
        readers = sum(name == source.name for other in steps for name in other.inputs)
        if source.kind not in _COMMUTES or readers != 1 or source is steps[-1]:
            continue
        first = replace(
            step, inputs=source.inputs, shape=_shape_of(steps, source.inputs[0]), name=f"{source.name}_early"
        )
        steps[place] = replace(source, name=step.name, inputs=(first.name,))
        steps[before] = first
        if source.kind in (graph.SAME, graph.RELU) and (source.kind == graph.SAME or step.settings["format"].low == 0):
            # Nothing is left to do: rounding clips at zero already.
            del steps[place]
            steps[before] = replace(first, name=step.name)
        else:
            # What was moved runs where the other ran.
            steps.insert(before + 1, steps.pop(place))
        return True
    return False


def derive(steps: Sequence[Step], accumulator_bits: int) -> Derived:
    """Turn steps into integer operations, and check that every sum fits.

    Args:
        steps: from `with_requantization`.
        accumulator_bits: of a sum, its sign included; 2 to 62.

    Raises:
        ConversionError: something without integer form.
        MappingError: another width, or a sum that does not fit.
    """
    if not 2 <= accumulator_bits <= _MOST_BITS:
        raise MappingError(f"accumulator_bits is {accumulator_bits}; allowed: 2 to {_MOST_BITS}")
    image = next(step.name for step in steps if step.kind == graph.INPUT)
    found = Derived(source=f"{image}_integers")
    alias: dict[str, str] = {}
    for step in steps:
        step = replace(step, inputs=tuple(alias.get(name, name) for name in step.inputs))
        if step.kind == graph.INPUT:
            continue
        if image in step.inputs:
            _take_source(found, step, alias)
        elif step.kind == graph.SAME:
            alias[step.name] = step.inputs[0]
        else:
            operation, value = _one(step, [found.values[name] for name in step.inputs])
            if operation is None:
                alias[step.name] = step.inputs[0]
                continue
            _check_width(step, value, accumulator_bits)
            found.operations.append(operation)
            found.values[step.name] = value
    _align_result(found, alias.get(steps[-1].name, steps[-1].name), accumulator_bits)
    return found


def _take_source(found: Derived, step: Step, alias: dict[str, str]) -> None:
    """Note the integers that the input is; all that read it must read the same."""
    if step.kind != REQUANTIZE:
        raise ConversionError(
            f"the input is read by {step.where} in floating point; only crossbars and stored values can read it"
        )
    form: Format = step.settings["format"]
    if found.source in found.values and found.source_format != form:
        raise ConversionError(
            f"the input is read as {found.source_format} and, by {step.where}, as {form}; calibrate the layers that "
            "read it together, or pass it through nn.Identity() and call store"
        )
    channels = step.shape[0]
    found.source_format = form
    found.values[found.source] = _constant(channels, form)
    alias[step.name] = found.source


def _constant(channels: int, form: Format) -> Value:
    exponent, low, high = (torch.full((channels,), n) for n in (form.exponent, form.low, form.high))
    return Value(exponent, low, high)


def _one(step: Step, read: Sequence[Value]) -> Made:
    if any(value.divisor > 1 for value in read) and step.kind not in (REQUANTIZE, *_COMMUTES):
        raise ConversionError(f"{step.where} reads an average over windows that are no power of two; call store first")
    first = read[0]
    settings = step.settings
    match step.kind:
        case graph.LAYER:
            assert isinstance(step.module, CrossbarLayer)
            return _product(step, step.module, first)
        case graph.RELU:
            value = replace(first, low=first.low.clamp(min=0), high=first.high.clamp(min=0))
            return Made(Relu(step.name, step.inputs), value)
        case graph.MAX_POOL:
            return Made(MaxPool(step.name, step.inputs, **settings), first)
        case graph.AVERAGE_POOL:
            divisor = settings["divisor"]
            places = torch.Size(settings["kernel"]).numel()
            twos = (divisor & -divisor).bit_length() - 1
            window = {key: settings[key] for key in ("kernel", "stride", "padding")}
            _check_room(torch.stack([first.low, first.high]).abs().double() * places, step.where)
            low, high = first.low * places, first.high * places
            if any(settings["padding"]):
                low, high = low.clamp(max=0), high.clamp(min=0)
            value = Value(first.exponents - twos, low, high, divisor >> twos)
            return Made(SumPool(step.name, step.inputs, **window, wide=value.bits > 32), value)
        case graph.ADD:
            return _aligned(step.name, step.inputs, read, step.where)
        case graph.CONCAT:
            joined = (torch.cat(parts) for parts in zip(*(v.ends for v in read), strict=True))
            return Made(Concat(step.name, step.inputs), Value(*joined, divisor=1))
        case graph.RESHAPE:
            times = step.shape[0] // len(first.exponents)
            repeated = (each.repeat_interleave(times) for each in first.ends)
            return Made(Reshape(step.name, step.inputs, step.shape), Value(*repeated, divisor=first.divisor))
        case graph.TAKE:
            index: Tensor = settings["index"]
            taken = (each[index] for each in first.ends)
            return Made(Take(step.name, step.inputs, index), Value(*taken, divisor=first.divisor))
        case _:
            return rounded(step, first)


def _product(step: Step, layer: CrossbarLayer, read: Value) -> Made:
    weights = layer.chip.weights
    if weights.scale != "power_of_two" or layer.chip.inputs.scale != "power_of_two":
        raise ConversionError(f"layer {step.where}: weights.scale and inputs.scale must be 'power_of_two'")
    if layer.bias is not None and weights.bias_bits is None:
        raise ConversionError(f"layer {step.where} has a bias of real numbers; set weights.bias_bits, to 8 for example")
    q = layer.integer_weights().long()
    groups, _, cols = q.shape
    exponents = torch.frexp(layer.accumulator()).exponent.long() - 1
    bias = torch.zeros(groups * cols, dtype=torch.int64)
    few = layer.rounded_bias()
    if few is not None:
        # Where all weights are zero the sum has the unit of its bias.
        exponents = torch.where(layer.accumulator() > 0, exponents, few.exponents)
        bias = _shifted(few.integers, few.exponents - exponents, step.where)
    low, high = min(0, int(read.low.min())), max(0, int(read.high.max()))
    most = (q.clamp(min=0) * high + q.clamp(max=0) * low).sum(1).flatten() + bias
    least = (q.clamp(min=0) * low + q.clamp(max=0) * high).sum(1).flatten() + bias
    value = Value(exponents, least, most)
    geometry = _geometry(step, layer)
    if geometry:
        # Rows are channel, then place; here place, then channel.
        q = q.unflatten(1, (-1, torch.Size(geometry["kernel"]).numel())).transpose(1, 2).flatten(1, 2)
    byte = int(q.min()) >= -128 and int(q.max()) <= 127
    product = Product(
        step.name,
        step.inputs,
        step.where,
        q.to(torch.int8 if byte else torch.int32).contiguous(),
        bias.to(torch.int32 if value.bits <= 32 else torch.int64),
        **geometry,
        unsigned=not layer.input_format.signed and layer.input_format.bits <= 8,
    )
    return Made(product, value)


def _geometry(step: Step, layer: Any) -> dict[str, Any]:
    if isinstance(layer, nn.Linear):
        if len(step.shape) != 1:
            raise ConversionError(f"layer {step.where}: a linear layer of sequences has no integer form here")
        return {}
    if layer.padding_mode != "zeros":
        raise ConversionError(f"layer {step.where}: padding_mode = {layer.padding_mode!r} has no integer form here")
    ends = list(layer._reversed_padding_repeated_twice)
    pairs = [(ends[i], ends[i + 1]) for i in range(0, len(ends), 2)]
    return {
        "kernel": tuple(layer.kernel_size),
        "stride": tuple(layer.stride),
        "dilation": tuple(layer.dilation),
        "padding": tuple(reversed(pairs)),
    }


def _shifted(integers: Tensor, shift: Tensor, where: str) -> Tensor:
    """Integers on a finer unit."""
    if int(shift.max()) > _MOST_SHIFT:
        raise MappingError(f"{where}: units differ by 2^{int(shift.max())}; at most 2^{_MOST_SHIFT} can be aligned")
    _check_room(torch.ldexp(integers.abs().double(), shift), where)
    return integers << shift


def _check_room(magnitudes: Tensor, where: str) -> None:
    if (most := float(magnitudes.max())) >= 2.0**_MOST_BITS:
        raise MappingError(f"{where}: sums of up to {most:.3g} can occur; no more than {_MOST_BITS} bits can hold any")


def _aligned(name: str, inputs: tuple[str, ...], read: Sequence[Value], where: str) -> Made:
    finest = torch.stack([value.exponents for value in read]).amin(0)
    shifts = tuple(value.exponents - finest for value in read)
    low, high = (
        torch.stack([_shifted(each, shift, where) for each, shift in zip(ends, shifts, strict=True)]).sum(0)
        for ends in ([value.low for value in read], [value.high for value in read])
    )
    value = Value(finest, low, high)
    return Made(Add(name, inputs, shifts, wide=value.bits > 32), value)


def rounded(step: Step, read: Value) -> Made:
    """Requantize a value; no operation where it is what is asked for."""
    form: Format = step.settings["format"]
    shift = (form.exponent - read.exponents).clamp(max=62)
    low, high = (torch.full_like(shift, end) for end in (form.low, form.high))
    exact = bool((read.exponents == form.exponent).all()) and read.divisor == 1
    if exact and int(read.low.min()) >= form.low and int(read.high.max()) <= form.high:
        return Made(None, read)
    # Beyond these nothing but a clipped result comes out.
    right, left = shift.clamp(min=0), (-shift).clamp(min=0, max=31)
    room = 62 - max(abs(form.low), form.high).bit_length() - read.divisor.bit_length()
    reach, far = right.clamp(max=room), right > room
    bottom, top = (low * read.divisor << reach) >> left, ((high * read.divisor << reach) >> left) + 1
    floor = torch.maximum(read.low, torch.where(far, read.low, bottom))
    ceiling = torch.maximum(floor, torch.minimum(read.high, torch.where(far, read.high, top)))
    shift = torch.where(shift < 0, -left, shift)
    half = 1 << (right - 1).clamp(min=0, max=61)
    most = max(int((ceiling.abs() << left).max()), int((floor.abs() << left).max())) + int(half.max())
    made = Requantize(
        step.name,
        step.inputs,
        form.exponent,
        form.low,
        form.high,
        shift,
        floor,
        ceiling,
        most >= 2**31 or int(right.max()) > 31 or read.divisor > 1,
        read.divisor,
    )
    if read.divisor > 1 and (bits := reciprocal(made).bits) > 31:
        raise MappingError(f"{step.where}: dividing by {read.divisor} takes {bits} bits; at most 31 can be exact")
    return Made(made, Value(torch.full_like(shift, form.exponent), low, high))


def _check_width(step: Step, value: Value, accumulator_bits: int) -> None:
    if value.bits > accumulator_bits:
        raise MappingError(
            f"{step.where} ({step.kind}): sums from {int(value.low.min())} to {int(value.high.max())} can occur, which "
            f"takes {value.bits} bits; accumulator_bits = {accumulator_bits}"
        )


def _align_result(found: Derived, name: str, accumulator_bits: int) -> None:
    """Give all results one unit, so that they compare."""
    value = found.values[name]
    if value.divisor > 1:
        raise ConversionError("the result is an average over windows that are no power of two; call store first")
    if len(value.exponents.unique()) > 1:
        finest = value.exponents.amin().expand_as(value.exponents).contiguous()
        shift = value.exponents - finest
        low, high = (_shifted(end, shift, "the result") for end in (value.low, value.high))
        aligned = Value(finest, low, high)
        _check_width(Step("add", "result", (), (), where="the result"), aligned, accumulator_bits)
        found.operations.append(Add("result", (name,), (shift,), wide=aligned.bits > 32))
        found.values["result"] = aligned
    elif not found.operations or found.operations[-1].name != name:
        found.operations.append(Add("result", (name,), (torch.zeros_like(value.exponents),), wide=value.bits > 32))
        found.values["result"] = value


def sum_bits(found: Derived) -> dict[str, int]:
    """Bits, sign included, that the sums of every layer take at most, by layer."""
    return {op.layer: found.values[op.name].bits for op in found.operations if isinstance(op, Product)}
