"""Changes of a network's structure, as data: what they are, and how they are made again before weights are loaded."""

from collections.abc import Iterable
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from bitline.errors import DataError, nearest
from bitline.models.blocks import GroupConv2d, GroupLinear, SeparableConv2d, biased

Kind = Literal["group", "separable", "group_linear", "fold"]
Foldable = nn.Linear | nn.Conv1d | nn.Conv2d
Module = TypeVar("Module", bound=nn.Module)


class Rewrite(BaseModel):
    """One module replaced.

    Args:
        kind: ``"group"``: a convolution by a GroupConv2d; ``"separable"``: a convolution by a SeparableConv2d;
            ``"group_linear"``: a linear layer by a GroupLinear; ``"fold"``: a batch norm by nothing, since it is in the
            weights and the bias of the layer before it.
        module: dotted name of the module that is replaced.
        groups: of a group or group_linear.
        mix: groups of the 1x1 convolution that ends a group; 0 where there is none.
        multiplier: maps between the two layers of a separable, for each of its groups.
        pointwise_first: the order of these two. A record that does not say is from before there was a choice, and its
            depthwise layer is first.
        into: for a fold, dotted name of the layer that has taken in the batch norm.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    module: str
    groups: int = Field(default=1, ge=1)
    mix: int = Field(default=0, ge=0)
    multiplier: int = Field(default=1, ge=1)
    pointwise_first: bool = False
    into: str | None = None


def apply(model: nn.Module, rewrites: Iterable[Rewrite]) -> nn.Module:
    """Change the structure of a network, in place and in order; new layers have random weights until some are loaded.

    Args:
        model: changed.
        rewrites: as a run directory records them.

    Returns:
        The network; another object only where the whole of it was one layer that is replaced.

    Raises:
        DataError: a name that the network lacks, or a module that cannot be replaced in this way.
    """
    for rewrite in rewrites:
        model = replace(model, rewrite.module, _replacement(model, rewrite))
    return model


def replace(model: nn.Module, name: str, new: nn.Module) -> nn.Module:
    """Put a module in the place of another, wherever that one stands, and return the network."""
    old = model.get_submodule(name)
    new.train(old.training)
    if old is model:
        return new
    for place, module in list(model.named_modules(remove_duplicate=False)):
        if module is old:
            model.set_submodule(place, new)
    return model


def _replacement(model: nn.Module, rewrite: Rewrite) -> nn.Module:
    if rewrite.kind == "fold":
        _fold(model, rewrite)
        return nn.Identity()
    if rewrite.kind == "group_linear":
        linear = _found(model, rewrite, rewrite.module, nn.Linear)
        _check_groups(rewrite, rewrite.groups, linear.in_features, linear.out_features)
        return GroupLinear(linear, rewrite.groups)
    conv = _found(model, rewrite, rewrite.module, nn.Conv2d)
    if conv.groups != 1:
        raise DataError(f"rewrite {rewrite.kind} of {rewrite.module}: it has {conv.groups} groups; expected 1")
    if rewrite.kind == "separable":
        return SeparableConv2d(conv, multiplier=rewrite.multiplier, pointwise_first=rewrite.pointwise_first)
    _check_groups(rewrite, rewrite.groups, conv.in_channels, conv.out_channels)
    if rewrite.mix:
        _check_groups(rewrite, rewrite.mix, conv.out_channels, conv.out_channels)
    return GroupConv2d(conv, rewrite.groups, mix=rewrite.mix)


def _fold(model: nn.Module, rewrite: Rewrite) -> None:
    """Give the layer that took in a batch norm the bias that it has needed since."""
    _found(model, rewrite, rewrite.module, (nn.BatchNorm1d, nn.BatchNorm2d))
    if rewrite.into is None:
        raise DataError(f"rewrite fold of {rewrite.module}: into is missing; expected the layer before it")
    layer = _found(model, rewrite, rewrite.into, (nn.Linear, nn.Conv1d, nn.Conv2d))
    assert isinstance(layer, Foldable)
    if not biased(layer):
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]), layer.weight.requires_grad)


def _found(model: nn.Module, rewrite: Rewrite, name: str, cls: type[Module] | tuple[type[Module], ...]) -> Module:
    """Find a module of one of some classes."""
    names = dict(model.named_modules(remove_duplicate=False))
    if name not in names:
        raise DataError(
            f"rewrite {rewrite.kind}: {type(model).__name__} has no module {name!r}{nearest(name, filter(None, names))}"
        )
    found = names[name]
    if not isinstance(found, cls):
        allowed = " or ".join(c.__name__ for c in (cls if isinstance(cls, tuple) else (cls,)))
        raise DataError(f"rewrite {rewrite.kind} of {name}: it is a {type(found).__name__}; expected {allowed}")
    return found


def _check_groups(rewrite: Rewrite, groups: int, inputs: int, outputs: int) -> None:
    if inputs % groups or outputs % groups:
        raise DataError(
            f"rewrite {rewrite.kind} of {rewrite.module}: {groups} groups do not divide its {inputs} inputs and "
            f"{outputs} outputs"
        )
