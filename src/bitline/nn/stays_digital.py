"""What of a network stays off the crossbars, and why."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from bitline.mapping.lower import Lowerable
from bitline.network.trace import MAPPED, modules, run_hooked
from bitline.nn.layer import CrossbarLayer

_WEIGHTED = {
    torch.matmul: "matmul",
    Tensor.matmul: "matmul",
    Tensor.__matmul__: "matmul",
    torch.bmm: "bmm",
    Tensor.bmm: "bmm",
    Tensor.__rmatmul__: "matmul",
    torch.linalg.matmul: "matmul",
    torch.linalg.multi_dot: "multi_dot",
    torch.mm: "mm",
    Tensor.mm: "mm",
    torch.mv: "mv",
    Tensor.mv: "mv",
    torch.dot: "dot",
    Tensor.dot: "dot",
    torch.addmm: "addmm",
    Tensor.addmm: "addmm",
    torch.addmv: "addmv",
    Tensor.addmv: "addmv",
    torch.baddbmm: "baddbmm",
    Tensor.baddbmm: "baddbmm",
    torch.addbmm: "addbmm",
    Tensor.addbmm: "addbmm",
    torch.einsum: "einsum",
    torch.tensordot: "tensordot",
    torch.inner: "inner",
    Tensor.inner: "inner",
    nn.functional.linear: "linear",
    nn.functional.bilinear: "bilinear",
    nn.functional.scaled_dot_product_attention: "scaled_dot_product_attention",
    nn.functional.conv1d: "conv1d",
    nn.functional.conv2d: "conv2d",
    nn.functional.conv3d: "conv3d",
    torch.conv1d: "conv1d",
    torch.conv2d: "conv2d",
    torch.conv3d: "conv3d",
    nn.functional.conv_transpose1d: "conv_transpose1d",
    nn.functional.conv_transpose2d: "conv_transpose2d",
    nn.functional.conv_transpose3d: "conv_transpose3d",
    nn.functional.multi_head_attention_forward: "multi_head_attention_forward",
}


@dataclass(frozen=True)
class DigitalOperation:
    """A weighted operation that no crossbar does.

    Args:
        name: of the module.
        op: its class, or the function it calls.
        why: the reason.
    """

    name: str
    op: str
    why: str


_OWN_METHODS = ("forward", "_conv_forward", "__call__", "__getattr__")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def why_not(model: nn.Module, name: str, module: nn.Module) -> str | None:
    """Say why a linear or convolution layer cannot be replaced, or None."""
    plain = plain_class(module)
    if isinstance(module, CrossbarLayer):
        return "is on a chip already; move it with set_chip"
    if isinstance(getattr(module, "weight", None), nn.UninitializedParameter):
        return "its weights have no shape yet; run the model once first"
    if is_parametrized(module):
        return "its weights are parametrized; call torch.nn.utils.parametrize.remove_parametrizations first"
    if any(getattr(type(module), method, None) is not getattr(plain, method, None) for method in _OWN_METHODS):
        return f"{type(module).__name__} has a forward of its own"
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return "it has hooks, which would be lost"
    parent = model.get_submodule(name.rpartition(".")[0]) if name else None
    if isinstance(parent, nn.MultiheadAttention):
        return "MultiheadAttention reads its weights without calling it"
    if module.weight.is_complex():  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        return "its weights are complex"
    return None


def plain_class(module: nn.Module) -> type[Lowerable]:
    """The class of PyTorch that a linear or convolution layer is of."""
    return next(cls for cls in MAPPED if isinstance(module, cls))


_REASONS: dict[type[nn.Module], str] = {
    nn.BatchNorm1d: "no single layer before it to fold it into",
    nn.BatchNorm2d: "no single layer before it to fold it into",
    nn.LayerNorm: "normalizes by the input at hand",
    nn.GroupNorm: "normalizes by the input at hand",
    nn.Embedding: "is a table look-up, not a product",
    nn.MultiheadAttention: "computes with its weights inside one function; write it with nn.Linear to map it",
}


def digital_modules(model: nn.Module, layers: dict[str, Lowerable], why: dict[str, str]) -> list[DigitalOperation]:
    """List modules with weights that are on no crossbar; `why` has the reasons known so far, by name."""
    left: list[DigitalOperation] = []
    for name, module in modules(model):
        if name in layers or not (name in why or list(module.parameters(recurse=False))):
            continue
        reason = why.get(name) or next(
            (text for cls, text in _REASONS.items() if isinstance(module, cls)),
            "only Linear, Conv1d and Conv2d are mapped to crossbars",
        )
        left.append(DigitalOperation(name or "(model)", type(module).__name__, reason))
    return left


class _Spy(TorchFunctionMode):
    """Note which module calls which matrix product; those of PyTorch are listed as modules, and not looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, nn.Module]] = []
        self.calls: dict[tuple[str, str], None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, module = self.running[-1] if self.running else ("", None)
        if func in _WEIGHTED and not (isinstance(module, MAPPED) or type(module).__module__.startswith("torch.nn.")):
            self.calls[(name, _WEIGHTED[func])] = None
        return func(*args, **(kwargs or {}))

    def watch(self, name: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Follow when a module begins and ends."""
        return [
            module.register_forward_pre_hook(lambda _module, _args: self.running.append((name, module))),
            module.register_forward_hook(self._ended),
        ]

    def _ended(self, _module: nn.Module, _args: object, _output: object) -> None:
        self.running.pop()


def digital_functions(model: nn.Module, example: Tensor | None) -> list[DigitalOperation]:
    """Find matrix products that the model's own code makes, outside of its layers."""
    if example is None:
        return []
    spy = _Spy()
    handles = [handle for name, module in modules(model) for handle in spy.watch(name, module)]
    with spy:
        run_hooked(model, example, handles)
    why = "called as a function, outside of a layer"
    return [DigitalOperation(name or "(model)", op, why) for name, op in spy.calls]
