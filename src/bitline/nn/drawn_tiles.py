"""Steps of training that convert a few row tiles of a layer, drawn at random, and stay right on average."""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bitline.mvm.torch_fast import exact
from bitline.nn.read import Read


def answer(layer: Any, x: Tensor, count: int) -> tuple[Tensor, Read]:
    """Answer as a layer does on average, from the conversions of `count` of its T row tiles.

    The chip answers sum C_t, each row tile t converted on its own. A plain product with the weights that the cells
    amount to is sum L_t, which costs little. Of the tiles D drawn, each as often as any other, the answer is

        sum L_t + T / count * sum over D of (C_t - L_t),

    whose mean over all draws is sum C_t, whatever L_t is. Its spread is that of what conversions add, times
    T (T - count) / count. Tiles are drawn with PyTorch's random numbers, as dropout is.

    Args:
        layer: a layer on a chip, in training.
        x: its input.
        count: of row tiles; a layer that has no more, no ADC, groups that share bitlines, or a zero point of its
            inputs, converts all.

    Returns:
        The answer, and what was read, for the gradient of ranges: all tiles.
    """
    crossbars = layer.crossbars(layer.chip, int(layer.chip_seed))
    tiles = crossbars.product.placement.row_tiles
    sorts = layer.whole_placement.together > 1 or crossbars.adapted
    if count >= tiles or not layer.converts or sorts or layer.input_zero:
        return layer.answer(x)
    drawn = sorted(torch.randperm(tiles)[:count].tolist())
    q = layer.integers(x)
    read: Read = layer.read(q, number=layer.number(x.shape[0]), tiles=drawn)
    if read.noise is None and exact(crossbars, read.scale):
        return layer.answer(x)
    bounds = crossbars.product.placement.row_bounds
    share = torch.ones(bounds[-1], device=x.device)
    for tile in drawn:
        share[bounds[tile] : bounds[tile + 1]] -= tiles / count
    w = layer.linear_weight()
    with torch.autocast(x.device.type, enabled=False):  # or the mean would be that of numbers rounded to bf16
        rest = layer.plain_answer(layer.fake_input(x).value, (w.flatten(1) * share).view_as(w), w.new_zeros(len(w)))
    converted = layer.real_product(layer.multiply(q, read), x)
    return rest.to(converted.dtype) + converted * (tiles / count), replace(read, crossbars=crossbars, plan=None)
