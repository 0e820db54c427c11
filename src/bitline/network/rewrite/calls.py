"""Code that multiplies by a layer's weights without calling the layer, and is made to call it."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bitline.mapping.lower import Lowerable
from bitline.network.inputs import Inputs
from bitline.network.products import Running, slow_attention
from bitline.network.rewrite.module import Rewritten, twin
from bitline.network.subclass import gain
from bitline.network.trace import MAPPED, modules, run_hooked


class CallsLayers(nn.Module):
    """A module whose code calls F.linear with the weights of layers inside, which are called instead.

    Args:
        called: names of these layers, in `_called`.
    """

    _called: tuple[str, ...]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the module's own code, with the layers called in the place of the function."""
        with _Calls([self.get_submodule(name) for name in self._called]):
            return super().forward(*args, **kwargs)  # pyright: ignore


class _Calls(TorchFunctionMode):
    def __init__(self, layers: list[Any]) -> None:
        super().__init__()
        self.layers = layers

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            x, weight, bias = _arguments(*args, **(kwargs or {}))
            layer = next((layer for layer in self.layers if layer.weight is weight), None)
            if layer is not None:
                return _instead(layer, x, bias)
        return func(*args, **(kwargs or {}))


def _arguments(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
    return input, weight, bias


def _instead(layer: Any, x: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer answers, with a bias that may be another than its own."""
    y = layer(x)
    if bias is layer.bias:
        return y
    if layer.bias is None:
        return y + bias
    return y - layer.bias if bias is None else y + (bias - layer.bias)


def callers(model: nn.Module, example: Inputs | None) -> dict[nn.Module, tuple[str, ...]]:
    """Modules whose code calls F.linear with the weights of a layer inside, and the names of these layers, by module.

    Seen on an example; without one there are none.
    """
    if example is None:
        return {}
    named = dict(modules(model))
    running = Running()
    with slow_attention(), _Looking(named, running) as looking:
        run_hooked(model, example, running.watch(list(named.items())))
    return {named[name]: tuple(found) for name, found in looking.found.items()}


class _Looking(TorchFunctionMode):
    def __init__(self, named: Mapping[str, nn.Module], running: Running) -> None:
        super().__init__()
        self.named = named
        self.running = running
        self.found: dict[str, dict[str, None]] = {}
        self.weights: dict[int, list[tuple[str, Lowerable]]] = {}
        for name, module in named.items():
            if isinstance(module, MAPPED):
                self.weights.setdefault(id(module._parameters.get("weight")), []).append((name, module))  # pyright: ignore

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear:
            _, weight, _ = _arguments(*args, **(kwargs or {}))
            caller = self.running.innermost
            inside = f"{caller}." if caller else ""
            for name, layer in self.weights.get(id(weight), []):
                if isinstance(layer, nn.Linear) and name != caller and name.startswith(inside):
                    self.found.setdefault(caller, {})[name.removeprefix(inside)] = None
                    break
        return func(*args, **(kwargs or {}))


def calling(module: nn.Module, layers: tuple[str, ...]) -> Rewritten | None:
    """Have a module call layers where its code multiplies by their weights; None where its code is not its class's."""
    if "forward" in vars(module):
        return None
    new = twin(module)
    vars(new)["_called"] = layers
    gain(new, CallsLayers, type(module))
    return Rewritten(new, f"{', '.join(layers)} are called where its code multiplied by their weights")
