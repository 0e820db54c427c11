"""An integer network as an ONNX file of integer operators, which gives the same integers elsewhere.

Weights are unsigned bytes with a zero point: kernels that multiply unsigned by signed bytes saturate at 16 bits on
computers without an instruction for it, those for two unsigned ones do not. ONNX shifts unsigned integers only, so an
even multiple of the divisor is added before a right shift and taken away after it, which changes no rounding.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from bitline.errors import ExportError
from bitline.files import new_file
from bitline.integer.network import IntegerNetwork
from bitline.integer.operations import Add, Concat, MaxPool, Operation, Relu, Requantize, Reshape, SumPool, Take
from bitline.integer.product import Product
from bitline.integer.rounding import right_shift

OPSET = 18
IMAGE, SCORES = "image", "scores"
_SIGNED_HALF = 128


def export(network: IntegerNetwork, path: Path | str) -> None:
    """Write an integer network as ONNX, whole or not at all.

    Its input is `network.dtype`, (batch, *network.shape); its output the integers of `Scores`. The units of both are in
    the file's metadata: ``input_exponent`` and ``exponent``.

    Raises:
        ExportError: onnx is not installed, integers of more than 8 bits, sums of more than 32, or no such folder.
    """
    onnx = _needed("onnx")
    graph = _Graph(onnx)
    graph.dtypes[network.source], graph.shapes[network.source] = network.dtype, network.shape
    for operation in network.operations:
        inputs = [graph.names.get(name, name) for name in operation.inputs]
        _WRITERS[type(operation)](graph, operation, inputs)
    last = network.operations[-1].name
    helper, kinds = onnx.helper, graph.kinds
    graph.node("Identity", [graph.names.get(last, last)], SCORES)
    image = helper.make_tensor_value_info(IMAGE, kinds[network.dtype], ["batch", *network.shape])
    scores = helper.make_tensor_value_info(SCORES, kinds[graph.dtypes[last]], ["batch", *graph.shapes[last]])
    graph.nodes.insert(0, helper.make_node("Identity", [IMAGE], [network.source]))
    made = helper.make_graph(graph.nodes, "bitline", [image], [scores], graph.constants)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="bitline", ir_version=9
    )
    form = network.source_format
    helper.set_model_props(
        model,
        {
            "exponent": str(network.exponent),
            "input_exponent": str(form.exponent),
            "sum_bits": json.dumps(network.sum_bits),
        },
    )
    onnx.checker.check_model(model, full_check=True)
    with new_file(Path(path)) as part:
        part.write_bytes(model.SerializeToString())


def run(path: Path | str, images: Tensor, *, at_once: int = 64) -> Tensor:
    """Answer integer images by an exported file, as onnxruntime does.

    Args:
        path: of `export`.
        images: of the network's dtype, (images, ...).
        at_once: images of a batch.

    Returns:
        Integers of `Scores`, (images, outputs).

    Raises:
        ExportError: onnxruntime is not installed.
    """
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    parts = [session.run([SCORES], {IMAGE: part.numpy()})[0] for part in images.split(at_once)]
    return torch.cat([torch.from_numpy(part) for part in parts])


def operators(path: Path | str) -> set[str]:
    """Name the operators of an ONNX file."""
    return {node.op_type for node in _needed("onnx").load(str(path)).graph.node}


def _needed(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ExportError(
            f"{name} is not installed; install bitline with its extra: pip install 'bitline[export]'"
        ) from error


@dataclass
class _Graph:
    """An ONNX graph that grows."""

    onnx: Any
    nodes: list[Any] = field(default_factory=list[Any])
    constants: list[Any] = field(default_factory=list[Any])
    names: dict[str, str] = field(default_factory=dict[str, str])
    """where a value of the network has another name here"""
    dtypes: dict[str, torch.dtype] = field(default_factory=dict[str, torch.dtype])
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])

    @property
    def kinds(self) -> dict[torch.dtype, int]:
        """Element types of ONNX."""
        kind = self.onnx.TensorProto
        return {
            torch.uint8: kind.UINT8,
            torch.int8: kind.INT8,
            torch.int32: kind.INT32,
            torch.int64: kind.INT64,
            torch.uint32: kind.UINT32,
            torch.uint64: kind.UINT64,
        }

    def node(self, kind: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Add a node and name what it gives."""
        output = output or f"t{len(self.nodes)}"
        self.nodes.append(self.onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, value: Tensor, dtype: torch.dtype | None = None) -> str:
        """Add a constant and name it."""
        name = f"c{len(self.constants)}"
        value = value.to(dtype or value.dtype).contiguous()
        self.constants.append(
            self.onnx.helper.make_tensor(name, self.kinds[value.dtype], value.shape, value.numpy().tobytes(), raw=True)
        )
        return name

    def number(self, value: int, dtype: torch.dtype) -> str:
        """Add a number."""
        return self.constant(torch.tensor(value), dtype)

    def vector(self, value: Tensor, dtype: torch.dtype, axes: int) -> str:
        """Add one number for each channel, which is axis 1 of `axes`."""
        if bool((value == value[0]).all()):
            return self.number(int(value[0]), dtype)
        return self.constant(value.view(1, -1, *[1] * (axes - 2)), dtype)

    def cast(self, name: str, before: torch.dtype, after: torch.dtype) -> str:
        """Change a dtype where it differs."""
        return name if before == after else self.node("Cast", [name], to=self.kinds[after])

    def gives(self, operation: Operation, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Note what an operation gave."""
        self.names[operation.name] = name
        self.dtypes[operation.name], self.shapes[operation.name] = dtype, shape

    def read(self, operation: Operation, place: int = 0) -> tuple[torch.dtype, tuple[int, ...]]:
        """Dtype and shape of an input."""
        name = operation.inputs[place]
        return self.dtypes[name], self.shapes[name]


def _product(graph: _Graph, op: Product, inputs: Sequence[str]) -> None:
    dtype, shape = graph.read(op)
    if dtype not in (torch.uint8, torch.int8) or op.bias.dtype != torch.int32:
        raise ExportError(
            f"layer {op.layer}: ONNX multiplies integers of 8 bits and adds them in 32; inputs are {dtype}, "
            f"sums {op.bias.dtype}"
        )
    weight, zero = op.weight.int(), _SIGNED_HALF if op.weight.dtype == torch.int8 else -int(op.weight.min())
    if int((weight + zero).max()) > 255 or int((weight + zero).min()) < 0:
        raise ExportError(
            f"layer {op.layer}: weights from {int(weight.min())} to {int(weight.max())} take more than 8 bits"
        )
    groups, _, cols = weight.shape
    x, x_zero = inputs[0], 0
    if dtype == torch.int8:
        x_zero = _SIGNED_HALF
        lifted = graph.node("Add", [graph.cast(x, dtype, torch.int32), graph.number(x_zero, torch.int32)])
        x = graph.cast(lifted, torch.int32, torch.uint8)
    zeros = [graph.number(x_zero, torch.uint8), graph.number(zero, torch.uint8)]
    if op.kernel:
        places = torch.Size(op.kernel).numel()
        w = (weight + zero).unflatten(1, (places, -1)).permute(0, 3, 2, 1).reshape(groups * cols, -1, *op.kernel)
        y = graph.node(
            "ConvInteger",
            [x, graph.constant(w, torch.uint8), *zeros],
            kernel_shape=op.kernel,
            strides=op.stride,
            dilations=op.dilation,
            group=groups,
            pads=[a for a, _ in op.padding] + [b for _, b in op.padding],
        )
        space = (
            (n + sum(p) - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(shape[1:], op.padding, op.dilation, op.kernel, op.stride, strict=True)
        )
        result = (groups * cols, *space)
    else:
        y = graph.node("MatMulInteger", [x, graph.constant(weight[0] + zero, torch.uint8), *zeros])
        result = (cols,)
    if bool(op.bias.any()):
        y = graph.node("Add", [y, graph.vector(op.bias, torch.int32, 1 + len(result))])
    graph.gives(op, y, torch.int32, result)


def _relu(graph: _Graph, op: Relu, inputs: Sequence[str]) -> None:
    dtype, shape = graph.read(op)
    wide = torch.int64 if dtype == torch.int64 else torch.int32
    y = graph.node("Max", [graph.cast(inputs[0], dtype, wide), graph.number(0, wide)])
    graph.gives(op, graph.cast(y, wide, dtype), dtype, shape)


def _max_pool(graph: _Graph, op: MaxPool, inputs: Sequence[str]) -> None:
    dtype, shape = graph.read(op)
    result = _pooled(op, shape)
    if dtype.itemsize == 1:
        y = graph.node("MaxPool", inputs, kernel_shape=op.kernel, strides=op.stride, pads=[*op.padding, *op.padding])
    else:
        y = graph.node("Max", _parts(graph, op, inputs[0], result, torch.iinfo(dtype).min, dtype))
    graph.gives(op, y, dtype, result)


def _sum_pool(graph: _Graph, op: SumPool, inputs: Sequence[str]) -> None:
    dtype, shape = graph.read(op)
    result = _pooled(op, shape)
    wide = torch.int64 if op.wide or dtype == torch.int64 else torch.int32
    x = graph.cast(inputs[0], dtype, wide)
    if tuple(op.kernel) == shape[1:] and not any(op.padding):
        axes = graph.constant(torch.arange(2, 1 + len(shape)))
        y = graph.node("ReduceSum", [x, axes], keepdims=1)
    else:
        y, *others = _parts(graph, op, x, result, 0, wide)
        for other in others:
            y = graph.node("Add", [y, other])
    graph.gives(op, y, wide, result)


def _pooled(op: MaxPool | SumPool, shape: tuple[int, ...]) -> tuple[int, ...]:
    windows = zip(shape[1:], op.kernel, op.stride, op.padding, strict=True)
    return (shape[0], *((n + 2 * p - k) // s + 1 for n, k, s, p in windows))


def _parts(
    graph: _Graph, op: MaxPool | SumPool, x: str, result: tuple[int, ...], value: int, dtype: torch.dtype
) -> list[str]:
    """Slices of a value, one for each place of a window."""
    if any(op.padding):
        ends = torch.tensor([0, 0, *op.padding] * 2)
        x = graph.node("Pad", [x, graph.constant(ends), graph.number(value, dtype)])
    axes, steps = graph.constant(torch.arange(2, 1 + len(result))), graph.constant(torch.tensor(op.stride))
    parts: list[str] = []
    for place in torch.cartesian_prod(*map(torch.arange, op.kernel)).view(-1, len(op.kernel)):
        ends = place + (torch.tensor(result[1:]) - 1) * torch.tensor(op.stride) + 1
        parts.append(graph.node("Slice", [x, graph.constant(place), graph.constant(ends), axes, steps]))
    return parts


def _add(graph: _Graph, op: Add, inputs: Sequence[str]) -> None:
    wide = torch.int64 if op.wide else torch.int32
    _, shape = graph.read(op)
    terms: list[str] = []
    for place, (name, shift) in enumerate(zip(inputs, op.shifts, strict=True)):
        x = graph.cast(name, graph.read(op, place)[0], wide)
        terms.append(graph.node("Mul", [x, graph.vector(1 << shift, wide, 1 + len(shape))]) if bool(shift.any()) else x)
    y = terms[0] if len(terms) == 1 else graph.node("Add", terms)
    graph.gives(op, y, wide, shape)


def _concat(graph: _Graph, op: Concat, inputs: Sequence[str]) -> None:
    dtypes = [graph.read(op, place)[0] for place in range(len(inputs))]
    widest = max(dtypes, key=lambda dtype: dtype.itemsize)
    dtype = widest if all(each == widest for each in dtypes) else max(widest, torch.int32, key=lambda d: d.itemsize)
    parts = [graph.cast(name, before, dtype) for name, before in zip(inputs, dtypes, strict=True)]
    shapes = [graph.read(op, place)[1] for place in range(len(inputs))]
    graph.gives(op, graph.node("Concat", parts, axis=1), dtype, (sum(s[0] for s in shapes), *shapes[0][1:]))


def _reshape(graph: _Graph, op: Reshape, inputs: Sequence[str]) -> None:
    y = graph.node("Reshape", [inputs[0], graph.constant(torch.tensor([-1, *op.shape]))])
    graph.gives(op, y, graph.read(op)[0], op.shape)


def _take(graph: _Graph, op: Take, inputs: Sequence[str]) -> None:
    dtype, shape = graph.read(op)
    y = graph.node("Gather", [inputs[0], graph.constant(op.index)], axis=1)
    graph.gives(op, y, dtype, (len(op.index), *shape[1:]))


def _requantize(graph: _Graph, op: Requantize, inputs: Sequence[str]) -> None:
    dtype, shape = graph.read(op)
    right, half, some = right_shift(op.shift)
    lift = -(op.floor >> (right + 1)).clamp(max=0) << (right + 1)
    most = int((torch.maximum(op.ceiling, torch.zeros_like(lift)) + lift + half).max()) + 1
    wide = torch.int64 if op.wide or dtype == torch.int64 or most >= 2**31 else torch.int32
    bare = torch.uint64 if wide == torch.int64 else torch.uint32
    axes = 1 + len(shape)

    def vector(value: Tensor, kind: torch.dtype = wide) -> str:
        return graph.vector(value, kind, axes)

    x = graph.cast(inputs[0], dtype, wide)
    x = graph.node("Max", [graph.node("Min", [x, vector(op.ceiling)]), vector(op.floor)])
    if op.divisor > 1:
        x = _divided(graph, op, x, vector)
    else:
        left = (-op.shift).clamp(min=0)
        if bool(left.any()):
            x = graph.node("Mul", [x, vector(1 << left)])
        if bool(right.any()):
            places = vector(right, bare)
            x = graph.node("Add", [x, vector(lift)]) if bool(lift.any()) else x
            once = graph.node("BitShift", [graph.cast(x, wide, bare), places], direction="RIGHT")
            odd = graph.node("BitwiseAnd", [graph.cast(once, bare, wide), vector(some)])
            up = graph.node("Add", [graph.node("Add", [x, vector(half)]), odd])
            shifted = graph.node("BitShift", [graph.cast(up, wide, bare), places], direction="RIGHT")
            x = graph.cast(shifted, bare, wide)
            x = graph.node("Sub", [x, vector(lift >> right)]) if bool(lift.any()) else x
    x = graph.node("Clip", [x, graph.number(op.low, wide), graph.number(op.high, wide)])
    graph.gives(op, graph.cast(x, wide, op.dtype), op.dtype, shape)


def _divided(graph: _Graph, op: Requantize, x: str, vector: Callable[..., str]) -> str:
    """Divide by multiplying with a reciprocal, as `Requantize` does."""
    r = op.reciprocal
    two = graph.number(2, torch.int64)
    lifted = graph.node("Add", [graph.node("Mul", [x, vector(1 << r.left)]), vector(r.above * r.whole)])
    twice = graph.node("Add", [graph.node("Mul", [lifted, two]), vector(r.whole)])
    product = graph.cast(graph.node("Mul", [twice, vector(r.factor)]), torch.int64, torch.uint64)
    shifted = graph.node("BitShift", [product, vector(r.shift, torch.uint64)], direction="RIGHT")
    quotient = graph.cast(shifted, torch.uint64, torch.int64)
    back = graph.node("Mul", [quotient, vector(2 * r.whole)])
    tie = graph.node("Cast", [graph.node("Equal", [twice, back])], to=graph.kinds[torch.int64])
    odd = graph.node("BitwiseAnd", [quotient, graph.number(1, torch.int64)])
    even = graph.node("Sub", [quotient, graph.node("Mul", [tie, odd])])
    return graph.node("Sub", [even, vector(r.above)])


_WRITERS = cast(
    "dict[type[Operation], Callable[[_Graph, Operation, Sequence[str]], None]]",
    {
        Product: _product,
        Relu: _relu,
        MaxPool: _max_pool,
        SumPool: _sum_pool,
        Add: _add,
        Concat: _concat,
        Reshape: _reshape,
        Take: _take,
        Requantize: _requantize,
    },
)
