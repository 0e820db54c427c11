"""ResNet-20 and ResNet-56 for 32 px images.

K. He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, doi:10.1109/CVPR.2016.90, section 4.2.
Deviation: where the shape changes, a 1x1 convolution with batch norm (option B) and not the zero-padded identity
(option A), so that every weighted path is a layer that a crossbar can hold.
"""

from torch import Tensor, nn

from bitline.errors import DataError
from bitline.models.vgg import conv_block, scaled


class BasicBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, added before the last ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(inputs, outputs, kernel_size=3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(outputs, outputs, kernel_size=3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, kernel_size=1, stride=stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's activations, (batch, outputs, height / stride, width / stride)."""
        return self.relu(self.conv2(self.conv1(x)) + self.shortcut(x))


class _ResNet(nn.Module):
    """A 3x3 convolution, three stages of `blocks` basic blocks (16, 32, 64 channels), mean over space, one linear."""

    def __init__(self, blocks: int, num_classes: int, in_channels: int, image_size: int, width: float) -> None:
        super().__init__()
        if image_size < 4:
            raise DataError(f"image_size is {image_size}; two strides of two need 4 px or more")
        channels = scaled(16, width)
        self.conv1 = conv_block(in_channels, channels)
        self.stages = nn.Sequential()
        for number, base in enumerate((16, 32, 64), start=1):
            stage = nn.Sequential()
            for index in range(blocks):
                outputs = scaled(base, width)
                stage.append(BasicBlock(channels, outputs, stride=2 if number > 1 and index == 0 else 1))
                channels = outputs
            self.stages.add_module(f"stage{number}", stage)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores.

        Args:
            x: images, (batch, in_channels, height, width).

        Returns:
            Scores before softmax, (batch, num_classes).
        """
        return self.fc(self.pool(self.stages(self.conv1(x))).flatten(1))


class ResNet20(_ResNet):
    """Twenty weighted layers: three stages of three basic blocks.

    Args:
        num_classes: outputs.
        in_channels: image channels.
        image_size: image height and width, px; any from 4 up.
        width: multiplies every hidden number of channels.
    """

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, width: float = 1.0
    ) -> None:
        super().__init__(3, num_classes, in_channels, image_size, width)


class ResNet56(_ResNet):
    """Fifty-six weighted layers: three stages of nine basic blocks.

    Args:
        num_classes: outputs.
        in_channels: image channels.
        image_size: image height and width, px; any from 4 up.
        width: multiplies every hidden number of channels.
    """

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 3, image_size: int = 32, width: float = 1.0
    ) -> None:
        super().__init__(9, num_classes, in_channels, image_size, width)
