"""Networks for small images, and the files that hold them."""

from collections.abc import Callable

import torch
from torch import nn

from bitline.errors import DataError, nearest, shown
from bitline.models.lenet import LeNet5
from bitline.models.resnet import ResNet20, ResNet56
from bitline.models.vgg import VGG8, VGG16

__all__ = ["VGG8", "VGG16", "LeNet5", "ResNet20", "ResNet56", "build", "names"]

_MODELS: dict[str, Callable[..., nn.Module]] = {
    "vgg8": VGG8,
    "vgg16": VGG16,
    "resnet20": ResNet20,
    "resnet56": ResNet56,
    "lenet5": LeNet5,
}


MOST = {"num_classes": 100_000, "in_channels": 1024, "image_size": 1024}
"""sizes that a network can be built for; the largest public sets of labels have 21,841"""
NARROWEST, WIDEST = 1 / 64, 64
"""multiples of the published channels; below, layers of 64 channels have one"""
MOST_WEIGHTS = 10**9
"""4 GB of them"""


def names() -> tuple[str, ...]:
    """Return the names that `build` knows."""
    return tuple(_MODELS)


def build(
    name: str, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, width: float = 1.0
) -> nn.Module:
    """Build a network by name, with random weights from the global generator.

    Args:
        name: ``vgg8``, ``vgg16``, ``resnet20``, ``resnet56`` or ``lenet5``.
        num_classes: outputs.
        in_channels: image channels.
        image_size: image height and width, px.
        width: multiplies every hidden number of channels.

    Returns:
        The network, in training mode.

    Raises:
        DataError: an unknown name, a size that the network cannot take, or more weights than a machine holds.
    """
    if name not in _MODELS:
        raise DataError(f"model is {name!r}; allowed: {', '.join(_MODELS)}{nearest(name, _MODELS)}")
    sizes = {"num_classes": num_classes, "in_channels": in_channels, "image_size": image_size}
    for key, value in sizes.items():
        if type(value) is not int or not 1 <= value <= MOST[key]:
            raise DataError(f"{key} is {shown(value)}; allowed: 1 to {MOST[key]}")
    if type(width) not in (int, float) or not NARROWEST <= width <= WIDEST:
        raise DataError(f"width is {shown(width)}; allowed: {NARROWEST} to {WIDEST}")
    if width > 4 or any(16 * value > MOST[key] for key, value in sizes.items()):
        with torch.device("meta"):  # as large as can be asked for, without its memory
            weights = sum(p.numel() for p in _MODELS[name](**sizes, width=width).parameters())
        if weights > MOST_WEIGHTS:
            asked = ", ".join(f"{key} {value}" for key, value in {**sizes, "width": width}.items())
            raise DataError(f"{name} with {asked} has {weights:.3g} weights; allowed: {MOST_WEIGHTS:.3g}")
    return _MODELS[name](**sizes, width=width)
