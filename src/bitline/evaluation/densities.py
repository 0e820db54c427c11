"""What data-dependent energy needs to know of inputs and weights."""

from typing import cast

import torch
from torch import Tensor, nn

from bitline.cost.events import Densities
from bitline.evaluation.each_layer import on_each_layer
from bitline.mapping.lower import Lowerable, input_rows
from bitline.mapping.place import LayerPlacement
from bitline.mapping.quantize import digits
from bitline.network.inputs import Inputs
from bitline.nn import IDEAL
from bitline.nn.layer import CrossbarLayer


def measure(model: nn.Module, images: Inputs) -> dict[str, Densities]:
    """Measure the digits that enter every layer, and the levels its cells hold.

    Args:
        model: converted and calibrated.
        images: normalized, (batch, ...).
    """
    return on_each_layer(model, images, _one_layer)


def _one_layer(layer: CrossbarLayer, x: Tensor) -> Densities:
    rows = input_rows(cast("Lowerable", layer), layer.integers(x))
    planes = digits(rows, layer.input_format, layer.chip.dac.bits).flatten(1, 2).double()
    levels = layer.crossbars(layer.chip, IDEAL).levels.double()
    cells = (layer.placement.read_cells or levels.numel()) / layer.chip.slices
    share = _driven(layer.placement).to(planes.device)
    return Densities(
        digit_mean=(planes.mean(1) * share).sum((1, 2)).tolist(),
        digit_square_mean=(planes.square().mean(1) * share).sum((1, 2)).tolist(),
        level_mean=(levels.sum((0, 1, 3, 4)) / cells).tolist(),
    )


def _driven(placement: LayerPlacement) -> Tensor:
    """Share of each row in the wordlines that reads select, (groups, rows); fewer where a crossbar is absent."""
    groups, rows = placement.matmul.groups, placement.matmul.rows
    columns = torch.full((groups, rows), float(placement.col_tiles), dtype=torch.float64)
    for group, tile, _ in placement.absent:
        columns[group, placement.row_bounds[tile] : placement.row_bounds[tile + 1]] -= 1
    return columns / columns.sum().clamp(min=1)
