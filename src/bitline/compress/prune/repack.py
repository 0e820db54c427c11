"""Kernels that give a constant really taken off, with the rows of what reads them: fewer crossbars hold the rest."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bitline.chip.description import Chip
from bitline.compress.prune.constants import constants
from bitline.compress.prune.dependencies import KernelSet, kernel_sets, one_a_group, plain_copy
from bitline.compress.prune.shrink import ChannelMasks, Removal, channel_masks, constant_part, keeps_constants, shrink
from bitline.compress.prune.sparsity import layer_crossbars
from bitline.compress.result import Report, RewriteResult, ShrunkLayer, UnchangedLayer
from bitline.errors import ConversionError
from bitline.mapping.lower import Lowerable, lower
from bitline.models.rewrite import Rewrite
from bitline.network.copy import copied
from bitline.network.readers import BatchNorm, neighbours
from bitline.network.trace import MAPPED, modules, run_hooked
from bitline.nn.layer import CrossbarLayer

TOLERANCE = 1e-3
"""largest difference of an answer, relative to the largest answer"""


def repack(model: nn.Module, example: Tensor, chip: Chip) -> RewriteResult:
    """Take off every kernel whose result is a constant, and the rows that read it.

    A kernel goes where all that read it, batch norms, activations and additions in between included, see one value
    whatever the network is given: its batch norm's factor is zero, or its weights are. A value other than zero moves
    into the readers' batch norms or biases; where a reader pads with zeros it cannot, and the kernel stays. So do
    kernels whose going would need more crossbars, since what is left would no longer lie in the blocks that are zero;
    of a set of constant kernels one stays. Factors of crossbars (CrossbarBlocks) go into the weights.

    Args:
        model: trained; it is not changed.
        example: one batch, which shows what follows what, and on which answers are compared.
        chip: whose crossbars count.

    Returns:
        The network, its rewrites and a report, which lists the kernels that give a constant and stay.

    Raises:
        ConversionError: a network that is on a chip, cannot be followed, or does not take the example.
    """
    if any(isinstance(module, CrossbarLayer) for module in model.modules()):
        raise ConversionError("the network is on a chip already; repack the plain network, then to_crossbar")
    plain = plain_copy(model)
    trained = {name: parameter.requires_grad for name, parameter in plain.named_parameters()}
    example = example.to(next(plain.parameters()).device)
    sets = kernel_sets(copied(plain), example)
    values = constants(plain, example)
    chosen: list[Removal] = []
    unchanged: list[UnchangedLayer] = []
    before = _layers(plain)
    sizes = _crossbars(channel_masks(plain, []), before, chip, before)
    for kernels in sets:
        gone, why = _constant(kernels, before, values)
        if why:
            unchanged.append(UnchangedLayer(kernels.name, why))
        if not bool(gone.any()):
            continue
        wanted = [*chosen, Removal(kernels, gone)]
        touched = [*kernels.kernels, *kernels.readers]
        now = _crossbars(channel_masks(plain, wanted), before, chip, touched)
        if sum(now.values()) > sum(sizes[name] for name in touched):
            unchanged.append(
                UnchangedLayer(kernels.name, f"{int(gone.sum())} constant kernels stay: without them more crossbars")
            )
            continue
        sizes |= now
        chosen = wanted
    small, rewrites, refused = remove_constants(plain, chosen, example, values)
    unchanged += [UnchangedLayer(kernels.name, CHANGES) for kernels in refused]
    for name, parameter in small.named_parameters():
        parameter.requires_grad_(trained.get(name, True))
    return RewriteResult(small, rewrites, Report(unchanged=tuple(unchanged), shrunk=_shrunk(plain, small, chip)))


CHANGES = "without some of its kernels the network answers differently"


@torch.no_grad()
def remove_constants(
    model: nn.Module, removals: Sequence[Removal], example: Tensor, values: Mapping[str, Tensor]
) -> tuple[nn.Module, tuple[Rewrite, ...], tuple[KernelSet, ...]]:
    """Take constant channels off a copy of a network, as far as it answers as before.

    Args:
        model: of plain modules, in evaluation mode.
        removals: that are to go.
        example: one batch to compare answers on.
        values: of the constant input channels of every layer.

    Returns:
        The smaller network, what was rewritten, and the sets that stay as its answers would change.
    """
    wanted = _answer(model, example)
    small, rewrites = _without(model, removals, example, values)
    if _agree(small, example, wanted):
        return small, rewrites, ()
    fine = [each for each in removals if _agree(_without(model, [each], example, values)[0], example, wanted)]
    small, rewrites = _without(model, fine, example, values)
    if not _agree(small, example, wanted):
        raise ConversionError(f"{type(model).__name__} answers differently without kernels that give a constant")
    return small, rewrites, tuple(each.kernels for each in removals if each not in fine)


@torch.no_grad()
def _without(
    model: nn.Module, removals: Sequence[Removal], example: Tensor, values: Mapping[str, Tensor]
) -> tuple[nn.Module, tuple[Rewrite, ...]]:
    """Copy a network without some channels; what they gave goes to the layers that read them."""
    small = copied(model)
    layers = _layers(small)
    inputs = channel_masks(small, removals).inputs
    norms = {layer: norm for norm, layer in neighbours(small, layers, example[:2]).items()}
    bias: dict[str, Tensor] = {}
    for name, layer in layers.items():
        if name not in values or layer.weight.shape[0] == 0:
            continue
        lost = torch.where(inputs[name].to(values[name].device), 0.0, values[name])
        if not bool(lost.any()) or one_a_group(layer):
            continue
        part = constant_part(layer, lost)
        norm = small.get_submodule(norms[name]) if name in norms else None
        if isinstance(norm, BatchNorm) and norm.running_mean is not None:
            norm.running_mean -= part.to(norm.running_mean)
        else:
            bias[name] = part
    for name, part in bias.items():
        layer = layers[name]
        if layer.bias is not None:
            layer.bias.add_(part.to(layer.bias))
    gains = [name for name in bias if layers[name].bias is None]
    parts = {name: bias[name][channel_masks(small, removals).outputs[name].to(bias[name].device)] for name in gains}
    rewrites = shrink(small, removals, gains)
    for name, part in parts.items():
        added = layers[name].bias
        assert added is not None
        added.add_(part.to(added))
    return small, rewrites


def _constant(kernels: KernelSet, layers: Mapping[str, Lowerable], values: Mapping[str, Tensor]) -> tuple[Tensor, str]:
    """Say which channels of a set every reader sees as constants that it can do without, and why others stay."""
    none = torch.zeros(kernels.channels, dtype=torch.bool)
    if kernels.why or not all(name in values for name in kernels.readers):
        return none, ""
    seen = {name: values[name].cpu()[places] for name, places in kernels.readers.items()}
    gone = torch.stack([~value.isnan().any(1) for value in seen.values()]).all(0)
    stay = none
    for name, value in seen.items():
        if not keeps_constants(layers[name]):
            stay = stay | (gone & (value != 0).any(1))
    why = f"{int(stay.sum())} constant kernels stay: what they give is not zero, and a reader pads with zeros"
    gone = gone & ~stay
    if bool(gone.all()):
        gone[0] = False
    return gone, why if bool(stay.any()) else ""


def _crossbars(
    masks: ChannelMasks, layers: Mapping[str, Lowerable], chip: Chip, names: Iterable[str]
) -> dict[str, int]:
    """Count the crossbars that hold what stays of some layers."""
    return {
        name: layer_crossbars(masks.weight(name, layers[name]), masks.groups(name, layers[name]), chip)
        for name in names
    }


def _shrunk(before: nn.Module, after: nn.Module, chip: Chip) -> tuple[ShrunkLayer, ...]:
    """Describe the layers that have fewer channels."""
    now = _layers(after)
    layers: list[ShrunkLayer] = []
    for name, layer in _layers(before).items():
        both = (lower(layer, name), lower(now[name], name))
        if (both[0].rows, both[0].cols, both[0].groups) == (both[1].rows, both[1].cols, both[1].groups):
            continue
        counts = [
            layer_crossbars(each.weight, m.groups, chip) for each, m in zip((layer, now[name]), both, strict=True)
        ]
        layers.append(
            ShrunkLayer(
                name,
                (both[0].rows, both[1].rows),
                (both[0].cols, both[1].cols),
                (both[0].groups, both[1].groups),
                (counts[0], counts[1]),
            )
        )
    return tuple(layers)


def _layers(model: nn.Module) -> dict[str, Lowerable]:
    return {name: layer for name, layer in modules(model) if isinstance(layer, MAPPED)}


def _answer(model: nn.Module, example: Tensor) -> Tensor:
    leaves = [leaf for leaf in tree_leaves(run_hooked(model, example, [])) if isinstance(leaf, Tensor)]
    return torch.cat([leaf.flatten().double() for leaf in leaves])


def _agree(model: nn.Module, example: Tensor, wanted: Tensor) -> bool:
    """Whether a network answers as wanted, to rounding."""
    try:
        given = _answer(model, example)
    except ConversionError:
        return False
    largest = float(wanted.abs().max()) if wanted.numel() else 0.0
    return given.shape == wanted.shape and torch.allclose(given, wanted, rtol=0, atol=TOLERANCE * largest + 1e-12)
