"""What of a network stays off the crossbars, and why."""

from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from bitline.mapping.lower import Lowerable
from bitline.network.functions import functions
from bitline.network.inputs import Inputs
from bitline.network.trace import MAPPED, modules
from bitline.nn.layer import CrossbarLayer


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
        names = [] if type(module).__module__.startswith("torch.") else dict(module.named_parameters(recurse=False))
        own = f"has parameters of its own, {', '.join(names)}; " if names else ""
        reason = why.get(name) or next(
            (text for cls, text in _REASONS.items() if isinstance(module, cls)),
            f"{own}only Linear, Conv1d and Conv2d are mapped to crossbars",
        )
        left.append(DigitalOperation(name or "(model)", type(module).__name__, reason))
    return left


def digital_functions(model: nn.Module, example: Inputs | None) -> list[DigitalOperation]:
    """Find matrix products that the model's own code makes, outside of its layers."""
    why = "called as a function, outside of a layer"
    calls = [] if example is None else functions(model, example)
    return [DigitalOperation(name or "(model)", op, why) for name, op in calls]
