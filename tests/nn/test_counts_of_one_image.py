"""Work is counted for one image, whichever axis images lie along."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.cost import price
from bitline.nn import calibrate, placement, program, to_crossbar
from network_samples import Code, chip


def counted(model: nn.Module, make_chip, *x: Tensor) -> int:
    converted, _ = to_crossbar(model, chip(make_chip), example=x if len(x) > 1 else x[0])
    return price(placement(converted)).macs


@pytest.mark.parametrize("images", [1, 2, 5])
def test_vectors_in_the_batch_axis_are_counted_for_one_image(make_chip, images):
    model = Code(lambda s, x: s.f(x.flatten(0, 1)).view(len(x), -1), f=nn.Linear(8, 16))
    assert counted(model, make_chip, torch.randn(images, 100, 8)) == 100 * 8 * 16


@pytest.mark.parametrize("images", [1, 4, 16])
def test_a_sequence_in_the_first_axis_is_counted_for_one_image(make_chip, images):
    model = Code(lambda s, x: s.f(x.transpose(0, 1)).transpose(0, 1), f=nn.Linear(8, 16))
    assert counted(model, make_chip, torch.randn(images, 12, 8)) == 12 * 8 * 16


@pytest.mark.parametrize("images", [1, 3])
def test_windows_of_a_convolution_are_counted_for_one_image(make_chip, images):
    def forward(s, x: Tensor) -> Tensor:
        windows = x.unfold(2, 3, 3).unfold(3, 3, 3).permute(0, 2, 3, 1, 4, 5).flatten(0, 2)
        return s.c(windows).view(len(x), -1)

    model = Code(forward, c=nn.Conv2d(3, 8, 2))
    assert counted(model, make_chip, torch.randn(images, 3, 9, 9)) == 9 * 4 * 8 * 12


@pytest.mark.parametrize("images", [1, 4])
def test_what_does_not_depend_on_the_batch_is_counted_whole(make_chip, images):
    model = Code(lambda s, x: s.f(x) + s.f(s.table), f=nn.Linear(8, 8))
    model.register_buffer("table", torch.randn(1, 8))
    assert counted(model, make_chip, torch.randn(images, 8)) == 2 * 8 * 8

    other = Code(lambda s, x: x + s.f(s.table).mean(0), f=nn.Linear(8, 8))
    other.register_buffer("table", torch.randn(49, 8))
    assert counted(other, make_chip, torch.randn(images, 8)) == 49 * 8 * 8


def test_rows_that_are_routed_are_counted_as_they_come(make_chip):
    def forward(s, x: Tensor) -> Tensor:
        y, some = s.a(x), x[:, 0] > 0
        return y.index_add(0, some.nonzero().flatten(), s.b(x[some]))

    x = torch.randn(8, 8)
    x[:, 0] = torch.tensor([1.0, 1, 1, -1, -1, -1, -1, 1])
    model = Code(forward, a=nn.Linear(8, 8), b=nn.Linear(8, 8))
    assert counted(model, make_chip, x) == 64 + 64 * 1  # half of the images reach b, and no position is halved


def test_noise_of_a_sequence_first_layer_does_not_depend_on_the_batch(make_chip):
    noisy = make_chip(cell={"read_noise": {"kind": "proportional", "sigma": 0.2}})
    x = torch.rand(4, 6, 8)
    model = Code(lambda s, x: s.f(x.transpose(0, 1)).transpose(0, 1), f=nn.Linear(8, 16))
    converted, _ = to_crossbar(model, noisy, example=x[:2])
    calibrate(converted, [x])
    program(converted, 3)
    with torch.no_grad():
        together = converted(x)
        program(converted, 3)
        alone = torch.cat([converted(x[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=0, atol=0)


def test_a_layer_that_is_called_and_multiplied_by_is_counted_twice_and_no_more(make_chip):
    model = Code(lambda s, x: F.linear(s.a(x), s.a.weight, s.a.bias), a=nn.Linear(8, 8))
    assert counted(model, make_chip, torch.randn(2, 8)) == 2 * 64
