"""The operations of an integer network as nodes of an ONNX graph; needs onnxscript.

Weights are unsigned bytes with a zero point: kernels that multiply unsigned by signed bytes saturate at 16 bits on
computers without an instruction for it, those for two unsigned ones do not. ONNX shifts unsigned integers only, so an
even multiple of the divisor is added before a right shift and taken away after it, which changes no rounding.
"""

import json
from collections.abc import Callable
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir import DataType, Value
from onnx_ir.tensor_adapters import from_torch_dtype
from onnxscript import GraphBuilder, OpBuilder
from torch import Tensor

from bitline.errors import ExportError
from bitline.integer.network import IntegerNetwork
from bitline.integer.operations import Add, Concat, MaxPool, Operation, Relu, Requantize, Reshape, SumPool, Take
from bitline.integer.product import Product
from bitline.integer.rounding import right_shift

OPSET, IR_VERSION = 18, 9
_SIGNED_HALF = 128
_UNSIGNED = {DataType.INT32: DataType.UINT32, DataType.INT64: DataType.UINT64}


def onnx_model(network: IntegerNetwork, image: str, scores: str) -> ir.Model:
    """Build the ONNX model of an integer network.

    Args:
        network: of inputs and weights of 8 bits and sums of 32.
        image: name of the input, integers of `network.dtype`, (batch, *network.shape).
        scores: name of the output, integers of `Scores`, (batch, outputs).

    Raises:
        ExportError: wider integers.
    """
    source = ir.val(image, from_torch_dtype(network.dtype), ["batch", *network.shape])
    graph = ir.Graph([source], [], nodes=[], opset_imports={"": OPSET}, name="bitline")
    op = GraphBuilder(graph).op
    values = {network.source: source}
    for operation in network.operations:
        inputs = [values[name] for name in operation.inputs]
        values[operation.name] = _WRITERS[type(operation)](op, operation, *inputs)
    last = values[network.operations[-1].name]
    op.builder.add_output(op.Identity(last), scores)
    graph.outputs[0].shape = ir.Shape(["batch", *_shape(last)])
    for node in graph:
        node.metadata_props.clear()
    about = {
        "exponent": str(network.exponent),
        "input_exponent": str(network.source_format.exponent),
        "sum_bits": json.dumps(network.sum_bits),
    }
    return ir.Model(graph, ir_version=IR_VERSION, producer_name="bitline", metadata_props=about)


def _shape(x: Value) -> tuple[int, ...]:
    """Shape of a value without the batch, (channels, space...)."""
    assert x.shape is not None
    return tuple(int(n) for n in x.shape[1:])  # pyright: ignore[reportArgumentType]


def _bytes(x: Value) -> int:
    assert x.dtype is not None
    return x.dtype.itemsize  # pyright: ignore[reportReturnType]


def _cast(op: OpBuilder, x: Value, dtype: DataType) -> Value:
    """Change a dtype where it differs."""
    return x if x.dtype == dtype else op.Cast(x, to=dtype)


def _constant(op: OpBuilder, value: Tensor, dtype: DataType | None) -> Value:
    assert dtype is not None
    name = f"c{len(op.builder.graph.initializers)}"
    return op.initializer(ir.tensor(value.contiguous().numpy().astype(dtype.numpy()), name=name))


def _channels(op: OpBuilder, value: Tensor, x: Value) -> Value | int:
    """One number for each channel of x, which is axis 1; a single number where all are the same."""
    if bool((value == value[0]).all()):
        return int(value[0])
    return _constant(op, value.view(1, -1, *(1 for _ in _shape(x)[1:])), x.dtype)


def _product(op: OpBuilder, layer: Product, x: Value) -> Value:
    if x.dtype not in (DataType.UINT8, DataType.INT8) or layer.bias.dtype != torch.int32:
        raise ExportError(
            f"layer {layer.layer}: ONNX multiplies integers of 8 bits and adds them in 32; inputs are {x.dtype}, "
            f"sums {layer.bias.dtype}"
        )
    weight, zero = layer.weight.int(), _SIGNED_HALF if layer.weight.dtype == torch.int8 else -int(layer.weight.min())
    if int((weight + zero).max()) > 255 or int((weight + zero).min()) < 0:
        raise ExportError(
            f"layer {layer.layer}: weights from {int(weight.min())} to {int(weight.max())} take more than 8 bits"
        )
    groups, _, cols = weight.shape
    x_zero = 0
    if x.dtype == DataType.INT8:
        x_zero = _SIGNED_HALF
        x = _cast(op, op.Add(_cast(op, x, DataType.INT32), x_zero), DataType.UINT8)
    if layer.kernel:
        places = torch.Size(layer.kernel).numel()
        weight = weight.unflatten(1, (places, -1)).permute(0, 3, 2, 1).reshape(groups * cols, -1, *layer.kernel)
        y = op.ConvInteger(
            x,
            _constant(op, weight + zero, DataType.UINT8),
            x_zero,
            zero,
            kernel_shape=layer.kernel,
            strides=layer.stride,
            dilations=layer.dilation,
            group=groups,
            pads=[a for a, _ in layer.padding] + [b for _, b in layer.padding],
        )
    else:
        y = op.MatMulInteger(x, _constant(op, weight[0] + zero, DataType.UINT8), x_zero, zero)
    return op.Add(y, _channels(op, layer.bias, y)) if bool(layer.bias.any()) else y


def _relu(op: OpBuilder, _: Relu, x: Value) -> Value:
    wide = DataType.INT64 if x.dtype == DataType.INT64 else DataType.INT32
    assert x.dtype is not None
    return _cast(op, op.Max(_cast(op, x, wide), 0), x.dtype)


