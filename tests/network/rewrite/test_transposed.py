"""Transposed convolutions as convolutions, against PyTorch's."""

import itertools

import pytest
import torch
from torch import nn

from bitline.network.rewrite.module import Stays
from bitline.network.rewrite.transposed import phases, transposed


def same(module: nn.Module, *shape: int, **keywords) -> nn.Module:
    made = transposed(module)
    assert made is not None
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(made.module(x, **keywords), module(x, **keywords), rtol=1e-9, atol=1e-9)
    return made.module


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_every_geometry_of_one_axis_answers_as_before(kernel: int, stride: int):
    torch.manual_seed(0)
    tried = 0
    for padding, extra, dilation, groups, length in itertools.product((0, 1, 3), (0, 1), (1, 2, 3, 4), (1, 2), (1, 5)):
        out = (length - 1) * stride - 2 * padding + dilation * (kernel - 1) + 1 + extra
        if extra >= max(stride, dilation) or out < 1:
            continue
        bias = len({dilation * tap % stride for tap in range(kernel)}) == stride
        module = nn.ConvTranspose1d(4, 6, kernel, stride, padding, extra, groups, bias, dilation).double()
        same(module, 2, 4, length)
        tried += 1
    assert tried >= 10


@pytest.mark.parametrize(
    "module",
    [
        nn.ConvTranspose2d(3, 5, 2, 2),
        nn.ConvTranspose2d(3, 5, 3, 2, 1, 1),
        nn.ConvTranspose2d(3, 5, 4, 2, 1, bias=False),
        nn.ConvTranspose2d(4, 6, (3, 5), (2, 3), (1, 0), (1, 2), groups=2),
        nn.ConvTranspose2d(4, 4, 3, 1, 1, groups=4),
        nn.ConvTranspose2d(3, 5, (3, 4), (1, 3), dilation=(2, 2)),
        nn.ConvTranspose2d(3, 5, 1, 2, bias=False),
    ],
)
def test_two_axes_answer_as_before_with_a_batch_and_without(module: nn.Module):
    module = module.double()
    made = same(module, 2, module.in_channels, 5, 4)
    assert isinstance(made, nn.ConvTranspose2d)
    same(module, module.in_channels, 5, 4)


def test_the_size_of_the_output_may_be_asked_for():
    module = nn.ConvTranspose2d(3, 5, 3, 2, 1).double()
    for size in ((9, 10), (10, 9), (2, 5, 10, 10)):
        same(module, 2, 3, 5, 5, output_size=size)


def test_every_weight_is_stored_once_and_none_multiplies_a_zero_between_pixels():
    made = transposed(nn.ConvTranspose2d(3, 5, 3, 2, 1, 1, bias=False))
    assert made is not None
    assert sorted(tuple(p.shape) for p in made.module.parameters()) == [
        (5, 3, 1, 1),
        (5, 3, 1, 2),
        (5, 3, 2, 1),
        (5, 3, 2, 2),
    ]


def test_phases_of_as_many_taps_are_one_form():
    assert [(f.rests, f.taps) for f in phases(4, 2, 1)] == [([0, 1], [[2, 0], [3, 1]])]
    assert [(f.rests, f.taps) for f in phases(3, 2, 1)] == [([0], [[2, 0]]), ([1], [[1]])]


def test_gradients_are_those_of_before():
    module = nn.ConvTranspose2d(3, 5, 3, 2, 1, 1).double()
    made = transposed(module)
    assert made is not None
    x = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    module(a).square().sum().backward()
    made.module(b).square().sum().backward()
    torch.testing.assert_close(b.grad, a.grad, rtol=1e-9, atol=1e-9)
    ours = sum(float(p.grad.square().sum()) for n, p in made.module.named_parameters() if n.endswith("weight"))
    assert ours == pytest.approx(float(module.weight.grad.square().sum()), rel=1e-9)


def test_outputs_that_no_weight_reaches_stay_where_they_have_a_bias():
    with pytest.raises(Stays, match=r"^its kernel is smaller than its stride"):
        transposed(nn.ConvTranspose2d(3, 5, 1, 2))
