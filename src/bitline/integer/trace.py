"""A network on crossbars as the list of operations it runs, each of a kind that integers can do."""

import operator
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import map_arg
from torch.nn import functional as F

from bitline.errors import ConversionError
from bitline.models import blocks
from bitline.network.copy import evaluating
from bitline.nn.grid import Grid, grids
from bitline.nn.layer import CrossbarLayer
from bitline.nn.observe import in_mode
from bitline.nn.on import crossbar_layers


class Kind(StrEnum):
    """What a step does."""

    LAYER = "layer"
    RELU = "relu"
    MAX_POOL = "max pool"
    AVERAGE_POOL = "average pool"
    ADD = "add"
    CONCAT = "concat"
    RESHAPE = "reshape"
    TAKE = "take"
    SAME = "same"
    INPUT = "input"
    REQUANTIZE = "requantize"


_MODULES: dict[type[nn.Module], Kind] = {
    nn.ReLU: Kind.RELU,
    nn.MaxPool1d: Kind.MAX_POOL,
    nn.MaxPool2d: Kind.MAX_POOL,
    nn.AvgPool1d: Kind.AVERAGE_POOL,
    nn.AvgPool2d: Kind.AVERAGE_POOL,
    nn.AdaptiveAvgPool1d: Kind.AVERAGE_POOL,
    nn.AdaptiveAvgPool2d: Kind.AVERAGE_POOL,
    nn.Flatten: Kind.RESHAPE,
    nn.Identity: Kind.SAME,
    nn.Dropout: Kind.SAME,
    nn.Dropout1d: Kind.SAME,
    nn.Dropout2d: Kind.SAME,
}
_FUNCTIONS: dict[object, Kind] = {
    F.relu: Kind.RELU,
    torch.relu: Kind.RELU,
    "relu": Kind.RELU,
    "relu_": Kind.RELU,
    operator.add: Kind.ADD,
    operator.iadd: Kind.ADD,
    torch.add: Kind.ADD,
    "add": Kind.ADD,
    "add_": Kind.ADD,
    torch.cat: Kind.CONCAT,
    torch.concat: Kind.CONCAT,
    torch.flatten: Kind.RESHAPE,
    "flatten": Kind.RESHAPE,
    "view": Kind.RESHAPE,
    "reshape": Kind.RESHAPE,
    torch.reshape: Kind.RESHAPE,
    "squeeze": Kind.RESHAPE,
    "unsqueeze": Kind.RESHAPE,
    torch.squeeze: Kind.RESHAPE,
    torch.unsqueeze: Kind.RESHAPE,
    F.max_pool1d: Kind.MAX_POOL,
    F.max_pool2d: Kind.MAX_POOL,
    torch.max_pool1d: Kind.MAX_POOL,
    torch.max_pool2d: Kind.MAX_POOL,
    F.avg_pool1d: Kind.AVERAGE_POOL,
    F.avg_pool2d: Kind.AVERAGE_POOL,
    F.adaptive_avg_pool1d: Kind.AVERAGE_POOL,
    F.adaptive_avg_pool2d: Kind.AVERAGE_POOL,
    "mean": Kind.AVERAGE_POOL,
    torch.mean: Kind.AVERAGE_POOL,
    blocks.taken: Kind.TAKE,
    "index_select": Kind.TAKE,
    torch.index_select: Kind.TAKE,
    F.channel_shuffle: Kind.TAKE,
    torch.channel_shuffle: Kind.TAKE,
    F.dropout: Kind.SAME,
    "contiguous": Kind.SAME,
    "clone": Kind.SAME,
}
_ALLOWED = (
    "layers on crossbars, ReLU, max and average pooling, addition, concatenation of channels, flatten, a permutation "
    "of channels, dropout"
)


@dataclass(frozen=True)
class Step:
    """One operation of one image batch.

    Args:
        kind: what it does.
        name: of the value it makes.
        inputs: names of the values it reads.
        shape: of the value, without the batch.
        module: that does it; None where the network's code does.
        where: dotted name of the module, or what the code calls.
        settings: what the kind needs; for pooling `kernel`, `stride`, `padding`, and `divisor` where it averages; for
            a permutation `index`.
    """

    kind: Kind
    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    module: nn.Module | None = None
    where: str = ""
    settings: dict[str, Any] = field(default_factory=dict[str, Any])


