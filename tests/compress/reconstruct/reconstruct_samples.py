"""Small networks and correlated inputs that the tests of compress share."""

import torch
from torch import Tensor, nn

ROWS = 36


def images(count: int, channels: int, size: int = 8, *, seed: int = 0) -> Tensor:
    """Inputs whose channels and neighbouring positions depend on each other."""
    rng = torch.Generator().manual_seed(seed)
    mixing = torch.randn(channels, channels, generator=torch.Generator().manual_seed(99)) + 2 * torch.eye(channels)
    noise = torch.randn(count, channels, size + 2, size + 2, generator=rng)
    smooth = nn.functional.avg_pool2d(noise, 3, stride=1)
    return torch.einsum("oc,bchw->bohw", mixing, smooth) + 0.3


def batches(channels: int, size: int = 8) -> list[Tensor]:
    return [images(16, channels, size, seed=seed) for seed in range(4)]


def trained(model: nn.Module, data: list[Tensor]) -> nn.Module:
    """Give the batch norms the statistics of the data and weights of their own."""
    rng = torch.Generator().manual_seed(5)
    model.train()
    with torch.no_grad():
        for norm in model.modules():
            if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
                norm.weight.copy_(torch.rand(norm.weight.shape, generator=rng) + 0.5)
                norm.bias.copy_(torch.randn(norm.bias.shape, generator=rng) * 0.2)
                norm.momentum = None
        for x in data:
            model(x)
    return model.eval()


def network(*, bias: bool = False) -> nn.Sequential:
    """Three convolutions of which two need partial sums at 36 rows, and two linear layers that do."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, bias=bias),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, bias=bias),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, stride=2, bias=bias),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 48, bias=bias),
        nn.BatchNorm1d(48),
        nn.ReLU(),
        nn.Linear(48, 16),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )
