"""From what a network does to the operations on integers that do the same."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from bitline.errors import ConversionError, MappingError
from bitline.integer.bounds import MOST_BITS, Bounds, Format, check_width, finer, sum_in, sum_of
from bitline.integer.operations import Add, Concat, MaxPool, Operation, Relu, Reshape, SumPool, Take
from bitline.integer.product import Product
from bitline.integer.requantize import COMMUTES, BoundedOperation, requantize, with_requantization
from bitline.integer.trace import Kind, Step
from bitline.nn.layer import CrossbarLayer


@dataclass
class OperationGraph:
    """The operations of an integer network, and the bounds of every value between them.

    Args:
        source: name of the input.
        source_format: integers that the input is.
        operations: in the order they run; the last one makes the result.
        bounds: of every value, by its name.
    """

    source: str
    source_format: Format
    operations: list[Operation] = field(default_factory=list[Operation])
    bounds: dict[str, Bounds] = field(default_factory=dict[str, Bounds])

    @property
    def exponent(self) -> int:
        """Of the unit of the result."""
        return int(self.bounds[self.operations[-1].name].exponents[0])

    @property
    def sum_bits(self) -> dict[str, int]:
        """Bits, sign included, that the sums of every layer take at most, by layer."""
        return {op.layer: self.bounds[op.name].bits for op in self.operations if isinstance(op, Product)}


def lower(steps: Sequence[Step], accumulator_bits: int) -> OperationGraph:
    """Turn steps into integer operations, and check that every sum fits.

    Args:
        steps: of a network, whose values are stored where they have to be.
        accumulator_bits: of a sum, its sign included; 2 to 62.

    Raises:
        ConversionError: something without integer form.
        MappingError: another width, or a sum that does not fit.
    """
    if not 2 <= accumulator_bits <= MOST_BITS:
        raise MappingError(f"accumulator_bits is {accumulator_bits}; allowed: 2 to {MOST_BITS}")
    steps = with_requantization(steps)
    image = next(step for step in steps if step.kind == Kind.INPUT)
    graph = OperationGraph(f"{image.name}_integers", _image_format(steps, image))
    graph.bounds[graph.source] = Bounds.of_format(graph.source_format, image.shape[0])
    alias: dict[str, str] = {}
    for step in steps:
        step = replace(step, inputs=tuple(alias.get(name, name) for name in step.inputs))
        if step.kind == Kind.INPUT:
            continue
        if image.name in step.inputs:
            alias[step.name] = graph.source
        elif step.kind == Kind.SAME:
            alias[step.name] = step.inputs[0]
        else:
            operation, bounds = _operation(step, [graph.bounds[name] for name in step.inputs])
            if operation is None:
                alias[step.name] = step.inputs[0]
                continue
            check_width(bounds, accumulator_bits, f"{step.where} ({step.kind})")
            graph.operations.append(operation)
            graph.bounds[step.name] = bounds
    _align_result(graph, alias.get(steps[-1].name, steps[-1].name), accumulator_bits)
    return graph


def _image_format(steps: Sequence[Step], image: Step) -> Format:
    """The integers that the input is; all that read it must read the same."""
    readers = [step for step in steps if image.name in step.inputs]
    for step in readers:
        if step.kind != Kind.REQUANTIZE:
            raise ConversionError(
                f"the input is read by {step.where} in floating point; only crossbars and stored values can read it"
            )
        first, form = readers[0].settings["format"], step.settings["format"]
        if form != first:
            raise ConversionError(
                f"the input is read as {first} and, by {step.where}, as {form}; calibrate the layers that read it "
                "together, or pass it through nn.Identity() and call store"
            )
    return readers[0].settings["format"]


def _operation(step: Step, read: Sequence[Bounds]) -> BoundedOperation:
    """The operation of a step, given the bounds of what it reads."""
    if any(bounds.divisor > 1 for bounds in read) and step.kind not in (Kind.REQUANTIZE, *COMMUTES):
        raise ConversionError(f"{step.where} reads an average over windows that are no power of two; call store first")
    name, inputs, settings, first = step.name, step.inputs, step.settings, read[0]
    match step.kind:
        case Kind.LAYER:
            assert isinstance(step.module, CrossbarLayer)
            return _product(step, step.module, first)
        case Kind.RELU:
            return BoundedOperation(Relu(name, inputs), first.relu())
        case Kind.MAX_POOL:
            return BoundedOperation(MaxPool(name, inputs, **settings), first)
        case Kind.AVERAGE_POOL:
            places, padded = torch.Size(settings["kernel"]).numel(), any(settings["padding"])
            bounds = first.window_sum(places, settings["divisor"], padded=padded, where=step.where)
            window = {key: settings[key] for key in ("kernel", "stride", "padding")}
            return BoundedOperation(SumPool(name, inputs, **window, wide=bounds.bits > 32), bounds)
        case Kind.ADD:
            shifts, bounds = sum_of(read, step.where)
            return BoundedOperation(Add(name, inputs, shifts, wide=bounds.bits > 32), bounds)
        case Kind.CONCAT:
            return BoundedOperation(Concat(name, inputs), Bounds.of_channels(read))
        case Kind.RESHAPE:
            times = step.shape[0] // len(first.exponents)
            bounds = first.moved(lambda each: each.repeat_interleave(times))
            return BoundedOperation(Reshape(name, inputs, step.shape), bounds)
        case Kind.TAKE:
            index = settings["index"]
            return BoundedOperation(Take(name, inputs, index), first.moved(lambda each: each[index]))
        case _:
            return requantize(step, first)


def _product(step: Step, layer: CrossbarLayer, read: Bounds) -> BoundedOperation:
    weights = layer.chip.weights
    if weights.scale != "power_of_two" or layer.chip.inputs.scale != "power_of_two":
        raise ConversionError(f"layer {step.where}: weights.scale and inputs.scale must be 'power_of_two'")
    if layer.bias is not None and weights.bias_bits is None:
        raise ConversionError(f"layer {step.where} has a bias of real numbers; set weights.bias_bits, to 8 for example")
    if layer.input_zero:
        raise ConversionError(f"layer {step.where}: integers stand for values about 0; set inputs.zero_point to false")
    q = layer.integer_weights().long()
    groups, _, cols = q.shape
    exponents = torch.frexp(layer.factor_of_one().flatten()).exponent.long() - 1
    bias = torch.zeros(groups * cols, dtype=torch.int64)
    few = layer.rounded_bias()
    if few is not None:
        # Where all weights are zero the sum has the unit of its bias.
        exponents = torch.where(layer.factor_of_one().flatten() > 0, exponents, few.exponents)
        bias = finer(few.integers, few.exponents - exponents, step.where)
    bounds = read.matrix_product(q, bias, exponents)
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
        bias.to(torch.int32 if bounds.bits <= 32 else torch.int64),
        **geometry,
        unsigned=not layer.input_format.signed and layer.input_format.bits <= 8,
    )
    return BoundedOperation(product, bounds)


def _geometry(step: Step, layer: Any) -> dict[str, Any]:
    """Kernel, stride, dilation and padding of a convolution; nothing for a linear layer."""
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


def _align_result(graph: OperationGraph, name: str, accumulator_bits: int) -> None:
    """Give all results one unit, so that they compare."""
    bounds = graph.bounds[name]
    if bounds.divisor > 1:
        raise ConversionError("the result is an average over windows that are no power of two; call store first")
    one_unit = len(bounds.exponents.unique()) == 1
    if one_unit and graph.operations and graph.operations[-1].name == name:
        return
    finest = bounds.exponents.amin().expand_as(bounds.exponents).contiguous()
    shifts, bounds = sum_in(finest, [bounds], "the result")
    if not one_unit:
        check_width(bounds, accumulator_bits, "the result (add)")
    graph.operations.append(Add("result", (name,), shifts, wide=bounds.bits > 32))
    graph.bounds["result"] = bounds
