"""Which channels of a network depend on each other, so that all of them go or none, and which layers read them.

The network is followed through its graph of gradients: G. Fang et al., "DepGraph", CVPR 2023, arXiv:2301.12900
(torch-pruning). The dependencies of group convolutions are added here: those of one channel a group lose whole groups,
others the same channel of every group.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitline.compress.prune.crossbar_block import fold_masks
from bitline.errors import ConversionError
from bitline.extras import need
from bitline.mapping.lower import Lowerable
from bitline.models.blocks import Block
from bitline.network.copy import copied
from bitline.network.readers import BatchNorm, neighbours
from bitline.network.trace import MAPPED, modules

Place = tuple[str, str]
"""name of a module, and ``"out"`` or ``"in"``"""


@dataclass(frozen=True, eq=False)
class KernelSet:
    """Kernels that depend on each other: where channel i of one goes, channel i of the others goes.

    Args:
        kernels: layer name -> its output channels, int64, (channels, of each).
        norms: batch norm name -> its features, as kernels.
        readers: layer name -> its input channels, as kernels; a layer whose outputs depend on its inputs,
            of one channel a group, is among the kernels only.
        bare: layers among the kernels whose own result no batch norm sees.
        why: what keeps all of them; empty where they can go.
    """

    kernels: dict[str, Tensor]
    norms: dict[str, Tensor]
    readers: dict[str, Tensor]
    bare: tuple[str, ...]
    why: str = ""

    @property
    def name(self) -> str:
        """The layer of the first kernels."""
        return next(iter(self.kernels))

    @property
    def channels(self) -> int:
        """How many of them there are."""
        return len(self.kernels[self.name])

    @property
    def kernels_each(self) -> int:
        """Kernels of one channel, all layers."""
        return sum(of.shape[1] for of in self.kernels.values())


def plain_copy(model: nn.Module) -> nn.Module:
    """Copy a network, in evaluation mode, with the factors of its crossbars in the weights."""
    return fold_masks(copied(model)).eval()


def kernel_sets(model: nn.Module, example: Tensor) -> list[KernelSet]:
    """Find which kernels of a network depend on each other.

    Args:
        model: of plain modules, without parametrizations, in evaluation mode; it may come to ask for gradients.
        example: one batch.

    Returns:
        The sets, in the order of their first layers.

    Raises:
        ConversionError: a network that cannot be followed.
    """
    layers: dict[str, Lowerable] = {n: m for n, m in modules(model) if isinstance(m, MAPPED)}
    norms: dict[str, nn.Module] = {n: m for n, m in modules(model) if isinstance(m, BatchNorm)}
    sizes: dict[Place, int] = {(n, "out"): layer.weight.shape[0] for n, layer in layers.items()}
    sizes |= {(n, "in"): _inputs(layer) for n, layer in layers.items()}
    sizes |= {(n, "out"): _features(norm) for n, norm in norms.items()}
    first = dict(zip(sizes, np.cumsum([0, *sizes.values()])[:-1].tolist(), strict=True))
    edges, stuck = _dependencies(model, example[:2], layers, norms, sizes, first)
    for name, layer in layers.items():
        edges.append(_group_dependencies(layer, first[name, "out"], first[name, "in"]))
        if not isinstance(layer, nn.Linear) and layer.groups == layer.out_channels != layer.in_channels:
            stuck[name] = f"{name} reads several channels in each of its groups"
    component = _components(np.concatenate(edges, 1), sum(sizes.values()))
    normed = set(neighbours(model, layers, example[:2]).values())
    return _sets(component, sizes, first, layers, norms, stuck, normed)


def _inputs(layer: Lowerable) -> int:
    return layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels


def _features(norm: nn.Module) -> int:
    assert isinstance(norm, BatchNorm)
    return norm.num_features


def one_a_group(layer: nn.Module) -> bool:
    """Whether each group of a convolution has one input channel, so that a group goes with its input."""
    return isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups > 1 and layer.groups == layer.in_channels


def _group_dependencies(layer: Lowerable, out: int, into: int) -> np.ndarray[Any, Any]:
    """Which channels of a group convolution depend on each other, as pairs of numbers, (2, pairs)."""
    groups = 1 if isinstance(layer, nn.Linear) else layer.groups
    if groups == 1:
        return np.zeros((2, 0), dtype=np.int64)
    outputs = np.arange(layer.weight.shape[0])
    if one_a_group(layer):
        return np.stack([out + outputs, into + outputs // (len(outputs) // groups)])
    inputs = np.arange(_inputs(layer))
    pairs = [
        [start + every, start + every % (len(every) // groups)] for start, every in ((out, outputs), (into, inputs))
    ]
    return np.concatenate([np.stack(pair) for pair in pairs], 1)


def _dependencies(
    model: nn.Module,
    example: Tensor,
    layers: Mapping[str, Lowerable],
    norms: Mapping[str, nn.Module],
    sizes: Mapping[Place, int],
    first: Mapping[Place, int],
) -> tuple[list[np.ndarray[Any, Any]], dict[str, str]]:
    """Follow every layer's channels: pairs that depend on each other, and layers whose channels cannot go, and why."""
    need("pruning", "train", "scipy", "torch_pruning")
    from torch_pruning import DependencyGraph

    names = {module: name for name, module in modules(model)}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    edges: list[np.ndarray[Any, Any]] = []
    stuck: dict[str, str] = {}
    done: set[str] = set()
    try:
        with torch.enable_grad():
            graph: Any = DependencyGraph().build_dependency(model, [example], verbose=False)
        for root, layer in layers.items():
            if root in done or layer not in graph.module2node:
                continue
            channels = list(range(layer.weight.shape[0]))
            prune: Any = graph.get_pruner_of_module(layer).prune_out_channels
            for item in graph.get_pruning_group(layer, prune, channels):
                module: Any = item.dep.target.module
                name = names.get(module, "") if isinstance(module, nn.Module) else ""
                if name not in layers and name not in norms:
                    if name or isinstance(module, nn.Parameter):
                        stuck[root] = f"its channels pass {name or 'a parameter'} ({type(module).__name__})"
                    continue
                side = "out" if graph.is_out_channel_pruning_fn(item.dep.handler) else "in"
                if name in layers and side == "out" and len(item.idxs) == layers[name].weight.shape[0]:
                    done.add(name)
                if max(item.idxs) >= sizes[name, side] or max(item.root_idxs) >= len(channels):
                    stuck[root] = f"{name} reads several channels in each of its groups"
                    continue
                edges.append(np.array([first[root, "out"], first[name, side]])[:, None] + [item.root_idxs, item.idxs])
                if _reorders(model, name):
                    stuck[root] = f"{name} takes its channels in another order"
    except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError, AssertionError) as error:
        raise ConversionError(f"the channels of {type(model).__name__} cannot be followed: {error}") from error
    return edges, stuck


