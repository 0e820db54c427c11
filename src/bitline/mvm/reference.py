"""The product of a crossbar in plain loops: the specification, slow and obvious.

Every other path gives these numbers, bit for bit. Levels, and what noise adds to their sums, are whole multiples of
`bitline.physics.steps.RESOLUTION`, so sums are exact in any order, and whether one lies on a middle between two codes
is decided exactly: such ties go to the even code.
"""

from typing import Any

import torch
from torch import Tensor

from bitline.mapping.encode import column_tiles
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import check, noise_shape
from bitline.mvm.product import Product
from bitline.physics import noise as noises
from bitline.physics.noise import ReadNoise


def crossbar_mvm(
    x: Tensor, levels: Tensor, product: Product, scale: AdcScale, *, noise: ReadNoise | None = None
) -> Tensor:
    """Multiply integer activations by the crossbars of one layer, one input digit per cycle.

    Cells multiply (Ohm), bitlines add (Kirchhoff), the ADC rounds and clips, and shift-and-add
    weighs each code by its input digit and its weight slice. An absent crossbar adds nothing.

    Args:
        x: integers within the input format, (images, positions, groups, rows).
        levels: what each cell adds to its bitline, level units, (groups, sides, slices, rows, stored columns).
        product: the layer.
        scale: ranges of its ADCs.
        noise: of the reads; none if absent.

    Returns:
        weight x activation units, float64, (images, positions, groups, cols).

    Raises:
        MappingError: x and levels disagree with the layer.
    """
    matmul, bounds = product.placement.matmul, product.placement.row_bounds
    check(x, levels, product)
    images, positions = x.shape[:2]
    stored, tiles = product.placement.stored_columns, product.placement.row_tiles
    home = column_tiles(product.placement).tolist()
    home += range(stored - matmul.cols)
    y = torch.zeros(images, positions, matmul.groups, matmul.cols, dtype=torch.float64)
    shape = (matmul.groups, len(product.digit_weights), len(product.slice_weights), stored)
    lsb, offset = scale.lsb.expand(shape).tolist(), scale.offset.expand(shape).tolist()
    cells, variance = levels.double().tolist(), noise.cell_variance(levels).tolist() if noise else None

    for image in range(images):
        for position in range(positions):
            drawn = [_draw(noise, x, product, image, position, tile) for tile in range(tiles)] if noise else []
            for group in range(matmul.groups):
                vector = x[image, position, group].tolist()
                total = [0.0] * stored
                for column in range(stored):
                    there = [t for t in range(tiles) if (group, t, home[column]) not in product.placement.absent]
                    for p, digit_weight in enumerate(product.digit_weights):
                        for s, slice_weight in enumerate(product.slice_weights):
                            step, zero = lsb[group][p][s][column], offset[group][p][s][column]
                            for k, side_weight in enumerate(product.side_weights):
                                codes = 0.0
                                for tile in there:
                                    a = power = 0.0
                                    for row in range(bounds[tile], bounds[tile + 1]):
                                        digit = _digit(vector[row], p, product)
                                        a += digit * _cell(cells, group, k, s, row, column, product)
                                        if variance:
                                            power += digit**2 * _spread(variance, group, k, s, row, column, product)
                                    if noise:
                                        a += _noise(drawn[tile][group][p][s][k][column], power)
                                    code = float(round((a - zero) / step))
                                    if scale.low is not None and scale.high is not None:
                                        code = min(max(code, scale.low), scale.high)
                                    codes += code
                                weight = digit_weight * slice_weight * side_weight
                                total[column] += weight * (codes * step + len(there) * zero)
                    read = sum(sum(vector[bounds[t] : bounds[t + 1]]) for t in there)
                    total[column] -= product.digital_offset * read
                for column in range(matmul.cols):
                    away = 0.0
                    if stored > matmul.cols:
                        away = total[matmul.cols + home[column]]
                    y[image, position, group, column] = total[column] - away
    return y


def _digit(value: int, p: int, product: Product) -> int:
    """Digit p of an integer; the last digit of a signed one is its sign bit."""
    width, form = product.placement.chip.dac.bits, product.form
    if form.signed and p == len(product.digit_weights) - 1:
        return int(value < 0)
    body = form.bits - form.signed
    return ((value % 2**body) >> (p * width)) % 2**width


def _cell(cells: Any, group: int, k: int, s: int, row: int, column: int, product: Product) -> float:
    if product.subtracts:
        return cells[group][0][s][row][column] - cells[group][1][s][row][column]
    return cells[group][k][s][row][column]


def _spread(variance: Any, group: int, k: int, s: int, row: int, column: int, product: Product) -> float:
    if product.subtracts:
        return variance[group][0][s][row][column] + variance[group][1][s][row][column]
    return variance[group][k][s][row][column]


def _draw(noise: ReadNoise, x: Tensor, product: Product, image: int, position: int, tile: int) -> Any:
    vector = torch.tensor([image * x.shape[1] + position])
    return noise.draw(vector, x.shape[1], tile, noise_shape(product))[:, :, 0].tolist()


def _noise(z: int, power: float) -> float:
    return float(noises.levels(torch.tensor(z), noises.steps(torch.tensor(power, dtype=torch.float64))))
