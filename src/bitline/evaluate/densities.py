"""What data-dependent energy needs to know of inputs and weights."""

from typing import cast

from torch import Tensor, nn

from bitline.cost.events import Densities
from bitline.evaluate.visit import on_each_layer
from bitline.mapping.lower import Lowerable, input_rows
from bitline.mapping.quantize import digits
from bitline.nn import IDEAL
from bitline.nn.layers import CrossbarLayer


def measure(model: nn.Module, images: Tensor) -> dict[str, Densities]:
    """Measure the digits that enter every layer, and the levels its cells hold.

    Args:
        model: converted and calibrated.
        images: normalized, (batch, ...).
    """
    return on_each_layer(model, images, _one_layer)


def _one_layer(layer: CrossbarLayer, x: Tensor) -> Densities:
    rows = input_rows(cast("Lowerable", layer), layer.integers(x))
    planes = digits(rows, layer.input_format, layer.chip.dac.bits).flatten(1).double()
    levels = layer.crossbars(layer.chip, IDEAL).levels.double()
    cells = (layer.placement.read_cells or levels.numel()) / layer.chip.slices
    return Densities(
        digit_mean=planes.mean(1).tolist(),
        digit_square_mean=planes.square().mean(1).tolist(),
        level_mean=(levels.sum((0, 1, 3, 4)) / cells).tolist(),
    )