def _reorders(model: nn.Module, name: str) -> bool:
    """Whether a layer is inside of a block that puts channels in another order."""
    parents = [name.rsplit(".", depth)[0] for depth in range(1, name.count(".") + 1)]
    blocks = (model.get_submodule(parent) for parent in parents)
    return any(isinstance(block, Block) and block.order is not None for block in blocks)


def _components(edges: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    """Number the connected parts, (size,)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    table = coo_matrix((np.ones(edges.shape[1], dtype=np.int8), (edges[0], edges[1])), shape=(size, size))
    return connected_components(table, directed=False)[1]


def _sets(
    component: np.ndarray[Any, Any],
    sizes: Mapping[Place, int],
    first: Mapping[Place, int],
    layers: Mapping[str, Lowerable],
    norms: Mapping[str, nn.Module],
    stuck: Mapping[str, str],
    normed: Iterable[str],
) -> list[KernelSet]:
    """Gather connected channels to sets whose channels have places in the same modules."""
    members: dict[int, dict[Place, list[int]]] = defaultdict(lambda: defaultdict(list))
    for place, size in sizes.items():
        if place[1] == "in" and one_a_group(layers[place[0]]):
            continue
        for index, number in enumerate(component[first[place] : first[place] + size].tolist()):
            members[number][place].append(index)
    alike: dict[tuple[tuple[Place, int], ...], list[dict[Place, list[int]]]] = defaultdict(list)
    for places in members.values():
        alike[tuple((place, len(indices)) for place, indices in places.items())].append(places)
    sets: list[KernelSet] = []
    for signature, channels in alike.items():
        table = {place: torch.tensor([places[place] for places in channels]) for place, _ in signature}
        kernels = {n: t for (n, side), t in table.items() if side == "out" and n in layers}
        readers = {n: t for (n, side), t in table.items() if side == "in"}
        if kernels:
            why = next((stuck[name] for name in (*kernels, *readers) if name in stuck), "")
            bare = tuple(name for name in kernels if name not in normed)
            batch_norms = {n: t for (n, _), t in table.items() if n in norms}
            why = why or ("" if readers else "no layer reads what it gives")
            sets.append(KernelSet(kernels, batch_norms, readers, bare, why))
    return sets
