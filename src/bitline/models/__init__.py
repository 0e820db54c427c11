"""Networks for small images, and the files that hold them."""

from collections.abc import Callable

from torch import nn

from bitline.errors import DataError, nearest
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
        DataError: an unknown name, or a size that the network cannot take.
    """
    if name not in _MODELS:
        raise DataError(f"model is {name!r}; allowed: {', '.join(_MODELS)}{nearest(name, _MODELS)}")
    for key, value in (("num_classes", num_classes), ("in_channels", in_channels), ("image_size", image_size)):
        if value < 1:
            raise DataError(f"{key} is {value}; allowed: 1 or more")
    if not 0 < width < float("inf"):
        raise DataError(f"width is {width}; allowed: more than 0")
    return _MODELS[name](num_classes=num_classes, in_channels=in_channels, image_size=image_size, width=width)
