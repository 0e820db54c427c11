"""Layers that answer by their statistics: quantize, one plain product, noise that was seen."""

import math
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from bitline import seeds
from bitline.chip.description import Chip
from bitline.differences import differences
from bitline.errors import ConversionError
from bitline.mapping.lower import Lowerable
from bitline.mvm.gradient import Quantized, StraightThrough, WeightErrors, add_in_place
from bitline.nn import IDEAL, CrossbarLayer, crossbar_layers
from bitline.nn.cells import CellWeights
from bitline.nn.read import Mode
from bitline.surrogate import normals
from bitline.surrogate.statistics import CellErrors, Statistics, Surrogate


class LayerSurrogate:
    """What answers for a layer on a chip.

    Args:
        statistics: of the layer.
        of: the surrogate that they are part of.
        drawn: errors of cells are drawn from their statistics, anew for each chip seed; else they are those of the
            chip as it is programmed.
    """

    def __init__(self, statistics: Statistics, of: Surrogate, *, drawn: bool = False) -> None:
        self.statistics, self.of = statistics, of
        self.drawn = drawn
        self._checked: tuple[object, int] | None = None
        self._last: tuple[tuple[CellWeights, Chip, int, torch.dtype], Tensor] | None = None
        self._kept: dict[object, Tensor] = {}

    def __call__(self, layer: CrossbarLayer, x: Tensor) -> Tensor:
        """Answer an input of the layer, as `CrossbarLayer.forward` does."""
        self._check_chip(layer)
        own, device = self.statistics, x.device
        if not math.isfinite(float(layer.ranges.input_scale)):
            layer.integers(x)  # says what is missing
        # Of the type that the product takes, so that nothing is copied into it.
        autocast = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if autocast else x.dtype
        inputs = layer.fake_input(x)
        rounded, finite = inputs.checked(dtype)
        layer.check(None if finite else x)
        if torch.is_grad_enabled() and x.requires_grad:
            rounded = StraightThrough.apply(x, rounded, inputs, None)
        y = layer.plain_answer(rounded, self._weight(layer, dtype), own.shift.to(device))  # pyright: ignore
        if not own.noise or not y.numel():
            return y
        name = layer.cells.matmul.name
        number = layer.reads.next(x.shape[0], layer.network_pass, training=layer.training, layer=name)
        purpose = "surrogate of training" if number.training else "surrogate"
        noise = self._maps(layer, y), seeds.derive(int(layer.chip_seed), name, purpose, number.call), number.first_image
        if torch.is_grad_enabled() and y.requires_grad:
            return _Noisy.apply(y, *noise)  # pyright: ignore[reportReturnType]
        return add_maps(y, *noise)

    def _maps(self, layer: CrossbarLayer, y: Tensor) -> Tensor:
        """What the noise of outputs is drawn from, as these are in memory."""
        format = torch.channels_last if y.dim() == 4 and y.stride(1) == 1 else torch.contiguous_format
        key = (y.shape[1:], y.dtype, y.device, format, layer.training)
        if key not in self._kept:
            seen = [each for each in self.statistics.noise if each.maps.shape[1:] == y.shape[1:]]
            if not seen:
                shapes = " or ".join(str(tuple(each.maps.shape[1:])) for each in self.statistics.noise)
                raise ConversionError(
                    f"layer {layer.cells.matmul.name}: its surrogate was measured at outputs of shape {shapes}, not "
                    f"{tuple(y.shape[1:])}; measure it on images of the size that it shall answer"
                )
            maps = seen[0].of(training=layer.training)
            self._kept[key] = maps.to(y.device, y.dtype).contiguous(memory_format=format)
        return self._kept[key]

    def _check_chip(self, layer: CrossbarLayer) -> None:
        """Refuse to answer for another chip than was measured; with drawn cells, for other conversions."""
        chip, seed = layer.chip, int(layer.chip_seed)
        if self._checked is not None and self._checked[0] is chip and self._checked[1] == seed:
            return
        where = f"layer {layer.cells.matmul.name}: its surrogate was measured on"
        if chip != self.of.chip:
            listed = ", ".join(
                map(str, differences(chip.model_dump(mode="json"), self.of.chip.model_dump(mode="json")))
            )
            raise ConversionError(f"{where} another chip ({listed}); call bitline.surrogate.measure on this one")
        if not self.drawn and seed not in self.of.seeds:
            seeds_ = ", ".join(map(str, self.of.seeds))
            raise ConversionError(
                f"{where} chip seed {seeds_}, and this is {seed}; call bitline.surrogate.measure here"
            )
        self._checked = (chip, seed)

    def _weight(self, layer: CrossbarLayer, dtype: torch.dtype) -> Tensor:
        """Weights with their errors and their gain, of a type; their gradient is that of quantized ones."""
        learns = torch.is_grad_enabled() and layer.weight.requires_grad
        fake = layer.fake_weight() if self.drawn or learns else None
        if self.drawn and fake is not None:
            effective = self._drawn(layer, fake, dtype)
        else:
            effective = self._programmed(layer, dtype)
        if not learns or fake is None:
            return effective
        gain = _across(1 + self.statistics.gain.to(effective), effective)
        return StraightThrough.apply(layer.weight, effective, fake, gain)  # pyright: ignore[reportReturnType]

    def _programmed(self, layer: CrossbarLayer, dtype: torch.dtype) -> Tensor:
        """As the chip is programmed; made once for the same weights."""
        weights, seed = layer.cells.weights(cast("Lowerable", layer)), int(layer.chip_seed)
        key = (weights, layer.chip, seed, dtype)
        if self._last is None or any(a is not b and a != b for a, b in zip(self._last[0], key, strict=True)):
            effective = layer.effective_weight()
            effective = effective * _across(1 + self.statistics.gain.to(effective), effective)
            self._last = key, effective.to(dtype)
        return self._last[1]

    def _drawn(self, layer: CrossbarLayer, fake: Quantized, dtype: torch.dtype) -> Tensor:
        """As cells with errors of the same statistics hold them."""
        own, seed = self.statistics, int(layer.chip_seed)
        gain = 1 + own.gain.to(fake.source)
        if own.cells is None or seed == IDEAL:
            return (fake.value * _across(gain, fake.source)).to(dtype)
        units = layer.cells.weights(cast("Lowerable", layer)).unit(layer.chip.weights).transpose(1, 2).flatten()
        seed = seeds.derive(seed, layer.cells.matmul.name, "cells of the surrogate")
        return fake.erred(draw(own.cells, fake.source, seed, units * gain), dtype)


