"""One layer of every kind, alone on a chip."""

import torch
from torch import Tensor, nn

from bitline.mapping.quantize import weight_scale
from bitline.nn import CrossbarLayer, calibrate, crossbar_layers, to_crossbar


def on_chip(model: nn.Module, chip, x: Tensor, **kwargs) -> nn.Module:
    converted = to_crossbar(model, chip, **kwargs).model
    calibrate(converted, [x])
    return converted


def exact(make_chip, **sections):
    """A chip that answers the exact product of the integers."""
    return make_chip(crossbar={"rows": 16, "cols": 32}, adc={"policy": "lossless"}, **sections)


def only_layer(model: nn.Module) -> CrossbarLayer:
    (layer,) = crossbar_layers(model).values()
    return layer


def rounded(x: Tensor, scale: Tensor | float, low: int, high: int) -> Tensor:
    """Integers times scale, with the gradient of x where nothing clips."""
    q = (x / scale).round()
    inside = (q.detach() >= low) & (q.detach() <= high)
    value = q.detach().clamp(low, high) * scale
    return x * inside + (value - x * inside).detach()


def weight_per_channel(layer: nn.Module, chip) -> Tensor:
    """The scale of each output channel, shaped as the weight."""
    w = layer.weight.detach().flatten(1).T[None]
    return weight_scale(w, chip.weights).flatten().view(-1, *[1] * (layer.weight.dim() - 1))


LAYERS = {
    "linear": (lambda: nn.Linear(10, 6), (5, 10)),
    "linear, three axes": (lambda: nn.Linear(10, 6), (5, 3, 10)),
    "linear without bias": (lambda: nn.Linear(10, 6, bias=False), (5, 10)),
    "conv2d": (lambda: nn.Conv2d(3, 4, 3, padding=1), (2, 3, 6, 5)),
    "strided": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(0, 1)), (2, 3, 7, 5)),
    "same": (lambda: nn.Conv2d(3, 4, 3, padding="same", dilation=2), (2, 3, 7, 5)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(12, 12, 3, groups=12, padding=1), (2, 12, 5, 5)),
    "conv1d": (lambda: nn.Conv1d(3, 5, 3, dilation=2, bias=False), (2, 3, 9)),
}


def build(kind: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(1)
    make, shape = LAYERS[kind]
    return make(), torch.randn(shape)
