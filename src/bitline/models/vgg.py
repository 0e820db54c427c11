"""VGG-8 and VGG-16 for small images, every convolution followed by batch norm and ReLU.

K. Simonyan and A. Zisserman, "Very Deep Convolutional Networks", ICLR 2015 (VGG-16, configuration D).
VGG-8 is the network of the published NeuroSim figures (X. Peng et al., IEDM 2019,
doi:10.1109/IEDM19573.2019.8993491): six convolutions and two linear layers.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from bitline.errors import DataError

VGG8_STAGES = ((128, 128), (256, 256), (512, 512))
VGG16_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times the width multiplier, rounded, at least one."""
    return max(1, round(channels * width))


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return 3x3 convolution (no bias), batch norm, ReLU: the order in which batch norm folds into the crossbar."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
    )


def linear_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return linear layer (no bias), batch norm, ReLU."""
    return nn.Sequential(nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU())


class _VGG(nn.Module):
    """Stages of convolutions, each ended by a 2x2 max pool, then a classifier."""

    def __init__(self, stages: Sequence[Sequence[int]], in_channels: int, image_size: int, width: float) -> None:
        super().__init__()
        if image_size < 2 ** len(stages):
            raise DataError(
                f"image_size {image_size}: {len(stages)} poolings by two need at least {2 ** len(stages)} px"
            )
        self.features = nn.Sequential()
        channels, index = in_channels, 0
        for number, stage in enumerate(stages, start=1):
            for outputs in stage:
                index += 1
                self.features.add_module(f"conv{index}", conv_block(channels, scaled(outputs, width)))
                channels = scaled(outputs, width)
            self.features.add_module(f"pool{number}", nn.MaxPool2d(2))
        self.flat = channels * (image_size // 2 ** len(stages)) ** 2
        self.classifier = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores.

        Args:
            x: images, (batch, in_channels, image_size, image_size).

        Returns:
            Scores before softmax, (batch, num_classes).
        """
        return self.classifier(self.features(x).flatten(1))


class VGG8(_VGG):
    """Six 3x3 convolutions (128, 128, 256, 256, 512, 512) and two linear layers (8192 to 1024 to classes at 32 px).

    Args:
        num_classes: outputs.
        in_channels: image channels.
        image_size: image height and width, px; a multiple of 8 uses every pixel.
        width: multiplies every hidden number of channels.
    """

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, width: float = 1.0
    ) -> None:
        super().__init__(VGG8_STAGES, in_channels, image_size, width)
        hidden = scaled(1024, width)
        self.classifier.add_module("fc1", linear_block(self.flat, hidden))
        self.classifier.add_module("fc2", nn.Linear(hidden, num_classes))


class VGG16(_VGG):
    """Thirteen 3x3 convolutions in five stages and one linear layer, the usual form of VGG-16 for 32 px images.

    Weights begin with the variance of K. He et al., "Delving Deep into Rectifiers", ICCV 2015,
    doi:10.1109/ICCV.2015.123. That of PyTorch's convolutions is six times less, which behind a batch norm means steps
    six times as large: the full width learns nothing in its first epoch then.

    Args:
        num_classes: outputs.
        in_channels: image channels.
        image_size: image height and width, px; at least 32.
        width: multiplies every hidden number of channels.
    """

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, width: float = 1.0
    ) -> None:
        super().__init__(VGG16_STAGES, in_channels, image_size, width)
        self.classifier.add_module("fc1", nn.Linear(self.flat, num_classes))
        for module in self.features.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
