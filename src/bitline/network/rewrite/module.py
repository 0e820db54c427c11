"""What every rewriting is made of: its outcome, its refusal, and copies that share parameters."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

_Layer = TypeVar("_Layer", bound=nn.Module)


class Rewritten(NamedTuple):
    """A module that computes what another does, and what was done.

    Args:
        module: in the place of the other.
        how: in words, as a report says it.
        anew: whether it has parameters of its own, made from the other's, and not those very ones.
    """

    module: nn.Module
    how: str
    anew: bool = False


class Stays(Exception):  # noqa: N818
    """A module cannot be rewritten; the text is the reason."""


_DICTS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")


def twin(module: nn.Module, cls: type[nn.Module] | None = None, *, without: Sequence[str] = ()) -> Any:
    """Copy a module with the very same tensors and modules inside.

    Args:
        module: to be copied.
        cls: of the copy; the module's own if None.
        without: names of parameters, buffers, modules and attributes that the copy lacks.
    """
    cls = cls or type(module)
    new = cls.__new__(cls)
    for name, value in vars(module).items():
        own = name in _DICTS or name.endswith(("_hooks", "_hooks_with_kwargs"))
        vars(new)[name] = copy.copy(value) if own else value
    for name in without:
        for place in (vars(new), *(vars(new)[kind] for kind in _DICTS[:3])):
            place.pop(name, None)
    return new


def linear(weight: Tensor, bias: Tensor | None, *, like: nn.Module) -> nn.Linear:
    """Make a linear layer of a weight, (outputs, inputs), and a bias; parameters are taken as they are."""
    return with_parameters(nn.Linear(weight.shape[1], weight.shape[0], bias is not None, "meta"), weight, bias, like)


def with_parameters(layer: _Layer, weight: Tensor, bias: Tensor | None, like: nn.Module) -> _Layer:
    """Give a layer its parameters, and the mode of another module; what is no parameter becomes one."""
    trained = any(parameter.requires_grad for parameter in like.parameters())
    for name, value in (("weight", weight), ("bias", bias)):
        if value is None or isinstance(value, nn.Parameter):
            parameter = value
        else:
            parameter = nn.Parameter(value.detach().clone(), requires_grad=trained)
        layer.register_parameter(name, parameter)
    return layer.train(like.training)


def keeps_to(module: nn.Module, cls: type[nn.Module]) -> bool:
    """Whether a module is called by the forward of a class of PyTorch, and not by one of its own."""
    return type(module).forward is cls.forward and "forward" not in vars(module)
