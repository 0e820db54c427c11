"""Look at what enters each layer of a converted network."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import TypeVar

import torch
from torch import Tensor, nn

from bitline.chip.variants import ideal
from bitline.network.inputs import Inputs, call
from bitline.nn import crossbar_layers, on
from bitline.nn.layer import CrossbarLayer

T = TypeVar("T")


@torch.no_grad()
def on_each_layer(model: nn.Module, images: Inputs, look: Callable[[CrossbarLayer, Tensor], T]) -> dict[str, T]:
    """Run a batch through exact integer products and call `look` with every layer and its input.

    Args:
        model: converted and calibrated; it is left on the chip and the seeds it had.
        images: normalized, (batch, ...).
        look: called once a layer, at its first run.

    Returns:
        What `look` gave, by layer.
    """
    layers = {layer: (name, layer.chip, int(layer.chip_seed)) for name, layer in crossbar_layers(model).items()}
    sights: dict[str, T] = {}

    def enter(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        assert isinstance(layer, CrossbarLayer)
        name, chip, seed = layers[layer]
        if name not in sights:
            with on(layer, chip, seed):
                sights[name] = look(layer, args[0] if args else kwargs["input"])

    handles = [layer.register_forward_pre_hook(enter, with_kwargs=True) for layer in layers]
    with ExitStack() as stack:
        for handle in handles:
            stack.callback(handle.remove)
        for layer, (_, chip, _) in layers.items():
            stack.enter_context(on(layer, ideal(chip)))
        model.eval()
        call(model, images)
    return sights
