"""Batch norm folded into the layer before it."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.mapping.lower import Lowerable
from bitline.models.blocks import Block
from bitline.network.copy import copied
from bitline.network.inputs import Inputs, mapped
from bitline.network.readers import BatchNorm
from bitline.network.same import agree, answer, lively, tolerance
from bitline.network.subclass import gain

_EXACT = 1e-6
"""what rounding may make of an answer in float64, as a share of the largest"""


class FoldedBatchNorm(nn.Identity):
    """Stands where a batch norm was whose numbers are in a layer now; it has its settings, and no tensors."""

    def __init__(self, norm: BatchNorm) -> None:
        super().__init__()
        for name in ("num_features", "eps", "momentum", "affine", "track_running_stats"):
            setattr(self, name, getattr(norm, name))

    def extra_repr(self) -> str:
        """Say of how many channels."""
        return str(self.num_features)


class _Passing(nn.Module):
    """A batch norm with more in it, whose numbers are in a layer now; what it does beside normalizing stays."""

    def train(self, mode: bool = True) -> "_Passing":
        super().train(mode)
        self.training = False  # statistics of a batch would come back
        return self


def _neutral(norm: Any) -> Any:
    """Copy a batch norm so that it normalizes nothing, and only does what it does beside."""
    new = copy.deepcopy(norm)
    new.weight = new.bias = None
    new.eps = 0.0
    new.running_mean = torch.zeros_like(norm.running_mean)
    new.running_var = torch.ones_like(norm.running_var)
    gain(new, _Passing, type(norm))
    return new.train(norm.training)


_PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def stand_in(norm: BatchNorm) -> nn.Module | None:
    """Make what stands where a batch norm was, once its numbers are in a layer; None where that cannot be.

    A batch norm with a forward of its own must be, for random numbers, its plain batch norm and then what it does where
    it has nothing to normalize (as one with an activation is).
    """
    if any(getattr(norm, hooks) for hooks in _HOOKS) or "forward" in vars(norm):
        return None
    if type(norm) in _PLAIN:
        return FoldedBatchNorm(norm)
    try:
        return _split(norm)
    except (RuntimeError, TypeError, AttributeError, ValueError):
        return None


@torch.no_grad()
def _split(norm: Any) -> nn.Module | None:
    trial, generator = copy.deepcopy(norm).eval(), torch.Generator().manual_seed(0)
    if any(tensor.is_meta for tensor in (*trial.parameters(), *trial.buffers())):
        return None
    shape = (4, norm.num_features, 5, 5) if isinstance(norm, nn.BatchNorm2d) else (16, norm.num_features)
    x = (3 * torch.randn(shape, generator=generator)).to(trial.running_mean)
    with lively(trial):
        weight, bias = (None, None) if trial.weight is None else (trial.weight.data, trial.bias.data)
        plain = nn.functional.batch_norm(x, trial.running_mean, trial.running_var, weight, bias, False, 0.0, trial.eps)
        same = agree(trial(x.clone()).double(), _neutral(trial)(plain).double(), tolerance(trial))
    return _neutral(norm) if same else None


def fold(
    model: nn.Module, pairs: Mapping[str, str], example: Inputs | None, why: dict[str, str] | None = None
) -> dict[str, str]:
    """Fold batch norms into layers, in place; a fold that changes what the model answers is not made.

    Answers are compared while every parameter that is constant has random numbers, so that no branch is silent.

    Args:
        model: in eval mode.
        pairs: batch norm name -> layer name.
        example: one batch to compare answers on; nothing is compared without it.
        why: takes the reason of each batch norm that is not folded, by name.

    Returns:
        The pairs that were folded; each batch norm is now a `FoldedBatchNorm`, or its own class without numbers.
    """
    why = {} if why is None else why
    good = dict[str, str]()
    for norm, layer in pairs.items():
        module = model.get_submodule(norm)
        assert isinstance(module, BatchNorm)
        if stand_in(module) is None:
            why[norm] = f"{type(module).__name__} does more than normalize, and not after it, or has hooks"
        else:
            good[norm] = layer
    if example is not None and good:
        kept = _checked(model, good, example)
        why.update({norm: "the network answers otherwise when it is folded" for norm in good if norm not in kept})
        good = kept
    for norm, layer in good.items():
        _fold_one(model, norm, layer)
    return good


def _checked(model: nn.Module, pairs: dict[str, str], example: Inputs) -> dict[str, str]:
    """Those pairs whose folds change no answer; the model is as it was afterwards."""
    with lively(model):
        undo, same = _try(model, pairs, example, answer(model, example), tolerance(model))
        undo()
        if same:
            return pairs
        # Where many layers blow rounding up, or one fold is wrong: in float64, halves of halves.
        try:
            exact = copied(model).double()
            wide = mapped(example, lambda x: x.double() if x.is_floating_point() else x)
            before, slack = answer(exact, wide), _EXACT
        except ConversionError:
            exact, wide, before, slack = model, example, answer(model, example), tolerance(model)
        undone, kept = _halves(exact, pairs, wide, before, slack)
        for each in reversed(undone):
            each()
        return kept


def _halves(
    model: nn.Module, pairs: dict[str, str], example: Inputs, before: Tensor, slack: float
) -> tuple[list[Callable[[], None]], dict[str, str]]:
    """Fold those pairs that change no answer; what takes them back, and the pairs."""
    undo, same = _try(model, pairs, example, before, slack)
    if same:
        return [undo], pairs
    undo()
    if len(pairs) == 1:
        return [], {}
    items, middle = list(pairs.items()), len(pairs) // 2
    first, kept = _halves(model, dict(items[:middle]), example, before, slack)
    second, also = _halves(model, dict(items[middle:]), example, before, slack)
    return first + second, kept | also


def _try(
    model: nn.Module, pairs: Mapping[str, str], example: Inputs, before: Tensor, slack: float
) -> tuple[Callable[[], None], bool]:
    """Fold pairs; what takes them back, and whether the answer stays."""
    undo = [_fold_one(model, norm, layer) for norm, layer in pairs.items()]

    def restore() -> None:
        for each in reversed(undo):
            each()

    try:
        return restore, agree(before, answer(model, example), slack)
    except (ConversionError, AttributeError):  # code that reads the numbers of a batch norm
        return restore, False


def _fold_one(model: nn.Module, norm_name: str, layer_name: str) -> Callable[[], None]:
    """Fold one batch norm; return what takes it back."""
    norm, layer = model.get_submodule(norm_name), model.get_submodule(layer_name)
    assert isinstance(norm, BatchNorm)
    assert isinstance(layer, Lowerable)
    weight, bias = layer.weight, layer.bias
    with torch.no_grad():
        scaled, shift = folded(norm, layer, order_of(model, layer_name))
        layer.weight = nn.Parameter(scaled, requires_grad=weight.requires_grad)
        trained = weight.requires_grad if bias is None else bias.requires_grad
        layer.bias = nn.Parameter(shift, requires_grad=trained)
    put = stand_in(norm)
    assert put is not None
    model.set_submodule(norm_name, put)

    def restore() -> None:
        layer.weight, layer.bias = weight, bias  # pyright: ignore[reportAttributeAccessIssue]
        model.set_submodule(norm_name, norm)

    return restore


def folded(norm: BatchNorm, layer: Any, order: Tensor | slice) -> tuple[Tensor, Tensor]:
    """Return the weight and the bias of a layer that has taken in a batch norm with its running statistics.

    Computed in float64; gradients flow to the layer and to the batch norm.

    Args:
        norm: with running statistics.
        layer: that it follows.
        order: channel of the batch norm that each output of the layer is, see `order_of`.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = layer.weight, layer.bias
    factor = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.affine:
        factor = factor * norm.weight.double()
    offset = (norm.bias.double() if norm.affine else 0) - norm.running_mean.double() * factor
    factor, offset = factor[order], offset[order]
    shift = (0 if bias is None else bias.double()) * factor + offset
    scaled = weight.double() * factor.view(-1, *[1] * (weight.dim() - 1))
    return scaled.to(weight.dtype), shift.to(weight.dtype)


def order_of(model: nn.Module, layer: str) -> Tensor | slice:
    """Which channel of the batch norm each output of a layer is: the same one, but for the last layer of a block."""
    parent, _, child = layer.rpartition(".")
    block = model.get_submodule(parent)
    if isinstance(block, Block) and child == block.last and block.order is not None:
        return block.order.argsort()
    return slice(None)
