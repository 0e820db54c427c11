"""A layer on a chip as one operator of PyTorch, so that torch.compile and torch.export take a converted network.

The operator is a pure function of tensors and of a text that describes the layer and its chip, hence it can be saved in
an exported program and loaded elsewhere. Cells are programmed inside, once for the same weights and seed.
"""

import json
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bitline.chip.cell import NoReadNoise
from bitline.chip.description import Chip
from bitline.errors import ConversionError
from bitline.mapping.lower import Matmul, output_shape
from bitline.mapping.place import Strategy
from bitline.nn.backward import gradients

if TYPE_CHECKING:
    from bitline.nn.base import CrossbarLayer

_BUFFERS = ("input_scale", "input_signed", "adc_lsb", "adc_offset", "chip_seed")


def describe(layer: Any, chip: Chip, matmul: Matmul, strategy: Strategy) -> str:
    """Return the text from which `layer` can be built again."""
    biased = layer.bias is not None
    if isinstance(layer, nn.Linear):
        arguments = [layer.in_features, layer.out_features, biased]
    else:
        arguments = [
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            biased,
            layer.padding_mode,
        ]
    kind = type(layer).__name__
    return json.dumps(
        {
            "kind": kind,
            "arguments": arguments,
            "matmul": vars(matmul),
            "chip": chip.model_dump(mode="json"),
            "strategy": strategy,
        }
    )


@lru_cache(maxsize=256)
def _build(text: str) -> Any:
    from bitline.nn import layers

    described = json.loads(text)
    arguments = [tuple(a) if isinstance(a, list) else a for a in described["arguments"]]
    chip = Chip.model_validate(described["chip"])
    return getattr(layers, described["kind"])(
        *arguments,
        chip=chip,
        matmul=Matmul(**described["matmul"]),
        strategy=described.get("strategy", "dense"),
        device="meta",
    )


def _layer(text: str, weight: Tensor, bias: Tensor | None, buffers: list[Tensor]) -> Any:
    layer = _build(text)
    layer._parameters["weight"] = weight
    layer._parameters["bias"] = bias
    for name, value in zip(_BUFFERS, buffers, strict=True):
        layer._buffers[name] = value
    return layer


def answer(layer: "CrossbarLayer", x: Tensor) -> Tensor:
    """What `layer` answers, as one node of a traced graph.

    Raises:
        ConversionError: the chip has read noise, which differs from read to read, or ADC ranges train.
    """
    if layer.log2_lsb is not None:
        raise ConversionError(
            f"ADC ranges train for chip {layer.chip.name}, which no compiled or exported network can do; "
            "call keep_ranges(model) first"
        )
    if not isinstance(layer.chip.cell.read_noise, NoReadNoise):
        raise ConversionError(
            f"chip {layer.chip.name} has read noise, which no compiled or exported network can draw anew at every "
            "read; run it as it is, or set cell.read_noise={kind='none'}"
        )
    buffers = [getattr(layer, name) for name in _BUFFERS]
    return _answer(x, layer.weight, layer.bias, buffers, layer.described)


@torch.library.custom_op("bitline::answer", mutates_args=())
def _answer(x: Tensor, weight: Tensor, bias: Tensor | None, buffers: list[Tensor], text: str) -> Tensor:
    return _layer(text, weight.detach(), bias, buffers).answer(x).clone()


@_answer.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, buffers: list[Tensor], text: str) -> Tensor:
    return x.new_empty(output_shape(_build(text), x.shape))


@torch.library.custom_op("bitline::gradients", mutates_args=())
def _gradients(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, buffers: list[Tensor], text: str, needed: list[bool]
) -> list[Tensor]:
    layer = _layer(text, weight, bias, buffers)
    found = gradients(layer, layer.fake_input(x), weight, grad, (needed[0], needed[1], needed[2]), x.dtype)
    return [g.contiguous() if g is not None else x.new_empty(0) for g in found]


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
    found = _gradients(grad, x, weight, bias, buffers, ctx.text, needed)
    return (*(g if need else None for g, need in zip(found, needed, strict=True)), [None] * len(buffers), None)


_answer.register_autograd(_backward, setup_context=_keep)
