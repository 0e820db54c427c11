"""What conversions and cells add to the product of a layer: a gain, a shift and noise, for each of its outputs.

    answer = (1 + gain) product + shift + noise

`product` is the plain product of quantized inputs with the weights that the programmed cells amount to. Gain and shift
are those of least squared error, so that what remains is uncorrelated with the product: the decomposition of J.
Bussgang (1952) for a nonlinear device, here the ADCs of all row tiles, digits and slices of an output together. A
coarse LSB, which turns small sums to zero, and a range that clips large ones show as a gain below 0 and a shift.

What remains is kept as it was seen, a map for each measured image, and the noise of another image is one of these maps.
It is no white noise: the outputs of a position err alike, since they have their inputs in common, so do neighbours, and
much of an image errs to one side; few outputs err much. Normal numbers of the same power average out in the layers that
follow, where such maps do not.

A few images may overflow: one sum beyond a narrow range of a high digit swamps all of an output map. They are no part
of the fit, here and in the layers that follow; their maps are drawn as often as they were seen.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bitline.chip.description import Chip

LEAST_SNR = 1.0
"""power of a layer's product over that of its noise, below which the surrogate is not to be trusted: what the ADCs make
of the sums then says more about an answer than the product does, and is no noise but another function of the inputs"""
FEWEST_IMAGES = 32
"""that statistics are trusted of: of fewer the noise is too little, and always the same"""
MOST_OVERFLOWS = 0.1
"""share of images that overflow in some layer, above which it is not to be trusted: of few such images, how many there
are and how they err is known badly"""
MOST_CHANGED = 0.2
"""share of images that conversions move to another class, above which it is not to be trusted: what they add is large
then, and that it is a function of the input, which the surrogate knows nothing of, is worth points"""
MOST_NUMBERS = 2**23
"""of the noise of a layer that are kept; large maps of fewer images, though not of fewer than `FEWEST_MAPS`"""
FEWEST_MAPS = 8
MOST_UNLIKE = 2.5
"""standard errors between the shares of images that the chip and the surrogate move to another class"""
_FAR = 10.0
"""times the error power of the median image: more, if it is also more than the power of the product, is an overflow"""


@dataclass(frozen=True)
class CellErrors:
    """How far weights in programmed cells are from what they should be, by the integer that they hold.

    Args:
        low: lowest integer.
        mean: weight units, (integers,).
        std: the same.
    """

    low: int
    mean: Tensor
    std: Tensor


@dataclass(frozen=True)
class Noise:
    """What was seen of the noise of a layer, at outputs of one shape.

    Args:
        maps: units of the layer's output, (images, ...) as its outputs are, bf16. Images that overflow come last.
        overflowing: how many do, here or in a layer before.
    """

    maps: Tensor
    overflowing: int = 0

    def of(self, *, training: bool) -> Tensor:
        """Maps to draw from; training leaves out those that overflow, unless there are no others."""
        quiet = len(self.maps) - self.overflowing
        return self.maps[:quiet] if training and quiet else self.maps


@dataclass(frozen=True)
class Statistics:
    """What is added to the product of one layer.

    Args:
        gain: (outputs,).
        shift: units of the layer's output, (outputs,).
        noise: seen, for each shape of its outputs.
        signal: variance of the product with its gain, mean over the outputs.
        power: of the noise, mean over the outputs and the images that do not overflow.
        overflows: share of images that overflow here and in no layer before.
        cells: errors of cells; None where they are ideal.
    """

    gain: Tensor
    shift: Tensor
    noise: tuple[Noise, ...]
    signal: float
    power: float
    overflows: float = 0.0
    cells: CellErrors | None = None

    @property
    def snr(self) -> float:
        """Power of the product over that of the noise."""
        return self.signal / self.power if self.power else math.inf


@dataclass(frozen=True)
class Surrogate:
    """The statistics of a network on a chip.

    Args:
        layers: by name, in the order that they run.
        exact: layers that have none, since groups share their bitlines; they are simulated exactly.
        images: that all was measured on.
        chip: that it was measured on.
        seeds: of the programmed chips; -1: ideal cells.
        changed: share of the images that conversions move to another class.
        unlike: how many more the surrogate moves, standard errors; measured on one chip only, as `changed` is.
    """

    layers: Mapping[str, Statistics]
    exact: tuple[str, ...]
    images: int
    chip: Chip
    seeds: tuple[int, ...]
    changed: float = 0.0
    unlike: float = 0.0

    @property
    def noisy(self) -> dict[str, float]:
        """Layers whose noise is more than their product: product over noise, in power, below `LEAST_SNR`."""
        return {name: each.snr for name, each in self.layers.items() if each.snr < LEAST_SNR}

    @property
    def overflows(self) -> float:
        """Share of images that overflow in some layer."""
        return 1 - math.prod(1 - each.overflows for each in self.layers.values())

    @property
    def holds(self) -> bool:
        """Whether what it answers is to be trusted."""
        like = self.changed <= MOST_CHANGED and abs(self.unlike) <= MOST_UNLIKE
        return self.images >= FEWEST_IMAGES and not self.noisy and self.overflows <= MOST_OVERFLOWS and like


def to_plain(surrogate: Surrogate) -> dict[str, Any]:
    """Return tensors and plain values alone, as a checkpoint holds them."""
    layers: dict[str, Any] = {}
    for name, own in surrogate.layers.items():
        noise = [dict(vars(each)) for each in own.noise]
        layers[name] = {**vars(own), "noise": noise, "cells": None if own.cells is None else dict(vars(own.cells))}
    return {**vars(surrogate), "layers": layers, "chip": surrogate.chip.model_dump(mode="json")}


def from_plain(content: Mapping[str, Any]) -> Surrogate:
    """Return the surrogate that `to_plain` gave."""
    layers: dict[str, Statistics] = {}
    for name, own in content["layers"].items():
        cells: dict[str, Any] | None = own["cells"]
        noise = tuple(Noise(**each) for each in own["noise"])
        values: dict[str, Any] = {**own, "noise": noise, "cells": None if cells is None else CellErrors(**cells)}
        layers[name] = Statistics(**values)
    values = {name: content[name] for name in ("exact", "images", "seeds", "changed", "unlike")}
    return Surrogate(layers=layers, chip=Chip.model_validate(content["chip"]), **values)


@dataclass
class Seen:
    """What was seen of a layer: sums over the positions of each image, and some images whole.

    Attributes:
        images: how many.
    """

    images: int = 0
    _positions: list[Tensor] = field(default_factory=list[Tensor])
    _sums: list[tuple[Tensor, ...]] = field(default_factory=list[tuple[Tensor, ...]])
    _kept: list[tuple[int, Tensor, Tensor]] = field(default_factory=list[tuple[int, Tensor, Tensor]])

    def add(self, product: Tensor, error: Tensor, axis: int, *, keep: int | None = None) -> None:
        """Add products and what the chip answered beyond them.

        Args:
            product: (images, ...).
            error: the same.
            axis: of their channels.
            keep: so many images whole; None: all.
        """
        x, e = (each.movedim(axis, -1).unsqueeze(1).flatten(1, -2).double() for each in (product, error))
        self._positions.append(torch.full((len(x), 1), float(x.shape[1]), dtype=torch.float64))
        self._sums.append(tuple(each.sum(1).cpu() for each in (x, e, x * x, x * e, e * e)))
        self._kept.append((self.images, _half(product[:keep]), _half(error[:keep])))
        self.images += len(x)

    def sums(self) -> Tensor:
        """Sums of product, error, and the products of both, and the count, float64, (6, images, outputs)."""
        five = [torch.cat(each) for each in zip(*self._sums, strict=True)]
        return torch.stack([*five, torch.cat(self._positions).expand_as(five[0])])

    def noise(self, gain: Tensor, shift: Tensor, quiet: Tensor, axis: int) -> tuple[Noise, ...]:
        """Return what gain and shift leave of kept images; those that are not `quiet`, bool (images,), come last."""
        maps: dict[torch.Size, tuple[list[Tensor], list[Tensor]]] = {}
        for first, product, error in self._kept:
            left = error.float() - _along(gain, product, axis) * product.float() - _along(shift, product, axis)
            own, (calm, loud) = quiet[first : first + len(left)], maps.setdefault(left.shape[1:], ([], []))
            calm.append(left[own].bfloat16())
            loud.append(left[~own].bfloat16())
        return tuple(Noise(torch.cat([*calm, *loud]), sum(map(len, loud))) for calm, loud in maps.values())


def of_layers(seen: Sequence[tuple[Seen, int]], cells: Sequence[CellErrors | None]) -> list[Statistics]:
    """Return the statistics of layers in the order that they run, which all have seen the same images.

    Args:
        seen: of each layer, and the axis of its channels.
        cells: errors of its cells.
    """
    whole: Tensor | None = None  # images that have not overflowed so far
    statistics: list[Statistics] = []
    for (each, axis), errors in zip(seen, cells, strict=True):
        sums = each.sums()
        # A layer that runs twice for an image is asked about each of its calls.
        if whole is None or len(whole) != each.images or not bool(whole.any()):
            whole = torch.ones(each.images, dtype=torch.bool)
        before, fitted = int(whole.sum()), _fit(sums[:, whole])
        power = (sums[4] / sums[5]).mean(1)
        # The median of those left is below the mean that an overflow moves.
        over = whole & (power > max(_FAR * float(power[whole].median()), fitted.signal))
        if 0 < int(over.sum()) < before:
            whole = whole & ~over
            fitted = _fit(sums[:, whole])
        else:
            over = torch.zeros_like(over)
        noise = each.noise(fitted.gain, fitted.shift, whole, axis)
        share = int(over.sum()) / before
        statistics.append(Statistics(**vars(fitted), noise=noise, overflows=share, cells=errors))
    return statistics


@dataclass(frozen=True)
class _Fitted:
    gain: Tensor
    shift: Tensor
    signal: float
    power: float


def _fit(sums: Tensor) -> _Fitted:
    """Return the gain and shift of least squared error, and what they leave, from sums of images.

    A gain that is not known better than its own size is drawn towards 0: of a gain g with variance v, max(0, 1 - v /
    g^2) is kept (W. James and C. Stein, 1961).
    """
    x, e, xx, xe, ee, count = sums.sum(1)
    n = count.clamp(min=1)
    x, e, xx, xe, ee = x / n, e / n, xx / n, xe / n, ee / n
    var_x, var_e, both = (xx - x * x).clamp(min=0), (ee - e * e).clamp(min=0), xe - x * e
    # A product that hardly varies, against what its sums can be told apart by, has no gain.
    varies = var_x > 1e-10 * xx
    var_x = var_x.where(varies, torch.zeros_like(var_x))
    gain = (both / var_x).where(varies, torch.zeros_like(both))
    left = (var_e - gain * both).clamp(min=0)
    moved = varies & (gain != 0)
    kept = (1 - left / (n * var_x * gain.square())).where(moved, torch.zeros_like(gain)).clamp(min=0)
    gain = gain * kept
    left = (var_e - 2 * gain * both + gain.square() * var_x).clamp(min=0) * n / (n - 2).clamp(min=1)
    return _Fitted(
        gain=gain.float(),
        shift=(e - gain * x).float(),
        signal=float(((1 + gain).square() * var_x).mean()),
        power=float(left.mean()),
    )


def _along(channels: Tensor, like: Tensor, axis: int) -> Tensor:
    """One number for each channel, beside tensors whose channels are on this axis."""
    return channels.view(-1, *[1] * (like.dim() - 1 - axis % like.dim()))


def _half(x: Tensor) -> Tensor:
    return x.to("cpu", torch.bfloat16)
