"""Which path the product of each layer takes, and why no faster one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitline.chip.cell import NoReadNoise
from bitline.mvm import native
from bitline.mvm.machine import Choice, choice
from bitline.mvm.torch_fast import exact
from bitline.nn.cells import IDEAL
from bitline.nn.layer import CrossbarLayer
from bitline.nn.on import crossbar_layers
from bitline.physics.noise import ReadNoise

ONE_PRODUCT = "one integer product"
"""how sums are made where no conversion can change them"""
_INPUTS = 8


@dataclass(frozen=True)
class LayerPath:
    """How the product of one layer is computed.

    Args:
        name: of the layer.
        path: a native path, or `native.TENSOR`.
        sums: how analog sums are made, a few words.
        why: the reason why it is no native path; None where it is one.
    """

    name: str
    path: str
    sums: str
    why: str | None

    @property
    def falls_back(self) -> bool:
        """Whether analog sums are made by tensors, the slow way."""
        return self.path == native.TENSOR and self.sums != ONE_PRODUCT


@torch.no_grad()
def explain(model: nn.Module) -> list[LayerPath]:
    """Say which path the product of each layer takes, with its cells as programmed and its ranges as calibrated.

    Cells and plans that this makes are kept and used when the network runs. Where ranges follow the batch (ADC policy
    ``batch_minmax``) random inputs decide them.

    Args:
        model: from `to_crossbar`, calibrated.

    Returns:
        One for each layer on crossbars.

    Raises:
        ConversionError: nothing is on crossbars, or a layer is not calibrated.
        MappingError: the environment names a path that does not run here.
    """
    taken = choice()
    return [_layer(name, layer, taken) for name, layer in crossbar_layers(model).items()]


def summary(layers: Sequence[LayerPath]) -> str:
    """Say in a line how many layers take which path, and which fall back to tensors."""
    every, parts = len(layers), list[str]()
    for path in dict.fromkeys(layer.path for layer in layers if layer.path != native.TENSOR):
        parts.append(f"{sum(layer.path == path for layer in layers)} of {every} layers on path {path}")
    groups = (
        (f"as {ONE_PRODUCT}", [layer.name for layer in layers if layer.sums == ONE_PRODUCT]),
        ("fall back to tensors", [layer.name for layer in layers if layer.falls_back]),
    )
    for what, names in groups:
        if names:
            which = f": {', '.join(names)}" if len(names) < every else ""
            parts.append(f"{len(names)} of {every} layers {what}{which}")
    return "; ".join(parts)


def _layer(name: str, layer: CrossbarLayer, taken: Choice) -> LayerPath:
    chip, seed = layer.chip, int(layer.chip_seed)
    q = _inputs(layer)
    read = layer.read(q)
    crossbars, scale = read.crossbars, read.scale
    quiet = seed == IDEAL or isinstance(chip.cell.read_noise, NoReadNoise)
    noise = None if quiet else ReadNoise(chip.cell, seed)
    if noise is None and exact(crossbars, scale):
        return LayerPath(name, native.TENSOR, ONE_PRODUCT, "no conversion can round or clip")
    sums = f"tensors of {str(crossbars.real).removeprefix('torch.')}"
    if taken.path is None or taken.path == native.TENSOR:
        return LayerPath(name, native.TENSOR, sums, taken.why)
    plan = native.why_not(crossbars, q.device, noise) or native.plan(crossbars, scale, taken.path, noise)
    if isinstance(plan, str):
        return LayerPath(name, native.TENSOR, sums, plan)
    return LayerPath(name, taken.path, plan.kind, None)


def _inputs(layer: CrossbarLayer) -> Tensor:
    """Return random inputs of the layer, each as small as it takes, and one of zeros, in the integers that it reads."""
    if isinstance(layer, nn.Linear):
        shape = (_INPUTS, layer.in_features)
    else:
        assert isinstance(layer, nn.Conv1d | nn.Conv2d)
        kernel = (d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True))
        shape = (_INPUTS, layer.in_channels, *kernel)
    low, high = layer.input_format.limits
    scale = float(layer.ranges.input_scale)
    x = torch.randint(low, high + 1, shape, generator=torch.Generator().manual_seed(0)).double()
    x[0] = 0
    return layer.integers((x * scale if math.isfinite(scale) else x).to(layer.weight.device))