def draw(cells: CellErrors, weights: Tensor, seed: int, factor: Tensor) -> WeightErrors:
    """Return errors of weights that a seed determines.

    Args:
        cells: their mean and spread.
        weights: any shape.
        seed: of the layer on its chip.
        factor: real value of a weight of 1, (outputs,).
    """
    mean, std = (each.to(weights.device) for each in (cells.mean, cells.std))
    return WeightErrors(cells.low, mean, std, normals.numbers(seed, weights.numel(), std), factor)


def add_maps(y: Tensor, maps: Tensor, seed: int, first: int) -> Tensor:
    """Add noise to outputs in place: for every image a map, a function of (seed, number of the image).

    As many images in a row as there are maps have them in turn, from one that is drawn, so that no map is copied.

    Args:
        y: (images, ...).
        maps: (maps, ...), of the type of `y`.
        seed: of the layer on its chip.
        first: number of the first image.
    """
    done, images, kept = 0, y.shape[0], maps.shape[0]
    while done < images:
        turn, place = divmod(first + done, kept)
        start = (seeds.of_step(seed, turn) + place) % kept
        some = min(images - done, kept - place, kept - start)
        add_in_place(y, maps, done, start, some)
        done += some
    return y


def attach(model: nn.Module, surrogate: Surrogate, *, drawn: bool = False) -> None:
    """Have the layers of a network answer by their statistics from now on, until their `mode` is changed.

    Statistics are those of the chip that they were measured on; a layer refuses to answer on another one.

    Args:
        model: converted.
        surrogate: its statistics; layers that it lacks answer as they did.
        drawn: draw errors of cells from their statistics, anew for each chip seed, where the errors of the programmed
            chip would else be taken: for training on another chip at every step, whose cells are not programmed.
    """
    for name, layer in crossbar_layers(model).items():
        if name in surrogate.layers:
            layer.mode = "surrogate"
            layer.surrogate = LayerSurrogate(surrogate.layers[name], surrogate, drawn=drawn)


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


class _Noisy(torch.autograd.Function):
    """Outputs with their noise, see `add_maps`."""

    @staticmethod
    def forward(ctx: Any, y: Tensor, maps: Tensor, seed: int, first: int) -> Tensor:
        ctx.mark_dirty(y)
        return add_maps(y, maps, seed, first)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return grads[0], None, None, None


def _across(channels: Tensor, weight: Tensor) -> Tensor:
    """One number for each output channel, beside the layer's weights."""
    return channels.view(-1, *[1] * (weight.dim() - 1))