def _max_pool(op: OpBuilder, pool: MaxPool, x: Value) -> Value:
    if _bytes(x) == 1:
        return op.MaxPool(x, kernel_shape=pool.kernel, strides=pool.stride, pads=[*pool.padding, *pool.padding])
    least = torch.iinfo(torch.int64 if x.dtype == DataType.INT64 else torch.int32).min
    return op.Max(*_windows(op, pool, x, least))


def _sum_pool(op: OpBuilder, pool: SumPool, x: Value) -> Value:
    x = _cast(op, x, DataType.INT64 if pool.wide or x.dtype == DataType.INT64 else DataType.INT32)
    if tuple(pool.kernel) == _shape(x)[1:] and not any(pool.padding):
        return op.ReduceSum(x, list(range(2, 1 + len(_shape(x)))), keepdims=1)
    y, *others = _windows(op, pool, x, 0)
    for other in others:
        y = op.Add(y, other)
    return y


def _windows(op: OpBuilder, pool: MaxPool | SumPool, x: Value, border: int) -> list[Value]:
    """Slices of a value, one for each place of a window."""
    sizes = [
        (n + 2 * p - k) // s + 1
        for n, k, s, p in zip(_shape(x)[1:], pool.kernel, pool.stride, pool.padding, strict=True)
    ]
    if any(pool.padding):
        x = op.Pad(x, [0, 0, *pool.padding] * 2, border)
    axes = list(range(2, 2 + len(sizes)))
    slices: list[Value] = []
    for start in torch.cartesian_prod(*map(torch.arange, pool.kernel)).view(-1, len(sizes)).tolist():
        end = [a + (n - 1) * s + 1 for a, n, s in zip(start, sizes, pool.stride, strict=True)]
        slices.append(op.Slice(x, start, end, axes, list(pool.stride)))
    return slices


def _add(op: OpBuilder, total: Add, *terms: Value) -> Value:
    wide = DataType.INT64 if total.wide else DataType.INT32
    first, *others = [_shift_left(op, _cast(op, x, wide), s) for x, s in zip(terms, total.shifts, strict=True)]
    for other in others:
        first = op.Add(first, other)
    return first


def _shift_left(op: OpBuilder, x: Value, shift: Tensor) -> Value:
    return op.Mul(x, _channels(op, 1 << shift, x)) if bool(shift.any()) else x


def _concat(op: OpBuilder, _: Concat, *values: Value) -> Value:
    widest = max(values, key=_bytes).dtype
    if any(x.dtype != widest for x in values) and widest != DataType.INT64:
        widest = DataType.INT32
    assert widest is not None
    return op.Concat(*(_cast(op, x, widest) for x in values), axis=1)


def _reshape(op: OpBuilder, reshape: Reshape, x: Value) -> Value:
    return op.Reshape(x, [-1, *reshape.shape])


def _take(op: OpBuilder, take: Take, x: Value) -> Value:
    return op.Gather(x, _constant(op, take.index, DataType.INT64), axis=1)


def _requantize(op: OpBuilder, step: Requantize, x: Value) -> Value:
    bits, below_half, last_bit = right_shift(step.shift)
    lift = -(step.floor >> (bits + 1)).clamp(max=0) << (bits + 1)
    most = int((torch.maximum(step.ceiling, torch.zeros_like(lift)) + lift + below_half).max()) + 1
    x = _cast(op, x, DataType.INT64 if step.wide or x.dtype == DataType.INT64 or most >= 2**31 else DataType.INT32)
    x = op.Max(op.Min(x, _channels(op, step.ceiling, x)), _channels(op, step.floor, x))
    if step.divisor > 1:
        x = _divide(op, step, x)
    else:
        x = _shift_left(op, x, (-step.shift).clamp(min=0))
        if bool(bits.any()):
            x = op.Add(x, _channels(op, lift, x)) if bool(lift.any()) else x
            odd = op.BitwiseAnd(_shift_right(op, x, bits), _channels(op, last_bit, x))
            x = _shift_right(op, op.Add(op.Add(x, _channels(op, below_half, x)), odd), bits)
            x = op.Sub(x, _channels(op, lift >> bits, x)) if bool(lift.any()) else x
    return _cast(op, op.Clip(x, step.low, step.high), from_torch_dtype(step.dtype))


def _shift_right(op: OpBuilder, x: Value, bits: Tensor) -> Value:
    """Shift integers that are not below zero right, without rounding."""
    assert x.dtype is not None
    bare = _cast(op, x, _UNSIGNED[x.dtype])
    return _cast(op, op.BitShift(bare, _channels(op, bits, bare), direction="RIGHT"), x.dtype)


def _divide(op: OpBuilder, step: Requantize, x: Value) -> Value:
    """Divide by multiplying with a reciprocal, as `bitline.integer.rounding.divide` does."""
    r = step.reciprocal
    lifted = op.Add(op.Mul(x, _channels(op, 1 << r.left, x)), _channels(op, r.above * r.whole, x))
    twice = op.Add(op.Mul(lifted, 2), _channels(op, r.whole, x))
    quotient = _shift_right(op, op.Mul(twice, _channels(op, r.factor, x)), r.shift)
    tie = op.Cast(op.Equal(twice, op.Mul(quotient, _channels(op, 2 * r.whole, x))), to=DataType.INT64)
    even = op.Sub(quotient, op.Mul(tie, op.BitwiseAnd(quotient, 1)))
    return op.Sub(even, _channels(op, r.above, x))


_WRITERS: dict[type[Operation], Callable[..., Any]] = {
    Product: _product,
    Relu: _relu,
    MaxPool: _max_pool,
    SumPool: _sum_pool,
    Add: _add,
    Concat: _concat,
    Reshape: _reshape,
    Take: _take,
    Requantize: _requantize,
}
