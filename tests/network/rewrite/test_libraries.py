"""Layers of other libraries, known by the full names of their classes; these here compute what those do."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.network.rewrite.libraries import SamePadded, library_layer
from bitline.network.rewrite.module import Stays


def named(module: nn.Module, name: str) -> nn.Module:
    """Have a module be of a class of that full name."""
    place, _, cls = name.rpartition(".")
    module.__class__ = type(cls, (type(module),), {"__module__": place, "__qualname__": cls})
    return module.double().eval()


class Conv1D(nn.Module):
    def __init__(self, nf: int, nx: int) -> None:
        super().__init__()
        self.nf, self.nx = nf, nx
        self.weight, self.bias = nn.Parameter(torch.randn(nx, nf)), nn.Parameter(torch.randn(nf))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], self.nf)


class Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return F.linear(input, self.weight, self.bias)


def same(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Zeros on both ends, the larger share behind, for ceil(length / stride) outputs."""
    pads = []
    for axis in (1, 0):
        n, k, s, d = x.shape[2 + axis], conv.kernel_size[axis], conv.stride[axis], conv.dilation[axis]
        total = 0
        while (n + total - d * (k - 1) - 1) // s + 1 < -(-n // s):
            total += 1
        pads += [total // 2, total - total // 2]
    return F.pad(x, pads)


class Conv2dSame(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(same(x, self), self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class ScaledStdConv2dSame(nn.Conv2d):
    same_pad = True

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.gain = nn.Parameter(torch.randn(self.out_channels, 1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = same(x, self) if self.same_pad else x
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.var((1, 2, 3), keepdim=True, correction=0) + 1e-6).sqrt()
        return F.conv2d(x, w * self.gain * 0.2, self.bias, self.stride, self.padding, self.dilation, self.groups)


class ScaledStdConv2d(ScaledStdConv2dSame):
    same_pad = False


STD = "timm.layers.std_conv."
CASES = {
    "transformers.pytorch_utils.Conv1D": (Conv1D(6, 4), (2, 3, 4)),
    "timm.layers.linear.Linear": (Linear(4, 6), (2, 3, 4)),
    "timm.layers.conv2d_same.Conv2dSame": (Conv2dSame(4, 6, (3, 5), (2, 3), dilation=(2, 1), groups=2), (2, 4, 9, 8)),
    STD + "StdConv2d": (ScaledStdConv2d(4, 6, 3, 2, 1), (2, 4, 9, 8)),
    STD + "ScaledStdConv2d": (ScaledStdConv2d(4, 6, 3, 1, 1, groups=2, bias=False), (2, 4, 9, 8)),
    STD + "StdConv2dSame": (ScaledStdConv2dSame(4, 6, 3, 2), (2, 4, 9, 8)),
    STD + "ScaledStdConv2dSame": (ScaledStdConv2dSame(4, 6, 3, 2), (2, 4, 9, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_each_layer_is_a_plain_one_that_answers_as_before(name: str):
    torch.manual_seed(0)
    module, shape = CASES[name]
    named(module, name)
    made = library_layer(module)
    assert made is not None
    assert type(made.module) in (nn.Linear, nn.Conv2d, SamePadded)
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(made.module(x), module(x), rtol=1e-9, atol=1e-9)
    assert not made.module.training
    assert all(parameter.requires_grad for parameter in made.module.parameters())


def test_a_layer_with_a_hook_stays():
    module = named(Linear(4, 6), "timm.layers.linear.Linear")
    module.register_forward_hook(lambda *_: None)
    with pytest.raises(Stays, match="it has hooks"):
        library_layer(module)


def test_a_class_of_the_same_name_from_elsewhere_is_not_known():
    assert library_layer(named(Linear(4, 6), "somewhere.Linear")) is None
