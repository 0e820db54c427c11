"""LeNet-5 with ReLU and max pooling.

Y. LeCun et al., "Gradient-based learning applied to document recognition", Proc. IEEE 86, 1998,
doi:10.1109/5.726791. Deviations: ReLU for tanh, max for trainable average pooling, a full second convolution,
a linear output layer.
"""

from torch import Tensor, nn

from bitline.errors import DataError
from bitline.models.vgg import scaled


class LeNet5(nn.Module):
    """Two 5x5 convolutions (6, 16), each with ReLU and a 2x2 max pool, and three linear layers (120, 84, classes).

    Padding follows the image: none at 32 px and more, as published; 2 px in the first convolution below that
    (28 px, the usual MNIST form); 2 px in both below 28 px, so that 8 px digits end as 2 x 2.

    Args:
        num_classes: outputs.
        in_channels: image channels.
        image_size: image height and width, px; at least 4.
        width: multiplies every hidden number of channels.
    """

    def __init__(
        self, *, num_classes: int = 10, in_channels: int = 1, image_size: int = 28, width: float = 1.0
    ) -> None:
        super().__init__()
        if image_size < 4:
            raise DataError(f"image_size is {image_size}; LeNet-5 pools twice by two, so 4 px or more")
        first, second = (0 if image_size >= 32 else 2), (0 if image_size >= 28 else 2)
        size = (image_size + 2 * first - 4) // 2
        size = (size + 2 * second - 4) // 2
        c1, c2, f1, f2 = (scaled(channels, width) for channels in (6, 16, 120, 84))
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, c1, kernel_size=5, padding=first),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(c1, c2, kernel_size=5, padding=second),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.classifier = nn.Sequential(
            nn.Linear(c2 * size * size, f1), nn.ReLU(), nn.Linear(f1, f2), nn.ReLU(), nn.Linear(f2, num_classes)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the class scores.

        Args:
            x: images, (batch, in_channels, image_size, image_size).

        Returns:
            Scores before softmax, (batch, num_classes).
        """
        return self.classifier(self.features(x).flatten(1))
