"""Why a layer stays off the crossbars."""

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bitline.network.digital import plain_class
from bitline.network.rewrite.attention import Attention
from bitline.nn.layer import CrossbarLayer

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
    if any(method in vars(module) for method in _OWN_METHODS):
        return "its forward was replaced on this very layer"
    if type(module.weight.data) is not Tensor:
        return f"its weights are of type {type(module.weight.data).__name__}"
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return "it has hooks, which would be lost"
    parent = model.get_submodule(name.rpartition(".")[0]) if name else None
    if isinstance(parent, nn.MultiheadAttention) and not isinstance(parent, Attention):
        return "MultiheadAttention reads its weights without calling it"
    if module.weight.is_complex():  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        return "its weights are complex"
    return None
