"""Copies of a network that can be changed while it stays as it is."""

import copy
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from bitline.errors import ConversionError


def copied(model: nn.Module) -> nn.Module:
    """Copy a network.

    Raises:
        ConversionError: it cannot be copied.
    """
    # What a hook computes at every call is no parameter, and may have a gradient's history, which no copy can have.
    values = {
        id(v): v.detach()
        for m in model.modules()
        if computing_hooks(m)
        for v in vars(m).values()
        if isinstance(v, Tensor)
    }
    try:
        return copy.deepcopy(model, {key: value.clone() for key, value in values.items()})
    except (RuntimeError, TypeError, ValueError) as error:
        lazy = [name for name, p in model.named_parameters() if isinstance(p, nn.UninitializedParameter)]
        lazy += [name for name, b in model.named_buffers() if isinstance(b, nn.UninitializedBuffer)]
        if lazy:
            raise ConversionError(
                f"{type(model).__name__} has tensors without a shape yet, such as {lazy[0]}; run the model once first"
            ) from error
        raise ConversionError(f"{type(model).__name__} cannot be copied: {error}") from error


def computing_hooks(module: nn.Module) -> dict[int, tuple[Any, str]]:
    """Hooks of PyTorch that compute a weight before every call, and the name of that weight, by number."""
    found: dict[int, tuple[Any, str]] = {}
    for number, hook in vars(module)["_forward_pre_hooks"].items():
        if isinstance(hook, WeightNorm | SpectralNorm):
            found[number] = hook, hook.name
        elif isinstance(hook, BasePruningMethod):
            found[number] = hook, vars(hook)["_tensor_name"]
    return found


def without_parametrizations(model: nn.Module) -> nn.Module:
    """Make every parametrized tensor of a copy a plain parameter of the value it has, in place, and return the copy.

    ``remove_parametrizations`` of PyTorch changes a class that a copy shares with its original.
    """
    for module in list(model.modules()):
        if parametrize.is_parametrized(module):
            parametrized: nn.ModuleDict = module.parametrizations  # pyright: ignore[reportAssignmentType]
            values = {key: getattr(module, key).detach().clone() for key in parametrized}
            module.__class__ = parametrize.type_before_parametrizations(module)
            del module.parametrizations
            for key, value in values.items():
                module.register_parameter(key, nn.Parameter(value))
    return model


@contextmanager
def evaluating(model: nn.Module) -> Generator[None]:
    """Have every module of a network in evaluation mode, and afterwards in the mode that it had."""
    before = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in before.items():
            module.training = training
