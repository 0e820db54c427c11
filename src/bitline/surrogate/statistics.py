"""What conversions and cells add to the product of a layer: a gain, a shift and noise, for each of its outputs.

    answer = (1 + gain) product + shift + sigma z,    z normal, mean 0, variance 1

`product` is the plain product of quantized inputs with the weights that the programmed cells amount to. Gain and shift
are those of least squared error, so that what remains is uncorrelated with the product: the decomposition of J.
Bussgang (1952) for a nonlinear device, here the ADCs of all row tiles, digits and slices of an output together. A
coarse LSB, which turns small sums to zero, and a range that clips large ones show as a gain below 0 and a shift.

A few images may overflow: one sum beyond a narrow range of a high digit swamps all of an output map. What they add is
no part of the noise of the others. Their share is counted, and as many images get noise of that power.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

LEAST_SNR = 1.0
"""power of a layer's product over that of its noise, below which the surrogate is not to be trusted: what the ADCs make
of the sums then says more about an answer than the product does, and is no noise but another function of the inputs"""
FEWEST_IMAGES = 32
"""that statistics are trusted of: what is fitted to a few images leaves too little noise"""
MOST_OVERFLOWS = 0.25
"""share of images that overflow in some layer, above which it is not to be trusted either"""
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
class Statistics:
    """What is added to the product of one layer.

    Args:
        gain: (outputs,).
        shift: units of the layer's output, (outputs,).
        sigma: the same.
        signal: variance of the product with its gain, mean over the outputs.
        noise: mean of sigma squared.
        overflows: share of images that overflow here and in no layer before.
        excess: their noise over that of the others, in amplitude.
        cells: errors of cells; None where they are ideal.
    """

    gain: Tensor
    shift: Tensor
    sigma: Tensor
    signal: float
    noise: float
    overflows: float = 0.0
    excess: float = 1.0
    cells: CellErrors | None = None

    @property
    def snr(self) -> float:
        """Power of the product over that of the noise."""
        return self.signal / self.noise if self.noise else math.inf


@dataclass(frozen=True)
class Surrogate:
    """The statistics of a network on a chip.

    Args:
        layers: by name, in the order that they run.
        exact: layers that have none, since groups share their bitlines; they are simulated exactly.
        images: that all was measured on.
    """

    layers: Mapping[str, Statistics]
    exact: tuple[str, ...]
    images: int

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
        enough = self.images >= FEWEST_IMAGES
        return enough and not self.noisy and self.overflows <= MOST_OVERFLOWS


def to_plain(surrogate: Surrogate) -> dict[str, Any]:
    """Return tensors and plain values alone, as a checkpoint holds them."""
    layers: dict[str, Any] = {}
    for name, own in surrogate.layers.items():
        layers[name] = {**vars(own), "cells": None if own.cells is None else dict(vars(own.cells))}
    return {"layers": layers, "exact": list(surrogate.exact), "images": surrogate.images}


def from_plain(content: Mapping[str, Any]) -> Surrogate:
    """Return the surrogate that `to_plain` gave."""
    layers: dict[str, Statistics] = {}
    for name, own in content["layers"].items():
        cells: dict[str, Any] | None = own["cells"]
        values: dict[str, Any] = {**own, "cells": None if cells is None else CellErrors(**cells)}
        layers[name] = Statistics(**values)
    return Surrogate(layers, tuple(content["exact"]), content["images"])


@dataclass
class Moments:
    """Sums over the positions of each image, from which statistics of a layer follow; float64, (images, outputs)."""

    positions: list[Tensor] = field(default_factory=list[Tensor])
    parts: list[tuple[Tensor, ...]] = field(default_factory=list[tuple[Tensor, ...]])

    def add(self, product: Tensor, error: Tensor) -> None:
        """Add products and what the chip answered beyond them, both (images, positions, outputs)."""
        x, e = product.double(), error.double()
        self.positions.append(torch.full((len(x), 1), float(x.shape[1]), dtype=torch.float64))
        self.parts.append(tuple(each.sum(1).cpu() for each in (x, e, x * x, x * e, e * e)))

    def sums(self) -> Tensor:
        """Sums of product, error, and the products of both, and the count, (6, images, outputs)."""
        five = [torch.cat(each) for each in zip(*self.parts, strict=True)]
        return torch.stack([*five, torch.cat(self.positions).expand_as(five[0])])


def of_layers(moments: Sequence[Moments], cells: Sequence[CellErrors | None]) -> list[Statistics]:
    """Return the statistics of layers in the order that they run, which all have seen the same images."""
    whole: Tensor | None = None  # images that have not overflowed so far
    statistics: list[Statistics] = []
    for each, errors in zip(moments, cells, strict=True):
        sums = each.sums()
        whole = torch.ones(sums.shape[1], dtype=torch.bool) if whole is None else whole
        if len(whole) != sums.shape[1]:  # a layer that runs twice for an image is asked about each of its calls
            whole = torch.ones(sums.shape[1], dtype=torch.bool)
        before = int(whole.sum())
        power = (sums[4] / sums[5]).mean(1)
        own = _statistics(sums[:, whole], errors)
        # The median of those left is below the mean that an overflow moves.
        limit = max(_FAR * float(power[whole].median()), own.signal) if before else math.inf
        over = whole & (power > limit)
        if bool(over.any()) and int(over.sum()) < before:
            whole = whole & ~over
            own = _statistics(sums[:, whole], errors)
            excess = math.sqrt(float(power[over].mean()) / own.noise) if own.noise else 1.0
            own = replace(own, overflows=int(over.sum()) / before, excess=excess)
        statistics.append(own)
    return statistics


def _statistics(sums: Tensor, cells: CellErrors | None) -> Statistics:
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
    return Statistics(
        gain=gain.float(),
        shift=(e - gain * x).float(),
        sigma=left.sqrt().float(),
        signal=float(((1 + gain).square() * var_x).mean()),
        noise=float(left.mean()),
        cells=cells,
    )
