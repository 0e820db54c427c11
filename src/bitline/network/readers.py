"""Which batch norm alone reads the result of which layer, on every way that a network may go."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise, takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from bitline.errors import ConversionError
from bitline.mapping.lower import Lowerable
from bitline.models.blocks import Block
from bitline.network.inputs import Inputs
from bitline.network.products import Products, Running
from bitline.network.same import parts_of
from bitline.network.trace import modules, run_hooked

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.SyncBatchNorm


def neighbours(
    model: nn.Module, layers: Mapping[str, Lowerable], example: Inputs | None, why: dict[str, str] | None = None
) -> dict[str, str]:
    """Find each batch norm that sees the result of one layer, and is alone in seeing it.

    An example shows which result goes where: in evaluation, and in training where the network runs on the example then.
    What a module calls whose code reads values may go another way for others, and is left alone. Without an example
    only nn.Sequential is looked at, whose order is known; there, a batch norm after a linear layer is taken to see
    (batch, features). A `Block` gives the result of its last layer.

    Args:
        model: in eval mode.
        layers: that may be folded into, by name.
        example: one batch.
        why: takes the reason of each batch norm that is found behind a layer and cannot be folded, by name.

    Returns:
        batch norm name -> layer name.
    """
    why = {} if why is None else why
    pairs = _in_sequence(model, layers) if example is None else _follow(model, layers, example, why)
    found: dict[str, str] = {}
    for name, layer in pairs.items():
        reason = _unfit(model.get_submodule(name), layers[layer])
        if reason is None:
            found[name] = layer
        else:
            why[name] = reason
    return found


def _unfit(norm: nn.Module, layer: Lowerable) -> str | None:
    """Say why a batch norm does not work on the channels of a layer's result by statistics of its own, or None."""
    kind = nn.BatchNorm2d if isinstance(layer, nn.Conv2d) else nn.BatchNorm1d
    if not isinstance(norm, kind | nn.SyncBatchNorm):
        return f"it is a {type(norm).__name__}, and the layer before it a {type(layer).__name__}"
    if norm.running_mean is None or norm.running_var is None:
        return "has no statistics of its own: it normalizes by the batch at hand"
    if norm.num_features != layer.weight.shape[0]:
        return f"has {norm.num_features} channels, and the layer before it {layer.weight.shape[0]}"
    return None


def _in_sequence(model: nn.Module, layers: Mapping[str, Lowerable]) -> dict[str, str]:
    names = {module: name for name, module in modules(model)}
    places = Counter(id(module) for _, module in modules(model, everywhere=True))
    pairs: dict[str, str] = {}
    for module in names:
        if isinstance(module, nn.Sequential) and _forward(module) is nn.Sequential.forward:
            for first, second in pairwise(module):
                layer = _last(names[first], first)
                seen = (first, second, *([layers[layer]] if layer in layers else []))
                alone = all(places[id(each)] == 1 for each in seen)
                if alone and isinstance(second, BatchNorm) and layer in layers:
                    pairs[names[second]] = layer
    return pairs


def _forward(module: nn.Module) -> object:
    """The function that a module is called by, also where it was put on the instance."""
    return vars(module).get("forward", type(module).forward)


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
        if func in _VALUES or any(isinstance(leaf, Tensor) for leaf in tree_leaves(result)):
            self.count.update(self.names((args, kwargs)))
        return result

    def names(self, tree: object) -> list[str]:
        """Layers whose results are among the leaves of a tree."""
        return [self.made[id(leaf)][0] for leaf in tree_leaves(tree) if id(leaf) in self.made]


_VALUES = (Tensor.tolist, Tensor.numpy, Tensor.item, Tensor.__bool__, Tensor.__float__, Tensor.__int__, torch.equal)
"""functions that read a tensor and give none"""


def _follow(model: nn.Module, layers: Mapping[str, Lowerable], example: Inputs, why: dict[str, str]) -> dict[str, str]:
    """Watch one batch: a layer and a batch norm that each run once, the second alone in reading the first's result."""
    first = _watch(model, layers, example)
    pairs: dict[str, str] = {}
    trained = _watch_training(model, layers, example)
    for norm, source in first.seen.items():
        layer = first.last(source)
        parts = {norm, layer, source}
        decider = first.decider(norm, layer)
        if not first.alone(norm, source):
            why[norm] = f"the result of {layer} is read elsewhere too, or made several times"
        elif decider is not None:
            why[norm] = f"{decider or 'the network'} reads values, and may go another way for others"
        elif trained is not None and trained.touched(parts) and not trained.alone(norm, source):
            why[norm] = f"the result of {layer} is read elsewhere too in training"
        else:
            pairs[norm] = layer
    return pairs


