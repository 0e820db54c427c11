"""Layers that answer by their statistics: quantize, one plain product, noise."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from bitline import seeds
from bitline.mapping.lower import Lowerable
from bitline.mvm.gradient import Quantized
from bitline.nn import IDEAL, CrossbarLayer, crossbar_layers
from bitline.nn.cells import CellWeights
from bitline.nn.read import Mode
from bitline.surrogate import normals
from bitline.surrogate.statistics import CellErrors, Statistics, Surrogate


class LayerSurrogate:
    """What answers for a layer on a chip.

    Args:
        statistics: of the layer.
        drawn: errors of cells are drawn from their statistics, anew for each chip seed; else they are those of the
            chip as it is programmed.
    """

    def __init__(self, statistics: Statistics, *, drawn: bool = False) -> None:
        self.statistics = statistics
        self.drawn = drawn
        self._last: tuple[CellWeights, object, int, Tensor] | None = None

    def __call__(self, layer: CrossbarLayer, x: Tensor) -> Tensor:
        """Answer an input of the layer, as `CrossbarLayer.forward` does."""
        layer.check(x)
        own, device = self.statistics, x.device
        scale = float(layer.ranges.input_scale)
        if not math.isfinite(scale):
            layer.integers(x)  # says what is missing
        rounded: Any = _Rounded.apply(x, scale, *layer.input_format.limits)
        y = layer.plain_answer(rounded, self._weight(layer), own.shift.to(device))
        if own.noise == 0 or not y.numel():
            return y
        name = layer.cells.matmul.name
        number = layer.reads.next(x.shape[0], layer.network_pass, training=layer.training, layer=name)
        purpose = "surrogate of training" if number.training else "surrogate"
        seed = seeds.derive(int(layer.chip_seed), name, purpose, number.call)
        z = normals.of_images(seed, number.first_image, y)
        sigma = _along(layer, own.sigma.to(device, y.dtype), y)
        if own.overflows and not layer.training:
            over = [seeds.of_step(seed, -1, number.first_image + i) < own.overflows * 2**63 for i in range(len(y))]
            if any(over):
                factors = torch.tensor(over, device=device).to(y.dtype) * (own.excess - 1) + 1
                sigma = sigma * factors.view(-1, *[1] * (y.dim() - 1))
        return y.addcmul_(sigma, z)

    def _weight(self, layer: CrossbarLayer) -> Tensor:
        """Weights with their errors and their gain; their gradient is that of quantized ones."""
        learns = torch.is_grad_enabled() and layer.weight.requires_grad
        fake = layer.fake_weight() if self.drawn or learns else None
        effective = self._drawn(layer, fake) if self.drawn and fake is not None else self._programmed(layer)
        if not learns or fake is None:
            return effective
        gain = _across(1 + self.statistics.gain.to(effective), effective)
        return _PassedOn.apply(layer.weight, effective, fake, gain)  # pyright: ignore[reportReturnType]

    def _programmed(self, layer: CrossbarLayer) -> Tensor:
        """As the chip is programmed; made once for the same weights."""
        weights, seed = layer.cells.weights(cast("Lowerable", layer)), int(layer.chip_seed)
        last = self._last
        if last is None or last[0] is not weights or last[1] is not layer.chip or last[2] != seed:
            effective = layer.effective_weight()
            effective = effective * _across(1 + self.statistics.gain.to(effective), effective)
            last = self._last = (weights, layer.chip, seed, effective)
        return last[3]

    def _drawn(self, layer: CrossbarLayer, fake: Quantized) -> Tensor:
        """As cells with errors of the same statistics hold them."""
        own, seed = self.statistics, int(layer.chip_seed)
        gain = _across(1 + own.gain.to(fake.source), fake.source)
        if own.cells is None or seed == IDEAL:
            return fake.value * gain
        weights = layer.cells.weights(cast("Lowerable", layer))
        units = _across(weights.unit(layer.chip.weights).transpose(1, 2).flatten(), fake.source)
        name = layer.cells.matmul.name
        whole = fake.whole
        errors = draw(own.cells, whole, seeds.derive(seed, name, "cells of the surrogate"))
        return errors.add_(whole.clamp_(fake.low, fake.high)).mul_(units * gain).to(fake.source.dtype)


def draw(cells: CellErrors, whole: Tensor, seed: int) -> Tensor:
    """Return errors of weights, weight units, that a seed determines.

    Args:
        cells: their mean and spread.
        whole: the integers that the weights are, any shape.
        seed: of the layer on its chip.
    """
    index = (whole - cells.low).clamp_(0, len(cells.mean) - 1).int().flatten()
    std = cells.std.to(whole.device).index_select(0, index)
    std *= normals.numbers(seed, whole.numel(), std)
    return std.add_(cells.mean.to(whole.device).index_select(0, index)).view(whole.shape)


def attach(model: nn.Module, surrogate: Surrogate, *, drawn: bool = False) -> None:
    """Have the layers of a network answer by their statistics from now on, until their `mode` is changed.

    Statistics are those of the chip that they were measured on. Whether the network is on that chip is not checked.

    Args:
        model: converted.
        surrogate: its statistics; layers that it lacks answer as they did.
        drawn: draw errors of cells from their statistics, anew for each chip seed, where the errors of the programmed
            chip would else be taken: for training on another chip at every step, whose cells are not programmed.
    """
    for name, layer in crossbar_layers(model).items():
        if name in surrogate.layers:
            layer.mode = "surrogate"
            layer.surrogate = LayerSurrogate(surrogate.layers[name], drawn=drawn)


def detach(model: nn.Module) -> None:
    """Have the layers of a network answer as their chip does again."""
    for layer in crossbar_layers(model).values():
        if layer.mode == "surrogate":
            layer.mode, layer.surrogate = "chip", None


@contextmanager
def answering(model: nn.Module, surrogate: Surrogate, *, drawn: bool = False) -> Generator[None]:
    """Have the layers of a network answer by their statistics for a while, see `attach`."""
    layers = crossbar_layers(model).values()
    modes: list[Mode] = [layer.mode for layer in layers]
    before = [layer.surrogate for layer in layers]
    try:
        attach(model, surrogate, drawn=drawn)
        yield
    finally:
        for layer, mode, own in zip(layers, modes, before, strict=True):
            layer.mode, layer.surrogate = mode, own


class _Rounded(torch.autograd.Function):
    """Inputs as the DACs see them; the gradient passes where nothing clips."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: float, low: int, high: int) -> Tensor:
        ctx.save_for_backward(x)
        ctx.ends = (low - 0.5) * scale, (high + 0.5) * scale
        return (x / scale).round_().clamp_(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0].to(x.dtype), x, *ctx.ends), None, None, None


class _PassedOn(torch.autograd.Function):
    """Weights as the product has them; the gradient goes to those that were quantized, where nothing clipped."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, effective: Tensor, fake: Quantized, gain: Tensor) -> Tensor:
        ctx.save_for_backward(gain)
        ctx.fake = fake
        return effective.view_as(effective)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (gain,) = ctx.saved_tensors
        return ctx.fake.passed(grads[0] * gain.to(grads[0].dtype)), None, None, None


def _along(layer: CrossbarLayer, channels: Tensor, y: Tensor) -> Tensor:
    """One number for each output channel, beside the layer's outputs."""
    return channels if isinstance(layer, nn.Linear) else channels.view(-1, *[1] * (y.dim() - 2))


def _across(channels: Tensor, weight: Tensor) -> Tensor:
    """One number for each output channel, beside the layer's weights."""
    return channels.view(-1, *[1] * (weight.dim() - 1))
