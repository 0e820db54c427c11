"""Changes of a network's structure, as data: what they are, and how they are made again before weights are loaded."""

from collections.abc import Iterable
from typing import Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from bitline.errors import DataError, nearest
from bitline.models.blocks import GroupConv2d, GroupLinear, SeparableConv2d, biased

Kind = Literal["group", "separable", "group_linear", "fold", "shrink"]
Foldable = nn.Linear | nn.Conv1d | nn.Conv2d
Shrinkable = nn.Linear | nn.Conv1d | nn.Conv2d | nn.BatchNorm1d | nn.BatchNorm2d
Module = TypeVar("Module", bound=nn.Module)


class Rewrite(BaseModel):
    """One module replaced.

    Args:
        kind: ``"group"``: a convolution by a GroupConv2d; ``"separable"``: a convolution by a SeparableConv2d;
            ``"group_linear"``: a linear layer by a GroupLinear; ``"fold"``: a batch norm by nothing, since it is in the
            weights and the bias of the layer before it; ``"shrink"``: a layer or a batch norm by itself with fewer
            channels.
        module: dotted name of the module that is replaced.
        groups: of a group or group_linear, and of a convolution that shrinks.
        mix: groups of the 1x1 convolution that ends a group; 0 where there is none.
        multiplier: maps between the two layers of a separable, for each of its groups.
        pointwise_first: the order of these two. A record that does not say is from before there was a choice, and its
            depthwise layer is first.
        into: for a fold, dotted name of the layer that has taken in the batch norm.
        inputs: for a shrink, input channels left; None for a batch norm.
        outputs: for a shrink, output channels left.
        bias: for a shrink, whether a layer that had no bias has one now.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    module: str
    groups: int = Field(default=1, ge=1)
    mix: int = Field(default=0, ge=0)
    multiplier: int = Field(default=1, ge=1, le=1024)
    pointwise_first: bool = False
    into: str | None = None
    inputs: int | None = Field(default=None, ge=1)
    outputs: int | None = Field(default=None, ge=1)
    bias: bool = False


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
    if rewrite.kind == "shrink":
        return _shrink(model, rewrite)
    if rewrite.kind == "group_linear":
        linear = _module(model, rewrite, rewrite.module, nn.Linear)
        _check_groups(rewrite, rewrite.groups, linear.in_features, linear.out_features)
        return GroupLinear(linear, rewrite.groups)
    conv = _module(model, rewrite, rewrite.module, nn.Conv2d)
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
    _module(model, rewrite, rewrite.module, (nn.BatchNorm1d, nn.BatchNorm2d))
    if rewrite.into is None:
        raise DataError(f"rewrite fold of {rewrite.module}: into is missing; expected the layer before it")
    layer = _module(model, rewrite, rewrite.into, (nn.Linear, nn.Conv1d, nn.Conv2d))
    assert isinstance(layer, Foldable)
    if not biased(layer):
        layer.bias = nn.Parameter(layer.weight.new_zeros(layer.weight.shape[0]), layer.weight.requires_grad)


def _shrink(model: nn.Module, rewrite: Rewrite) -> nn.Module:
    """Take channels off a module, in place; what is left has random weights."""
    classes = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.BatchNorm1d, nn.BatchNorm2d)
    module = _module(model, rewrite, rewrite.module, classes)
    assert isinstance(module, Shrinkable)
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
        module.num_features = _fewer(rewrite, "outputs", module.num_features)
        # Those that there are, of parameters and statistics; the count of batches has no channels.
        for name, value in [*module.named_parameters(), *module.named_buffers()]:
            if value.dim() == 1:
                left = value.detach()[: module.num_features].clone()
                setattr(module, name, nn.Parameter(left, value.requires_grad) if name in {"weight", "bias"} else left)
        module.reset_parameters()
        return module
    weight = module.weight
    if isinstance(module, nn.Linear):
        module.in_features = _fewer(rewrite, "inputs", module.in_features)
        module.out_features = _fewer(rewrite, "outputs", module.out_features)
        shape = (module.out_features, module.in_features)
    else:
        module.in_channels = _fewer(rewrite, "inputs", module.in_channels)
        module.out_channels = _fewer(rewrite, "outputs", module.out_channels)
        _check_groups(rewrite, rewrite.groups, module.in_channels, module.out_channels)
        module.groups = rewrite.groups
        shape = (module.out_channels, module.in_channels // module.groups, *weight.shape[2:])
    module.weight = nn.Parameter(weight.new_empty(shape), weight.requires_grad)
    if biased(module) or rewrite.bias:
        trained = weight.requires_grad if module.bias is None else module.bias.requires_grad
        module.bias = nn.Parameter(weight.new_empty(shape[0]), trained)
    module.reset_parameters()
    return module


def _fewer(rewrite: Rewrite, field: Literal["inputs", "outputs"], have: int) -> int:
    """Read how many channels are left, of as many as there are."""
    left = rewrite.inputs if field == "inputs" else rewrite.outputs
    if left is None or left > have:
        raise DataError(f"rewrite shrink of {rewrite.module}: {field} is {left}; expected 1 to {have}")
    return left


def _module(model: nn.Module, rewrite: Rewrite, name: str, cls: type[Module] | tuple[type[Module], ...]) -> Module:
    """Find a module of one of some classes."""
    names = dict(model.named_modules(remove_duplicate=False))
    if name not in names:
        raise DataError(
            f"rewrite {rewrite.kind}: {type(model).__name__} has no module {name!r}{nearest(name, filter(None, names))}"
        )
    module = names[name]
    if not isinstance(module, cls):
        allowed = " or ".join(c.__name__ for c in (cls if isinstance(cls, tuple) else (cls,)))
        raise DataError(f"rewrite {rewrite.kind} of {name}: it is a {type(module).__name__}; expected {allowed}")
    return module


def _check_groups(rewrite: Rewrite, groups: int, inputs: int, outputs: int) -> None:
    if inputs % groups or outputs % groups:
        raise DataError(
            f"rewrite {rewrite.kind} of {rewrite.module}: {groups} groups do not divide its {inputs} inputs and "
            f"{outputs} outputs"
        )
