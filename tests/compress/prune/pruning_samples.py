"""Small networks whose channels are tied in different ways, with batch norms as training leaves them."""

import torch
from torch import Tensor, nn

from bitline.models import build


def conv(inputs: int, outputs: int, *, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Concat(nn.Module):
    """Two branches side by side, and a third that is added to both together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.both = conv(3, 24), conv(24, 16), conv(3, 40)
        self.last = conv(40, 24)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        both = torch.cat([first, self.second(first)], 1) + self.both(x)
        return self.fc(self.last(both).mean((2, 3)))


class Dense(nn.Module):
    """Features that pile up, each read through batch norms of the readers alone (DenseNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 24, 3, padding=1, bias=False)
        self.norm1, self.conv1 = nn.BatchNorm2d(24), nn.Conv2d(24, 16, 3, padding=1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(40), nn.Conv2d(40, 16, 3, padding=1, bias=False)
        self.norm3, self.fc = nn.BatchNorm2d(56), nn.Linear(56, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.cat([x, self.conv1(self.norm1(x).relu())], 1)
        x = torch.cat([x, self.conv2(self.norm2(x).relu())], 1)
        return self.fc(self.norm3(x).relu().mean((2, 3)))


class Groups(nn.Module):
    """Depthwise convolutions and one of two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.point1, self.depth1 = conv(3, 24, kernel=1), conv(24, 24, groups=24)
        self.group = conv(24, 32, groups=2)
        self.point2, self.depth2 = conv(32, 16, kernel=1), conv(16, 32, groups=16)
        self.fc = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.group(self.depth1(self.point1(x)))
        return self.fc(self.depth2(self.point2(x)).mean((2, 3)))


class ToImage(nn.Module):
    """A convolution that is added to the image: none of its kernels can go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(12, 12), conv(12, 24)
        self.fc = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([x, x, x, x], 1)
        return self.fc(self.conv2(x + self.conv1(x)).mean((2, 3)))


class Fixed(nn.Module):
    """A shape written out in the code, which must not change."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = conv(3, 24), conv(24, 24), nn.Linear(24 * 64, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv2(self.conv1(x)).view(-1, 24 * 64))


class Halves(nn.Module):
    """One convolution whose two halves go to different readers."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.left, self.right, self.fc = conv(3, 48), conv(24, 24), conv(24, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        left, right = self.conv1(x).split([24, 24], 1)
        return self.fc((self.left(left) + self.right(right)).mean((2, 3)))


def _sequence() -> nn.Module:
    """Signals in one dimension."""
    return nn.Sequential(
        nn.Flatten(2),
        nn.Conv1d(3, 24, 5),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.Conv1d(24, 24, 5, stride=2),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 28, 40, bias=False),
        nn.BatchNorm1d(40),
        nn.ReLU(),
        nn.Linear(40, 5),
    )


NETWORKS = {
    "vgg8": lambda: build("vgg8", image_size=8, width=0.125),
    "vgg16": lambda: build("vgg16", width=0.1),
    "resnet20": lambda: build("resnet20", image_size=8),
    "lenet5": lambda: build("lenet5", in_channels=3, image_size=8),
    "concat": Concat,
    "dense": Dense,
    "groups": Groups,
    "halves": Halves,
    "sequence": _sequence,
}


def network(name: str) -> nn.Module:
    """One of NETWORKS, with batch norms whose factors differ and statistics of data."""
    torch.manual_seed(7)
    return settled(NETWORKS[name](), images(name))


def images(name: str, count: int = 4) -> Tensor:
    size = 32 if name == "vgg16" else 8
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def settled(model: nn.Module, x: Tensor) -> nn.Module:
    """Draw the factors of batch norms, and take their statistics from data."""
    rng = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.weight.copy_(torch.rand(norm.weight.shape, generator=rng) + 0.1)
                norm.bias.copy_(torch.randn(norm.bias.shape, generator=rng) * 0.3)
                norm.momentum = None
        model.train()(x)
    return model.eval()