class _Watched:
    """What a pass showed: which batch norm reads which result, and how often everything ran and was read."""

    def __init__(self, blocks: Mapping[str, Block]) -> None:
        self.blocks = blocks
        self.readers = _Readers()
        self.seen: dict[str, str] = {}
        self.calls: Counter[str] = Counter()
        self.running = Running()
        self.stacks: dict[str, list[str]] = {}
        self.decides: dict[str, int] = {}

    def last(self, source: str) -> str:
        """Name of the layer that made a result."""
        return _last(source, self.blocks[source]) if source in self.blocks else source

    def alone(self, norm: str, source: str) -> bool:
        """Whether a batch norm ran once and was alone in reading a result that was made once."""
        once = all(self.calls[name] == self.readers.count[name] == 1 for name in (source, self.last(source)))
        return once and self.calls[norm] == 1 and self.seen.get(norm) == source

    def decider(self, norm: str, layer: str) -> str | None:
        """Name of a module around a batch norm or a layer that read values, by which it may run one without the other.

        What goes on around the module that runs both, once that has ended, has no say in how they ran.
        """
        stacks = self.stacks[norm], self.stacks[layer]
        both = sum(a == b for a, b in takewhile(lambda pair: pair[0] == pair[1], zip(*stacks, strict=False)))
        outside, end = set(stacks[0][: both - 1]), self.running.ended.get(stacks[0][both - 1], 0)
        inside = {*stacks[0][both - 1 :], *stacks[1][both - 1 :]}
        return next((n for n, when in self.decides.items() if n in inside or (n in outside and when < end)), None)

    def touched(self, names: set[str]) -> bool:
        """Whether any of some modules ran."""
        return any(self.calls[name] for name in names)


def _watch(model: nn.Module, layers: Mapping[str, Lowerable], example: Inputs) -> _Watched:
    # A block that puts its results in another order is followed like a layer; inside, the ordering is the one reader.
    blocks = {n: m for n, m in modules(model) if isinstance(m, Block) and m.order is not None and _last(n, m) in layers}
    watched = _Watched(blocks)
    readers, running = watched.readers, watched.running

    def after(name: str, output: object) -> None:
        watched.calls[name] += 1
        watched.stacks[name] = running.names[:-1]
        if isinstance(output, Tensor):
            readers.made[id(output)] = (name, output)

    def before(name: str, args: tuple[object, ...]) -> None:
        watched.calls[name] += 1
        watched.stacks[name] = list(running.names)
        for layer in readers.names(args):
            x = args[0]
            if isinstance(x, Tensor) and (x.dim() == 2 or not isinstance(layers.get(layer), nn.Linear)):
                watched.seen[name] = layer

    handles = [m.register_forward_hook(_calling(after, n)) for n, m in (*layers.items(), *blocks.items())]
    norms = {n: m for n, m in modules(model) if isinstance(m, BatchNorm)}
    handles += [m.register_forward_pre_hook(_calling(before, n)) for n, m in norms.items()]
    handles += running.watch(modules(model))
    with Products(running) as products, readers:
        answer = run_hooked(model, example, handles)
    readers.count.update(readers.names(parts_of(answer)))
    watched.decides = products.decides
    return watched


def _watch_training(model: nn.Module, layers: Mapping[str, Lowerable], example: Inputs) -> _Watched | None:
    """Watch a batch on the way that the network's own code goes in training; None where it does not run so.

    Modules of PyTorch stay as they are: batch norms keep their statistics, and dropout drops nothing.
    """
    own = [m for m in model.modules() if not type(m).__module__.startswith("torch.") and not isinstance(m, BatchNorm)]
    before = [(module, module.training) for module in own]
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    try:
        for module in own:
            module.training = True
        with torch.random.fork_rng(devices=[]):
            return _watch(model, layers, example)
    except ConversionError:
        return None
    finally:
        for module, training in before:
            module.training = training
        for buffer, value in buffers:
            if not buffer.is_meta:
                buffer.copy_(value)


def _calling(function: Callable[[str, Any], None], name: str) -> Callable[..., None]:
    """Make a hook that calls a function with a name and the last thing the hook is given."""
    return lambda *given: function(name, given[-1])
