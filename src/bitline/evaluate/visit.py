"""Look at what enters each layer of a converted network."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

from bitline.chip.variants import ideal
from bitline.nn import IDEAL, crossbar_layers
from bitline.nn.layers import CrossbarLayer

T = TypeVar("T")


@torch.no_grad()
def on_each_layer(model: nn.Module, images: Tensor, look: Callable[[CrossbarLayer, Tensor], T]) -> dict[str, T]:
    """Run a batch through exact integer products and call `look` with every layer and its input.

    Args:
        model: converted and calibrated; it is left on the chip and the seeds it had.
        images: normalized, (batch, ...).
        look: called once a layer, at its first run.

    Returns:
        What `look` gave, by layer.
    """
    layers = crossbar_layers(model)
    names = {layer: name for name, layer in layers.items()}
    before = {name: (layer.chip, int(layer.chip_seed)) for name, layer in layers.items()}
    found: dict[str, T] = {}

    def enter(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
        if isinstance(layer, CrossbarLayer) and names[layer] not in found:
            chip = layer.chip
            layer.chip = before[names[layer]][0]
            found[names[layer]] = look(layer, args[0])
            layer.chip = chip

    handles = [layer.register_forward_pre_hook(enter) for layer in names]
    try:
        for layer in names:
            layer.chip = ideal(layer.chip)
            layer.program(IDEAL)
        model.eval()
        model(images)
    finally:
        for handle in handles:
            handle.remove()
        for name, layer in layers.items():
            layer.chip = before[name][0]
            layer.program(before[name][1])
    return found
