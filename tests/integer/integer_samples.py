"""Small networks on chips whose numbers are integers, for the tests of integer networks."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.integer.stored import store
from bitline.models import build
from bitline.models.blocks import GroupConv2d, GroupLinear, SeparableConv2d
from bitline.nn import calibrate, to_crossbar


def powers(make_chip: Callable[..., Chip], **sections: Any) -> Chip:
    """A small chip of 8-bit weights, inputs and biases with scales of powers of two."""
    weights = {"bits": 8, "scale": "power_of_two", "bias_bits": 8, **sections.pop("weights", {})}
    inputs = {"bits": 8, "scale": "power_of_two", **sections.pop("inputs", {})}
    crossbar = {"rows": 64, "cols": 64}
    return make_chip(
        crossbar=crossbar, adc={"bits": 8, "policy": "lossless"}, weights=weights, inputs=inputs, **sections
    )


def on_chip(net: nn.Module, chip: Chip, x: Tensor) -> nn.Module:
    """Convert, calibrate and store; ranges are narrow enough that some values clip."""
    model = to_crossbar(net.eval(), chip, example=x).model
    calibrate(model, [x * 0.7])
    store(model, x)
    return model.eval()


def published(name: str, image: Sequence[int]) -> nn.Module:
    """A narrow network of the package whose batch norms are not those of a beginning."""
    torch.manual_seed(0)
    net = build(name, width=0.15, in_channels=image[0], image_size=image[1])
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.normal_(module.bias, 0, 0.3)
    return net


class Mixed(nn.Module):
    """Everything an integer network does: groups, a depthwise layer, strides, paddings, pools, sums and joins."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, stride=2, padding=(1, 2))
        self.grouped = nn.Conv2d(6, 4, (3, 1), groups=2, padding="same", dilation=(2, 1))
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6, bias=False)
        self.act, self.join, self.out = nn.ReLU(), nn.Identity(), nn.ReLU()
        self.max = nn.MaxPool2d(3, 1, 1)
        self.mean, self.odd = nn.AvgPool2d(2, 2, padding=1), nn.AdaptiveAvgPool2d(1)
        self.last = nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        y = torch.cat([self.grouped(x), self.max(self.depthwise(x)) + x], 1)
        y = self.out(self.mean(self.join(y)))
        return self.last(self.odd(y).flatten(1))


class Averages(nn.Module):
    """Averages of modules with names of other operations, and one that leaves out the axes it is over."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.act = nn.Conv2d(2, 6, 3), nn.ReLU()
        self.mean, self.avg_pool = nn.AdaptiveAvgPool2d(2), nn.AdaptiveAvgPool2d(1)
        self.last, self.other, self.out = nn.Linear(6, 3), nn.Linear(6, 3), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.first(x))
        return self.out(self.last(x.mean((2, 3))) + self.other(self.avg_pool(self.mean(x)).flatten(1)))


class Twins(nn.Module):
    """Two layers whose answers have units that are far apart, and are added."""

    def __init__(self, exponent: int) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(2600, 3, bias=False), nn.Linear(2600, 3, bias=False)
        with torch.no_grad():
            self.b.weight[0] *= 2.0**exponent

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) + self.b(x)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "lenet5": (lambda: published("lenet5", (1, 16, 16)), (1, 16, 16)),
    "vgg8": (lambda: published("vgg8", (3, 16, 16)), (3, 16, 16)),
    "vgg16": (lambda: published("vgg16", (3, 32, 32)), (3, 32, 32)),
    "resnet20": (lambda: published("resnet20", (3, 16, 16)), (3, 16, 16)),
    "mixed": (Mixed, (2, 8, 9)),
    "averages": (Averages, (2, 8, 8)),
    "group": (
        lambda: nn.Sequential(GroupConv2d(nn.Conv2d(4, 8, 3), 2, mix=2), nn.ReLU(), nn.Conv2d(8, 3, 1)),
        (4, 5, 6),
    ),
    "separable": (lambda: nn.Sequential(SeparableConv2d(nn.Conv2d(4, 8, 3)), nn.ReLU(), nn.Conv2d(8, 3, 1)), (4, 5, 6)),
    "group linear": (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), GroupLinear(nn.Linear(8, 6), 2)), (6,)),
}


def shuffled(net: nn.Module) -> nn.Module:
    """Give blocks that permute channels permutations that do something."""
    for module in net.modules():
        if isinstance(module, GroupConv2d | GroupLinear):
            for buffer in (module.inputs, module.outputs):
                buffer.copy_(torch.randperm(len(buffer), generator=torch.Generator().manual_seed(3)))
    return net