def trace(model: nn.Module, example: Tensor) -> list[Step]:
    """List what a converted network does to one image, in the order it runs; the last step makes its result.

    Args:
        model: from `to_crossbar`; it is run once, in floating point.
        example: one batch.

    Raises:
        ConversionError: nothing on crossbars, code that depends on values, or an operation without integer form.
    """
    graph = _Tracer.graph_of(model)
    modules: list[CrossbarLayer | Grid] = [*crossbar_layers(model).values(), *grids(model).values()]
    with evaluating(model), in_mode("float", *modules), torch.no_grad():
        values = _Values(fx.GraphModule(model, graph)).of(example[:1])
    steps = [
        step for node in graph.nodes if isinstance(values.get(node), Tensor) for step in _steps(model, node, values)
    ]
    result = next(node for node in graph.nodes if node.op == "output").args[0]
    if not isinstance(result, fx.Node) or sum(step.kind == Kind.INPUT for step in steps) != 1:
        raise ConversionError(f"{type(model).__name__} must turn one tensor into one tensor to run on integers")
    used = {result.name}
    for step in reversed(steps):
        if step.name in used:
            used.update(step.inputs)
    last = next(step for step in steps if step.name == result.name)
    return [*(step for step in steps if step.name in used and step is not last), last]


class _Tracer(fx.Tracer):
    """Trace into the network's own modules, not into layers on crossbars."""

    @classmethod
    def graph_of(cls, model: nn.Module) -> fx.Graph:
        crossbar_layers(model)
        if isinstance(model, CrossbarLayer):
            raise ConversionError("the network is a single layer on crossbars; put it in nn.Sequential")
        try:
            return cls(autowrap_functions=(blocks.taken,)).trace(model)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ConversionError(f"{type(model).__name__} cannot be traced to integer operations: {reason}") from error

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, CrossbarLayer) or super().is_leaf_module(m, module_qualified_name)


class _Values(fx.Interpreter):
    """What every node gives for one image."""

    def of(self, image: Tensor) -> dict[fx.Node, object]:
        self.values: dict[fx.Node, object] = {}
        try:
            self.run(image)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ConversionError(
                f"the network does not run on a batch of shape {tuple(image.shape)}: {error}"
            ) from error
        return self.values

    def run_node(self, n: fx.Node) -> object:
        result = super().run_node(n)
        if n.op not in ("output", "get_attr"):
            self.values[n] = result
        return result


def _steps(model: nn.Module, node: fx.Node, values: dict[fx.Node, object]) -> list[Step]:
    """One step, or two where a mean also leaves out the axes that it is over."""
    step = _step(model, node, values)
    if step.kind != Kind.AVERAGE_POOL or len(step.shape) > 1:
        return [step]
    averaged = f"{step.name}_averaged"
    shape = (*step.shape, *(1 for _ in step.settings["kernel"]))
    return [
        replace(step, name=averaged, shape=shape),
        Step(Kind.RESHAPE, step.name, (averaged,), step.shape, None, step.where),
    ]


def _step(model: nn.Module, node: fx.Node, values: dict[fx.Node, object]) -> Step:
    value = values[node]
    assert isinstance(value, Tensor)
    shape = tuple(value.shape[1:])
    if node.op == "placeholder":
        return Step(Kind.INPUT, node.name, (), shape, where="the input")
    module = model.get_submodule(str(node.target)) if node.op == "call_module" else None
    where = str(node.target) if module is not None else _call_name(node)
    kind = Kind.LAYER if isinstance(module, CrossbarLayer) else None
    kind = kind or (_MODULES.get(type(module)) if module is not None else _FUNCTIONS.get(node.target))
    if kind is None:
        what = f"{where} ({type(module).__name__})" if module is not None else where
        raise ConversionError(f"{what} has no integer form; allowed: {_ALLOWED}")
    inputs = tuple(n for n in node.all_input_nodes if isinstance(values.get(n), Tensor))
    if kind == Kind.CONCAT:  # in its order, and as often as it reads each
        inputs = tuple(n for n in _argument(node, 0, "tensors") if isinstance(n, fx.Node))
    if kind == Kind.ADD:
        inputs = tuple(n for n in node.args if isinstance(n, fx.Node))
    before = [values[n] for n in inputs]
    read = [x for x in before if isinstance(x, Tensor)]
    settings = _SETTINGS[kind](_Call(model, node, module, where, read, value)) if kind in _SETTINGS else {}
    return Step(kind, node.name, tuple(n.name for n in inputs), shape, module, where, settings)


