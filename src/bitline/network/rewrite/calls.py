"""Code that multiplies by weights in functions, F.linear or a convolution, and is made to call layers instead.

The weights are those of a layer inside the module, or parameters of the module itself, which get a layer.
"""

import sys
from collections import Counter
from collections.abc import Mapping
from functools import wraps
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bitline.errors import ConversionError
from bitline.network.inputs import Inputs
from bitline.network.products import Running, slow_attention
from bitline.network.rewrite.module import Rewritten, twin, with_parameters
from bitline.network.subclass import gain
from bitline.network.trace import MAPPED, modules, run_hooked

_AXES = {F.linear: 0, F.conv1d: 1, F.conv2d: 2}
"""axes of a kernel, by function"""


class _Call(NamedTuple):
    """What a function is called with; (stride, padding, dilation, groups) of a convolution."""

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    geometry: tuple[Any, ...]


def _call(axes: int, args: Any, kwargs: Any) -> _Call:
    """Read the arguments of F.linear, or of a convolution along so many axes."""

    def arguments(
        input: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
        groups: int = 1,
    ) -> _Call:  # fmt: skip
        each = (stride, padding, dilation)
        spread = [
            v if isinstance(v, str) else (v,) * axes if isinstance(v, int) else tuple(v) * (axes // len(v))
            for v in each
        ]
        return _Call(input, weight, bias, (*spread, groups) if axes else ())

    return arguments(*args, **(kwargs or {}))


def _geometry(layer: Any) -> tuple[Any, ...]:
    return () if isinstance(layer, nn.Linear) else (layer.stride, layer.padding, layer.dilation, layer.groups)


class CallsLayers(nn.Module):
    """A module whose code multiplies by the weights of layers inside, which are called instead.

    `_called` has the names of these layers, and whether each had a bias; `_moved` those of the module's parameters that
    are a layer's now, by which they are still read, with the layer and the name there.
    """

    _called: Mapping[str, bool]
    _moved: Mapping[str, tuple[str, str]]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own code, with the layers called in the place of the functions."""
        with _Calls([(self.get_submodule(name), biased) for name, biased in self._called.items()]):
            return super().forward(*args, **kwargs)  # pyright: ignore

    def __getattr__(self, name: str) -> Any:
        moved = self.__dict__.get("_moved", {})
        if name in moved:
            layer, parameter = moved[name]
            return getattr(self._modules[layer], parameter)
        return super().__getattr__(name)

    @property
    def is_layer_itself(self) -> bool:
        """Whether its weight is that of a layer inside now."""
        return "weight" in self._moved


class _Calls(TorchFunctionMode):
    def __init__(self, layers: list[tuple[Any, bool]]) -> None:
        super().__init__()
        self.layers = layers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _AXES:
            call = _call(_AXES[func], args, kwargs)
            for layer, biased in self.layers:
                # A layer that computes itself is not called again.
                if layer.weight is call.weight and sys._getframe(1).f_locals.get("self") is not layer:  # pyright: ignore[reportPrivateUsage]
                    return _instead(layer, call, biased=biased)
        return func(*args, **(kwargs or {}))


def _instead(layer: Any, call: _Call, *, biased: bool) -> Tensor:
    """What a layer answers, with a bias that may be another than its own; one that it was given by a fold stays."""
    if call.geometry != _geometry(layer):
        raise ConversionError(
            f"code calls a convolution with (stride, padding, dilation, groups) = {call.geometry}; it was put on "
            f"crossbars with {_geometry(layer)}"
        )
    y = layer(call.input)
    if call.bias is layer.bias or (call.bias is None and not biased):
        return y
    own = layer.bias if biased else None
    more: Any = call.bias if own is None else -own if call.bias is None else call.bias - own
    return y + (more if isinstance(layer, nn.Linear) else more.view(-1, *[1] * len(layer.kernel_size)))


class Own(NamedTuple):
    """A parameter that a function multiplies by.

    Args:
        axes: of a kernel; 0: F.linear.
        bias: name of the parameter that is added.
        geometry: stride, padding, dilation and groups of a convolution.
    """

    axes: int
    bias: str | None
    geometry: tuple[Any, ...]


class Called(NamedTuple):
    """What the code of a module multiplies by.

    Args:
        layers: names of layers inside.
        own: parameters of the module, by name.
    """

    layers: dict[str, None]
    own: dict[str, Own]


def callers(model: nn.Module, example: Inputs | None) -> dict[nn.Module, Called]:
    """Modules whose code multiplies by weights in functions, seen on an example; without one there are none."""
    if example is None:
        return {}
    named = dict(modules(model))
    running = Running()
    with slow_attention(), _Looking(named, running) as looking:
        run_hooked(model, example, running.watch(list(named.items())))
    return {named[name]: called for name, called in looking.found.items() if called.layers or called.own}


class _Looking(TorchFunctionMode):
    def __init__(self, named: Mapping[str, nn.Module], running: Running) -> None:
        super().__init__()
        self.named = named
        self.running = running
        self.found: dict[str, Called] = {}
        self.unclear: set[tuple[str, str]] = set()
        self.holders = Counter(id(p) for module in named.values() for p in module.parameters(recurse=False))
        self.weights: dict[int, list[str]] = {}
        for name, module in named.items():
            if isinstance(module, MAPPED) and (weight := _own(module).get("weight")) is not None:
                self.weights.setdefault(id(weight), []).append(name)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _AXES:
            self._see(_AXES[func], _call(_AXES[func], args, kwargs))
        return func(*args, **(kwargs or {}))

    def _see(self, axes: int, call: _Call) -> None:
        caller = self.running.innermost
        inside = f"{caller}." if caller else ""
        found = self.found.setdefault(caller, Called({}, {}))
        for name in self.weights.get(id(call.weight), []):
            layer: Any = self.named[name]
            fits = _geometry(layer) == call.geometry and layer.weight.dim() == axes + 2
            if (
                name != caller
                and name.startswith(inside)
                and fits
                and getattr(layer, "padding_mode", "zeros") == "zeros"
            ):
                found.layers[name.removeprefix(inside)] = None
                return
        module = self.named[caller]
        own = {id(p): name for name, p in _own(module).items() if p is not None and self.holders[id(p)] == 1}
        name = own.get(id(call.weight))
        if name is None or not _has_code(module) or call.weight.dim() != max(2, axes + 2) or call.weight.is_complex():
            return
        made = Own(axes, None if call.bias is None else own.get(id(call.bias)), call.geometry)
        if found.own.setdefault(name, made) != made:
            self.unclear.add((caller, name))
        if (caller, name) in self.unclear:
            del found.own[name]


def _own(module: nn.Module) -> dict[str, nn.Parameter | None]:
    return module._parameters  # pyright: ignore


def _has_code(module: nn.Module) -> bool:
    """Whether the code that multiplies is the module's, and not that of a class of PyTorch."""
    plain = next((cls for cls in MAPPED if isinstance(module, cls)), None)
    if plain is None:
        return not type(module).__module__.startswith("torch.")
    cls: Any = type(module)
    return cls.forward is not plain.forward or getattr(cls, "_conv_forward", None) is not getattr(
        plain, "_conv_forward", None
    )


def calling(module: nn.Module, called: Called) -> Rewritten | None:
    """Have a module call layers where its code multiplies by weights; None where its code is not its class's."""
    if "forward" in vars(module):
        return None
    names = {name: _own(module.get_submodule(name)).get("bias") is not None for name in called.layers}
    moved: dict[str, tuple[str, str]] = {}
    new = twin(module)
    for name, own in called.own.items():
        layer, bias = f"{name}_layer", None
        moved[name] = layer, "weight"
        if own.bias is not None and own.bias not in moved:
            bias, moved[own.bias] = _own(module)[own.bias], (layer, "bias")
        elif name == "weight" and isinstance(module, MAPPED) and module.bias is None:
            moved["bias"] = layer, "bias"
        weight: Any = _own(module)[name]
        new._modules[layer] = with_parameters(_layer(weight, own, bias), weight, bias, module)
        names[layer] = bias is not None
    for name in moved:
        new._parameters.pop(name)
    vars(new).update(_called=names, _moved=moved)
    gain(new, CallsLayers, type(module))
    _keep_signature(type(new), type(module))
    said = [f"{', '.join(called.layers)} called where its code multiplied by their weights"] if called.layers else []
    said += [f"layers of its parameters {', '.join(called.own)}"] if called.own else []
    return Rewritten(new, "; ".join(said))


def _keep_signature(cls: Any, own: type[nn.Module]) -> None:
    """Have a class be called by the names of arguments that its module had, which who traces it looks at."""

    @wraps(own.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return CallsLayers.forward(self, *args, **kwargs)

    cls.forward = forward


def _layer(weight: Any, own: Own, bias: object) -> nn.Module:
    if not own.axes:
        return nn.Linear(weight.shape[1], weight.shape[0], bias is not None, "meta")
    stride, padding, dilation, groups = own.geometry
    cls: Any = nn.Conv1d if own.axes == 1 else nn.Conv2d
    size = (weight.shape[1] * groups, weight.shape[0], tuple(weight.shape[2:]))
    return cls(*size, stride, padding, dilation, groups, bias is not None, device="meta")
