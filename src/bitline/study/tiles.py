"""Lesson 1, the experiment: one layer, one LSB, and rows cut into more and more tiles."""

from typing import Any

import torch
from torch import Tensor

from bitline.chip.variants import ideal
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.paths import crossbar_mvm
from bitline.mvm.torch_fast import integer_product
from bitline.nn import IDEAL, crossbar_layers
from bitline.study.plan import at_height
from bitline.study.subject import Subject

_MOST_CONVERSIONS = 2**25


@torch.no_grad()
def measure(subject: Subject, name: str, rows: int) -> dict[str, Any]:
    """Measure a layer whose crossbars drive `rows` wordlines at once, with the LSBs that its ADCs have on the chip.

    Cells are ideal, inputs exact, and codes have no ends, so that rounding is all there is. Powers are over that of
    the exact output. ``predicted`` adds up independent errors of LSB^2 / 12: one for each row tile, input digit, slice
    and side of a pair, by the square of what it weighs.

    Args:
        subject: the network.
        name: of the layer.
        rows: wordlines driven at once.
    """
    layer = crossbar_layers(subject.on(subject.chip).model)[name]
    q = layer.integers(subject.inputs()[name])
    scale = layer.read(q, subject.chip, IDEAL).scale
    endless = AdcScale(scale.lsb, torch.zeros_like(scale.lsb), None, None)
    crossbars = layer.crossbars(ideal(at_height(subject.chip, rows)), IDEAL)
    placed = crossbars.product.placement
    vectors = _some(layer.input_vectors(q), _MOST_CONVERSIONS // max(1, placed.conversions_per_vector))
    exact = integer_product(vectors, crossbars)
    error = crossbar_mvm(vectors, crossbars, endless) - exact
    signal = float(exact.square().mean()) or 1.0
    return {
        "row_tiles": placed.row_tiles,
        "power": float(error.square().mean()) / signal,
        "predicted": predicted(endless, crossbars) / signal,
        "lsb": float(scale.lsb.median()),
    }


def predicted(scale: AdcScale, crossbars: Crossbars) -> float:
    """Error power of a result if every conversion erred alone by LSB^2 / 12, weight x activation units.

    An LSB of one level makes no error. A reference column errs as a weight column does.
    """
    product = crossbars.product
    placed = product.placement
    digit = torch.tensor(product.digit_weights, dtype=torch.float64)[:, None]
    slices = torch.tensor(product.slice_weights, dtype=torch.float64)
    weights = (digit * slices).square()[None, :, :, None]  # (1, digits, slices, 1), as the ranges
    lsb = scale.lsb.double().to("cpu")
    each = torch.where(lsb > 1, lsb.square() / 12, torch.zeros_like(lsb))
    power = (weights * each).sum((1, 2)).mean()
    columns = 1 + placed.chip.reference_columns
    return float(power) * placed.row_tiles * len(product.side_weights) * columns


def _some(vectors: Tensor, most: int) -> Tensor:
    """At most so many of the input vectors (images, positions, groups, rows), evenly spread: (1, vectors, ...)."""
    flat = vectors.reshape(1, -1, *vectors.shape[2:])
    return flat[:, :: max(1, -(-flat.shape[1] // max(1, most)))]
