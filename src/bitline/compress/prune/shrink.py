"""Channels taken off a network: layers, batch norms and what reads them, each with the weights it had."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitline.compress.prune.dependencies import KernelSet, one_a_group
from bitline.mapping.lower import Lowerable, weight_matrix
from bitline.models.blocks import biased
from bitline.models.rewrite import Rewrite, apply
from bitline.network.readers import BatchNorm
from bitline.network.trace import MAPPED, modules


@dataclass(frozen=True, eq=False)
class Removal:
    """Channels of one set that go.

    Args:
        kernels: the set.
        gone: which of its channels, bool, (channels,).
    """

    kernels: KernelSet
    gone: Tensor


@dataclass(frozen=True, eq=False)
class ChannelMasks:
    """Which channels of each module stay.

    Args:
        outputs: module name -> output channels, bool.
        inputs: layer name -> input channels, bool.
    """

    outputs: Mapping[str, Tensor]
    inputs: Mapping[str, Tensor]

    def weight(self, name: str, layer: Lowerable) -> Tensor:
        """Weights of a layer between channels that stay."""
        weight = layer.weight.detach()[self.outputs[name].nonzero().flatten()]
        if one_a_group(layer):
            return weight
        groups = 1 if isinstance(layer, nn.Linear) else layer.groups
        # Channels depend on each other so that every group keeps the same of its own.
        return weight[:, self.inputs[name][: len(self.inputs[name]) // groups].nonzero().flatten()]

    def groups(self, name: str, layer: Lowerable) -> int:
        """Groups of a layer that stay."""
        if isinstance(layer, nn.Linear):
            return 1
        return int(self.inputs[name].sum()) if one_a_group(layer) else layer.groups


def channel_masks(model: nn.Module, removals: Iterable[Removal]) -> ChannelMasks:
    """Say which channels of every layer and batch norm of a network stay."""
    outputs = {n: torch.ones(_outputs(m), dtype=torch.bool) for n, m in _shrinkable(model)}
    inputs = {n: torch.ones(_inputs(m), dtype=torch.bool) for n, m in _shrinkable(model) if isinstance(m, MAPPED)}
    for removal in removals:
        kernels = removal.kernels
        for name, places in (*kernels.kernels.items(), *kernels.norms.items()):
            outputs[name][places[removal.gone]] = False
            module = model.get_submodule(name)
            if one_a_group(module):
                each = len(outputs[name]) // len(inputs[name])
                inputs[name][places[removal.gone] // each] = False
        for name, places in kernels.readers.items():
            inputs[name][places[removal.gone]] = False
    return ChannelMasks(outputs, inputs)


@torch.no_grad()
def shrink(model: nn.Module, removals: Iterable[Removal], gain_bias: Iterable[str] = ()) -> tuple[Rewrite, ...]:
    """Take channels off a network, in place.

    Args:
        model: of plain modules; the channels that go must be worth nothing to it.
        removals: that go.
        gain_bias: layers that get a bias of zeros where they have none.

    Returns:
        The changes, for `bitline.models.rewrite.apply`.
    """
    masks, gain = channel_masks(model, removals), set(gain_bias)
    rewrites: list[Rewrite] = []
    for name, module in _shrinkable(model):
        outputs, inputs = masks.outputs[name], masks.inputs.get(name, torch.ones(1, dtype=torch.bool))
        bias = name in gain and not biased(module)
        if bool(outputs.all()) and bool(inputs.all()) and not bias:
            continue
        places = outputs.nonzero().flatten()
        values = {n: v[places].clone() for n, v in module.state_dict().items() if v.dim() == 1}
        groups = 1
        if isinstance(module, MAPPED):
            values["weight"], groups = masks.weight(name, module).clone(), masks.groups(name, module)
        count = int(inputs.sum()) if isinstance(module, MAPPED) else None
        rewrites.append(
            Rewrite(kind="shrink", module=name, groups=groups, inputs=count, outputs=len(places), bias=bias)
        )
        if bias:
            values["bias"] = values["weight"].new_zeros(len(places))
        seen = {n: v for n, v in module.state_dict().items() if n == "num_batches_tracked"}
        apply(model, rewrites[-1:])
        module.load_state_dict({**values, **seen})
    return tuple(rewrites)


def constant_part(layer: Lowerable, values: Tensor) -> Tensor:
    """What input channels of the same value at every position add to a layer's outputs.

    Args:
        layer: a linear one, or a convolution whose border does not matter.
        values: of its input channels, 0 for those that do not count, float64, (input channels,).

    Returns:
        float64, (outputs,).
    """
    matrix = weight_matrix(layer).detach().double()
    each = values.to(matrix.device).view(matrix.shape[0], -1, 1)
    rows = each.expand(-1, -1, matrix.shape[1] // each.shape[1]).flatten(1)
    return torch.einsum("gr,grc->gc", rows, matrix).flatten()


def keeps_constants(layer: Lowerable) -> bool:
    """Whether a layer gives the same value at every position where its input is the same everywhere."""
    if isinstance(layer, nn.Linear):
        return True
    padded = layer.padding == "same" and math.prod(layer.kernel_size) > 1
    padded = padded or (not isinstance(layer.padding, str) and any(layer.padding))
    return not padded or layer.padding_mode != "zeros"


def _shrinkable(model: nn.Module) -> list[tuple[str, nn.Module]]:
    return [(n, m) for n, m in modules(model) if isinstance(m, (*MAPPED, BatchNorm))]


def _outputs(module: nn.Module) -> int:
    if isinstance(module, BatchNorm):
        return module.num_features
    assert isinstance(module, Lowerable)
    return module.weight.shape[0]


def _inputs(layer: Lowerable) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
