"""The gradient of a layer on a chip is that of the plain layer at its quantized inputs and weights."""

import pytest
import torch
from torch import nn

from bitline.nn import calibrate, to_crossbar

LAYERS = {
    "linear": (lambda: nn.Linear(6, 4), (3, 6)),
    "linear of sequences": (lambda: nn.Linear(6, 4), (3, 5, 6)),
    "conv": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 6)),
    "dilated": (lambda: nn.Conv2d(2, 3, (3, 2), dilation=(1, 2), bias=False), (2, 2, 7, 6)),
    "same": (lambda: nn.Conv2d(2, 3, (3, 5), padding="same"), (2, 2, 7, 6)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="circular"), (2, 2, 7, 6)),
    "reflect": (lambda: nn.Conv1d(2, 3, 5, padding=2, padding_mode="reflect"), (2, 2, 9)),
    "replicate": (lambda: nn.Conv1d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 2, 9)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_are_those_of_autograd(make_chip, name):
    torch.manual_seed(0)
    build, shape = LAYERS[name]
    x = torch.rand(shape)
    model, _ = to_crossbar(nn.Sequential(build()), make_chip(crossbar={"rows": 16, "cols": 64}), example=x)
    calibrate(model, [x * 0.8])  # so that some inputs clip
    layer = model[0]
    mine = x.clone().requires_grad_()
    out = model(mine)
    grad = torch.rand_like(out)
    out.backward(grad)

    inputs, weights = layer.fake_input(x), layer.fake_weight()
    assert not bool(inputs.inside.all())
    leaf_x, leaf_w = inputs.value.clone().requires_grad_(), weights.value.clone().requires_grad_()
    layer._plain(leaf_x, leaf_w, None).backward(grad)
    torch.testing.assert_close(mine.grad, leaf_x.grad * inputs.inside)
    torch.testing.assert_close(layer.weight.grad, leaf_w.grad * weights.inside)
    if layer.bias is not None:
        axes = [a for a in range(grad.dim()) if a != (grad.dim() - 1 if "linear" in name else 1)]
        torch.testing.assert_close(layer.bias.grad, grad.sum(axes))
