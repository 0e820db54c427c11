"""A layer on a chip as one operator of PyTorch, so that torch.compile and torch.export take a converted network.

The operator is a pure function of tensors and of a text that describes the layer and its chip, hence it can be saved in
an exported program and loaded elsewhere. Cells are programmed inside, once for the same weights and seed.
"""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from bitline.mapping.lower import output_shape
from bitline.nn.backward import gradients
from bitline.nn.description import Description
from bitline.nn.layer_types import CrossbarConv1d, CrossbarConv2d, CrossbarLayer, CrossbarLinear
from bitline.nn.ranges import BUFFERS

_KINDS = {kind.__name__: kind for kind in (CrossbarLinear, CrossbarConv1d, CrossbarConv2d)}


@lru_cache(maxsize=256)
def _build(text: str) -> Any:
    d = Description.of(text)
    return _KINDS[d.kind](*d.arguments, chip=d.chip, matmul=d.matmul, strategy=d.strategy, device="meta")


def _layer(text: str, weight: Tensor, bias: Tensor | None, buffers: list[Tensor]) -> CrossbarLayer:
    layer = _build(text)
    layer._parameters["weight"] = weight
    layer._parameters["bias"] = bias
    for name, value in zip(BUFFERS, buffers[:-1], strict=True):
        layer.ranges._buffers[name] = value
    layer._buffers["chip_seed"] = buffers[-1]
    return layer


@torch.library.custom_op("bitline::answer", mutates_args=())
def _answer(x: Tensor, weight: Tensor, bias: Tensor | None, buffers: list[Tensor], text: str) -> Tensor:
    return _layer(text, weight.detach(), bias, buffers).answer(x)[0].clone(memory_format=torch.contiguous_format)


@_answer.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, buffers: list[Tensor], text: str) -> Tensor:
    return x.new_empty(output_shape(_build(text), x.shape))


@torch.library.custom_op("bitline::gradients", mutates_args=())
def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, buffers: list[Tensor], text: str, needed: list[bool]
) -> list[Tensor]:
    layer = _layer(text, weight, bias, buffers)
    three = (needed[0], needed[1], needed[2])
    each = gradients(layer, layer.fake_input(x), layer.fake_weight(), grad, three, (x.dtype, weight.dtype))
    return [g.contiguous() if g is not None else x.new_empty(0) for g in each]


@_gradients.register_fake
def _(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, buffers: list[Tensor], text: str, needed: list[bool]
) -> list[Tensor]:
    shapes = [x.shape, weight.shape, weight.shape[:1]]
    return [x.new_empty(shape if need else (0,)) for shape, need in zip(shapes, needed, strict=True)]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, bias, buffers, text = inputs
    ctx.save_for_backward(x, weight, bias, *buffers)
    ctx.text = text


def _backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    x, weight, bias, *buffers = ctx.saved_tensors
    needed = list(ctx.needs_input_grad[:3])
    each = _gradients(grad, x, weight, bias, buffers, ctx.text, needed)
    return (*(g if need else None for g, need in zip(each, needed, strict=True)), [None] * len(buffers), None)


_answer.register_autograd(_backward, setup_context=_keep)
