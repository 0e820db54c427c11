"""Layers whose weights are computed at every call, by parametrizations or hooks: computed once, and plain."""

from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from bitline.network.copy import computing_hooks
from bitline.network.rewrite.module import Rewritten, twin
from bitline.network.trace import MAPPED

_WITH_WEIGHTS = (
    *MAPPED,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.RNNBase,
    nn.modules.rnn.RNNCellBase,
    nn.MultiheadAttention,
)
_PARTS = ("g", "v", "u", "orig", "mask")
"""what PyTorch calls that from which hooks compute a weight, behind the weight's name"""


@torch.no_grad()
def computed(module: nn.Module) -> Rewritten | None:
    """Make parameters of what a layer computes at every call, of the values that they have in evaluation."""
    if not isinstance(module, _WITH_WEIGHTS):
        return None
    hooks = computing_hooks(module)
    if not parametrize.is_parametrized(module) and not hooks:
        return None
    trained = any(parameter.requires_grad for parameter in module.parameters())
    names: list[str] = []
    if parametrize.is_parametrized(module):
        names += module.parametrizations  # pyright: ignore[reportArgumentType, reportOperatorIssue]
    new = twin(module, parametrize.type_before_parametrizations(module), without=("parametrizations",))
    for number, (hook, name) in hooks.items():
        hook(module, ())
        names.append(name)
        del new._forward_pre_hooks[number]
    for place in ("_state_dict_hooks", "_load_state_dict_pre_hooks"):
        kept = {n: h for n, h in vars(new)[place].items() if not _of_norms(h)}
        vars(new)[place] = type(vars(new)[place])(kept)
    for name in names:
        value = getattr(module, name).detach().clone()
        for gone in (name, *(f"{name}_{part}" for part in _PARTS)):
            for registry in (vars(new), new._parameters, new._buffers):
                registry.pop(gone, None)
        new._parameters[name] = nn.Parameter(value, requires_grad=trained)
    if isinstance(new, nn.RNNBase):
        new._init_flat_weights()  # pyright: ignore[reportPrivateUsage]
    return Rewritten(new, "its weights are plain, computed once from " + _kinds(module, hooks))


def _of_norms(hook: Any) -> bool:
    """Whether a hook of states belongs to one that computes a weight."""
    module = type(getattr(hook, "hook", hook)).__module__
    return module.startswith("torch.nn.utils.")


def _kinds(module: nn.Module, hooks: dict[int, tuple[Any, str]]) -> str:
    kinds = dict.fromkeys(type(hook).__name__ for hook, _ in hooks.values())
    if parametrize.is_parametrized(module):
        each: Any = module.parametrizations
        kinds |= dict.fromkeys(type(part).__name__.strip("_") for parts in each.values() for part in parts)
    return ", ".join(kinds)
