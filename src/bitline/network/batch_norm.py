"""Batch norm folded into the layer before it."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bitline.mapping.lower import Lowerable
from bitline.models.blocks import Block
from bitline.network.inputs import Inputs, leaves
from bitline.network.trace import modules, run_hooked

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


def neighbours(model: nn.Module, layers: Mapping[str, Lowerable], example: Inputs | None) -> dict[str, str]:
    """Find each batch norm that sees the result of one layer, and is alone in seeing it.

    An example shows which result goes where. Without one only nn.Sequential is looked at, whose order is known; there,
    a batch norm after a linear layer is taken to see (batch, features). A `Block` gives the result of its last layer.

    Args:
        model: in eval mode.
        layers: that may be folded into, by name.
        example: one batch.

    Returns:
        batch norm name -> layer name.
    """
    pairs = _in_sequence(model, layers) if example is None else _follow(model, layers, example)
    return {n: name for n, name in pairs.items() if _fits(model.get_submodule(n), layers[name])}


def _fits(norm: nn.Module, layer: Lowerable) -> bool:
    """Whether a batch norm works on the channels of a layer's result, by statistics of its own."""
    kind = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
    if not isinstance(norm, kind) or norm.running_mean is None or norm.running_var is None:
        return False
    return norm.num_features == layer.weight.shape[0]


def _in_sequence(model: nn.Module, layers: Mapping[str, Lowerable]) -> dict[str, str]:
    names = {module: name for name, module in modules(model)}
    places = Counter(id(module) for _, module in modules(model, everywhere=True))
    pairs: dict[str, str] = {}
    for module in names:
        if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            for first, second in pairwise(module):
                layer = _last(names[first], first)
                seen = (first, second, *([layers[layer]] if layer in layers else []))
                alone = all(places[id(each)] == 1 for each in seen)
                if alone and isinstance(second, BatchNorm) and layer in layers:
                    pairs[names[second]] = layer
    return pairs


def _last(name: str, module: nn.Module) -> str:
    """Name of the layer whose result a module gives: its own, or that of a block's last layer."""
    if not isinstance(module, Block):
        return name
    return _last(f"{name}.{module.last}".lstrip("."), module.get_submodule(module.last))


class _Readers(TorchFunctionMode):
    """Count the operations that read the result of each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, tuple[str, Tensor]] = {}
        self.count: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            self.count.update(self.names((args, kwargs)))
        return result

    def names(self, tree: object) -> list[str]:
        """Layers whose results are among the leaves of a tree."""
        return [self.made[id(leaf)][0] for leaf in tree_leaves(tree) if id(leaf) in self.made]


def _follow(model: nn.Module, layers: Mapping[str, Lowerable], example: Inputs) -> dict[str, str]:
    """Watch one batch: a layer and a batch norm that each run once, the second alone in reading the first's result."""
    readers = _Readers()
    seen: dict[str, str] = {}
    calls: Counter[str] = Counter()

    def after(name: str, output: object) -> None:
        calls[name] += 1
        if isinstance(output, Tensor):
            readers.made[id(output)] = (name, output)

    def before(name: str, args: tuple[object, ...]) -> None:
        calls[name] += 1
        for layer in readers.names(args):
            x = args[0]
            if isinstance(x, Tensor) and (x.dim() == 2 or not isinstance(layers.get(layer), nn.Linear)):
                seen[name] = layer

    # A block that puts its results in another order is followed like a layer; inside, the ordering is the one reader.
    blocks = {n: m for n, m in modules(model) if isinstance(m, Block) and m.order is not None and _last(n, m) in layers}
    handles = [m.register_forward_hook(_calling(after, n)) for n, m in (*layers.items(), *blocks.items())]
    norms = {n: m for n, m in modules(model) if isinstance(m, BatchNorm)}
    handles += [m.register_forward_pre_hook(_calling(before, n)) for n, m in norms.items()]
    with readers:
        answer = run_hooked(model, example, handles)
    readers.count.update(readers.names(_leaves(answer)))
    pairs: dict[str, str] = {}
    for norm, source in seen.items():
        layer = _last(source, blocks[source]) if source in blocks else source
        if calls[norm] == 1 and all(calls[n] == readers.count[n] == 1 for n in (source, layer)):
            pairs[norm] = layer
    return pairs


def _calling(function: Callable[[str, Any], None], name: str) -> Callable[..., None]:
    """Make a hook that calls a function with a name and the last thing the hook is given."""
    return lambda *given: function(name, given[-1])


def fold(model: nn.Module, pairs: Mapping[str, str], example: Inputs | None) -> dict[str, str]:
    """Fold batch norms into layers, in place; a fold that changes what the model answers is taken back.

    Args:
        model: in eval mode.
        pairs: batch norm name -> layer name.
        example: one batch to compare answers on; nothing is compared without it.

    Returns:
        The pairs that were folded; each batch norm is now nn.Identity.
    """
    if example is None:
        for norm, layer in pairs.items():
            _fold_one(model, norm, layer)
        return dict(pairs)
    before = _answer(model, example)
    undo = [(_fold_one(model, norm, layer), norm, layer) for norm, layer in pairs.items()]
    if _agree(before, _answer(model, example)):
        return dict(pairs)
    for restore, _, _ in undo:
        restore()
    kept: dict[str, str] = {}
    for norm, layer in pairs.items():
        restore = _fold_one(model, norm, layer)
        if _agree(before, _answer(model, example)):
            kept[norm] = layer
        else:
            restore()
    return kept


def _answer(model: nn.Module, example: Inputs) -> Tensor:
    parts = _leaves(run_hooked(model, example, []))
    return torch.cat(
        [
            torch.zeros(1, dtype=torch.float64, device=leaves(example)[0].device),
            *(p.flatten().double() for p in parts if isinstance(p, Tensor)),
        ]
    )


def _leaves(answer: object) -> list[object]:
    """Everything a network returns, be it a tensor, tuples, or a mapping of any class."""
    return tree_leaves(dict(cast("Mapping[str, object]", answer)) if isinstance(answer, Mapping) else answer)


def _agree(a: Tensor, b: Tensor) -> bool:
    if a.is_meta:  # without values the model's structure alone decides
        return a.shape == b.shape
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-3, atol=1e-3 * float(a.abs().max()) + 1e-12)


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
    model.set_submodule(norm_name, nn.Identity())

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
