"""Layers on crossbars as convolutions over maps, for tools that know a network by its layers' shapes alone."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from bitline.mapping.lower import output_shape
from bitline.network.inputs import Inputs
from bitline.network.trace import run_hooked
from bitline.nn.layer import CrossbarLayer
from bitline.nn.observe import in_mode
from bitline.nn.on import crossbar_layers

Pair = tuple[int, int]
"""along the height and along the width"""


@dataclass(frozen=True)
class LayerShape:
    """A layer as `groups` convolutions over the map of one image.

    Args:
        name: of the layer.
        size: of the map that enters, without padding.
        channels: that enter a group.
        kernel: of the kernels.
        outputs: channels of a group's result.
        groups: independent convolutions.
        stride: of the kernels.
        dilation: of the kernels.
        positions: results of an image and channel along both axes.
        pooled: whether a pooling comes next.
        why: a convolution is told as the product that it is, a 1 x 1 convolution over as many positions; None where it
            is told as itself.
    """

    name: str
    size: Pair
    channels: int
    kernel: Pair
    outputs: int
    groups: int
    stride: Pair
    dilation: Pair
    positions: Pair
    pooled: bool
    why: str | None = None

    @property
    def macs(self) -> int:
        """Multiplications of one image."""
        return math.prod(self.positions) * self.groups * self.channels * math.prod(self.kernel) * self.outputs

    def as_product(self, why: str) -> "LayerShape":
        """The same product of a matrix and as many vectors, without saying which inputs these share."""
        return replace(
            self,
            size=(math.prod(self.positions), 1),
            channels=self.channels * math.prod(self.kernel),
            kernel=(1, 1),
            stride=(1, 1),
            dilation=(1, 1),
            positions=(math.prod(self.positions), 1),
            why=why,
        )


def shapes(model: nn.Module, example: Inputs) -> list[LayerShape]:
    """List the layers of a converted network that are on crossbars, in the order they run.

    Args:
        model: from `to_crossbar` with an example.
        example: one batch.
    """
    layers = crossbar_layers(model)
    seen: dict[str, list[torch.Size]] = {}
    order = _Pools()

    def see(name: str, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen.setdefault(name, []).append((args[0] if args else kwargs["input"]).shape)
        order.last = name

    handles = [
        layer.register_forward_hook(lambda _m, args, kwargs, _out, name=name: see(name, args, kwargs), with_kwargs=True)
        for name, layer in layers.items()
    ]
    with in_mode("float", *layers.values()), order:
        run_hooked(model, example, handles)
    return [_shape(layers[name], name, sizes, name in order.pooled) for name, sizes in seen.items()]


class _Pools(TorchDispatchMode):
    """Which layer ran last before each pooling, be it a module, a function or a mean over both axes."""

    def __init__(self) -> None:
        super().__init__()
        self.last: str | None = None
        self.pooled: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        op = func._schema.name.removeprefix("aten::")
        mean = op == "mean" and len(args) > 1 and args[0].dim() == 4 and {a % 4 for a in args[1] or ()} >= {2, 3}
        if self.last is not None and ("pool" in op or mean):
            self.pooled.add(self.last)
        return func(*args, **(kwargs or {}))


def _shape(layer: CrossbarLayer, name: str, sizes: list[torch.Size], pooled: bool) -> LayerShape:
    matmul, one = layer.matmul, (1, 1)
    count = (matmul.positions, 1)
    product = LayerShape(name, count, matmul.rows, one, matmul.cols, matmul.groups, one, one, count, pooled)
    if not isinstance(layer, nn.Conv1d | nn.Conv2d):
        return product
    if len(sizes) > 1:
        return replace(product, why=f"it runs {len(sizes)} times")
    out = output_shape(layer, sizes[0])[2:]
    if math.prod(out) != matmul.positions:
        return replace(product, why="it sees several maps of an image")
    return replace(
        product,
        size=_pair(sizes[0][2:]),
        channels=layer.in_channels // layer.groups,
        kernel=_pair(layer.kernel_size),
        stride=_pair(layer.stride),
        dilation=_pair(layer.dilation),
        positions=_pair(out),
    )


def _pair(numbers: Any) -> Pair:
    """Along the height and the width; of a signal, whose map is one pixel wide, along its length."""
    first, *rest = (int(number) for number in numbers)
    return first, rest[0] if rest else 1