def _call_name(node: fx.Node) -> str:
    target = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{target} (in the network's code, {node.name})"


def _argument(node: fx.Node, place: int, name: str, default: Any = None) -> Any:
    return node.args[place] if len(node.args) > place else node.kwargs.get(name, default)


@dataclass(frozen=True)
class _Call:
    """One call: of what, with what, giving what."""

    model: nn.Module
    node: fx.Node
    module: nn.Module | None
    where: str
    read: list[Tensor]
    value: Tensor

    def argument(self, place: int, name: str, default: Any = None) -> Any:
        """An argument of a module or of a function."""
        if self.module is not None:
            return getattr(self.module, name, default)
        return _argument(self.node, place, name, default)

    def refuse(self, why: str) -> ConversionError:
        return ConversionError(f"{self.where} {why}")

    def axes(self, value: Any) -> tuple[int, ...]:
        """One number for every spatial axis."""
        count = self.read[0].dim() - 2
        return tuple(value) if isinstance(value, tuple | list) else (int(value),) * count


def _max_pool(call: _Call) -> dict[str, Any]:
    if call.argument(5, "ceil_mode", False) or any(d != 1 for d in call.axes(call.argument(4, "dilation", 1))):
        raise call.refuse("has ceil_mode or dilation, which has no integer form here")
    return _window(call)


def _window(call: _Call) -> dict[str, Any]:
    kernel = call.axes(call.argument(1, "kernel_size"))
    stride = call.argument(2, "stride")
    return {
        "kernel": kernel,
        "stride": kernel if stride in (None, ()) else call.axes(stride),
        "padding": call.axes(call.argument(3, "padding", 0)),
    }


def _average_pool(call: _Call) -> dict[str, Any]:
    x, size = call.read[0], tuple(call.read[0].shape[2:])
    function = "" if call.module is not None else getattr(call.node.target, "__name__", str(call.node.target))
    if isinstance(call.module, nn.AvgPool1d | nn.AvgPool2d) or function.startswith("avg_pool"):
        window = _window(call)
        if call.argument(4, "ceil_mode", False) or (
            any(window["padding"]) and not call.argument(5, "count_include_pad", True)
        ):
            raise call.refuse("averages over windows of several sizes, which has no integer form here")
        divisor = call.argument(6, "divisor_override")
        return {**window, "divisor": int(divisor or torch.Size(window["kernel"]).numel())}
    if function == "mean":
        axes = call.argument(1, "dim", call.argument(1, "axis")) or ()
        axes = {a % x.dim() for a in (axes if isinstance(axes, tuple | list) else (axes,))}
        if axes != set(range(2, x.dim())) or x.dim() == 2:
            raise call.refuse("is a mean over other axes than all of space")
        kernel = size
    else:
        out = tuple(call.value.shape[2:])
        if any(n % m for n, m in zip(size, out, strict=True)):
            raise call.refuse(f"averages {size} to {out}, windows of several sizes; allowed: sizes that divide")
        kernel = tuple(n // m for n, m in zip(size, out, strict=True))
    return {"kernel": kernel, "stride": kernel, "padding": (0,) * len(kernel), "divisor": torch.Size(kernel).numel()}


def _add(call: _Call) -> dict[str, Any]:
    if len(call.read) != 2 or call.read[0].shape != call.read[1].shape or call.node.kwargs:
        raise call.refuse("does not add two values of one shape")
    return {}


def _concat(call: _Call) -> dict[str, Any]:
    axis = _argument(call.node, 1, "dim", _argument(call.node, 1, "axis", 0))
    if axis % call.value.dim() != 1:
        raise call.refuse(f"joins along axis {axis}; allowed: channels, axis 1")
    return {}


def _reshape(call: _Call) -> dict[str, Any]:
    before, after = call.read[0].shape[1:], call.value.shape[1:]
    ones = [n for n in before[1:] if n != 1] == [n for n in after[1:] if n != 1]
    if after != (before.numel(),) and not (before[0] == after[0] and ones):
        raise call.refuse(f"makes {tuple(after)} of {tuple(before)}; allowed: flatten, and axes of length 1")
    return {}


def _take(call: _Call) -> dict[str, Any]:
    channels = call.read[0].shape[1]
    # Channels are numbered and sent the way the network sends them.
    numbers = torch.arange(channels, dtype=torch.float64).view(1, -1, *[1] * (call.read[0].dim() - 2))
    env: dict[fx.Node, Any] = {n: _attribute(call.model, n) for n in call.node.all_input_nodes if n.op == "get_attr"}
    given = map_arg(call.node.args, lambda n: env.get(n, numbers))
    rest = map_arg(call.node.kwargs, lambda n: env.get(n, numbers))
    function: Callable[..., Tensor] = (
        getattr(Tensor, call.node.target) if isinstance(call.node.target, str) else call.node.target
    )
    sent = function(*given, **rest)
    if sent.shape[:1] != numbers.shape[:1] or sent.numel() != sent.shape[1]:
        raise call.refuse("takes along another axis than that of channels")
    return {"index": sent.flatten().long()}


def _attribute(model: nn.Module, node: fx.Node) -> object:
    value: Any = model
    for part in str(node.target).split("."):
        value = getattr(value, part)
    return value.cpu() if isinstance(value, Tensor) else value


_SETTINGS: dict[Kind, Callable[[_Call], dict[str, Any]]] = {
    Kind.MAX_POOL: _max_pool,
    Kind.AVERAGE_POOL: _average_pool,
    Kind.ADD: _add,
    Kind.CONCAT: _concat,
    Kind.RESHAPE: _reshape,
    Kind.TAKE: _take,
}
