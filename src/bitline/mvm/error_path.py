"""What errors of cells add to a product, apart from the product itself.

    y = exact product + E
    E = sum_p weight_p sum_s weight_s sum_t Round(sum over the rows of tile t of digit_p (c' - c)_s)

c is the level that a cell was given, c' what it adds to its bitline. That is the "error path" of CRIMP (Huai et al.,
ACM TECS 2023), which keeps errors out of the gradient. It holds for an ADC that rounds to whole levels, since
Round(n + e) = n + Round(e) for a whole n. Where e lies in the middle of two levels, ties to even make it depend on
whether n is odd; the parity of n is then computed beside it, so that E is exact and not nearly so.
"""

import torch
from torch import Tensor

from bitline.errors import MappingError
from bitline.mapping.encode import column_tiles, decode
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.torch_fast import analog_sums


def error(x: Tensor, crossbars: Crossbars, targets: Tensor) -> Tensor:
    """Return what the errors of cells add to the exact product.

    Args:
        x: integers within the input format, (images, positions, groups, rows).
        crossbars: the programmed layer.
        targets: the level that each cell was given, the shape of `crossbars.cells`, integers.

    Returns:
        weight x activation units, float64, (images, positions, groups, cols).

    Raises:
        MappingError: an ADC that does not round to whole levels, or targets of another shape.
    """
    _check(crossbars, targets)
    product = crossbars.product
    tiles, placement = product.placement.row_tiles, product.placement
    off = Crossbars(product, (crossbars.levels.double() - targets.double()).float())
    odd = Crossbars(product, targets.to(torch.uint8))
    digit = torch.tensor(product.digit_weights, dtype=torch.float64, device=x.device)
    weights = digit[:, None] * torch.tensor(product.slice_weights, dtype=torch.float64, device=x.device)
    sides = torch.tensor(product.side_weights, dtype=torch.float64, device=x.device)
    runs: list[Tensor] = []
    for number, (e, n) in enumerate(zip(analog_sums(x, off), analog_sums(x, odd), strict=True)):
        # (groups, digits, vectors, slices, sides, columns) to (vectors, groups, columns)
        part = torch.einsum("gpvskc,ps,k->vgc", _rounded(e.double(), n.double()), weights, sides)
        if number % tiles:
            runs[-1] += part
        else:
            runs.append(part)
    total = torch.cat(runs).view(*x.shape[:3], -1)
    cols = placement.matmul.cols
    if placement.stored_columns > cols:
        total = total[..., :cols] - total[..., cols:].index_select(-1, column_tiles(placement, x.device))
    return total


def _rounded(e: Tensor, n: Tensor) -> Tensor:
    """Return Round(n + e) - n of whole n, ties to even."""
    below = e.floor()
    return torch.where(e - below == 0.5, below + (n + below).remainder(2), e.round())


def linear_error(x: Tensor, weight_error: Tensor) -> Tensor:
    """Return the error path to first order: what `error` is if the ADC rounded nothing.

    Args:
        x: (images, positions, groups, rows), integers or real.
        weight_error: from `weight_errors`, (groups, rows, cols).

    Returns:
        The units of both multiplied, of the type of `weight_error`, (images, positions, groups, cols).
    """
    return torch.einsum("ipgr,grc->ipgc", x.to(weight_error.dtype), weight_error)


def weight_errors(crossbars: Crossbars, targets: Tensor) -> Tensor:
    """Return how far the programmed weights are from those that were asked for, float64, (groups, rows, cols)."""
    placement = crossbars.product.placement
    return decode(crossbars.levels, placement) - decode(targets, placement)


def _check(crossbars: Crossbars, targets: Tensor) -> None:
    placement = crossbars.product.placement
    policy = placement.chip.adc.policy
    if policy != "lossless":
        raise MappingError(
            f"layer {placement.matmul.name}: adc.policy = {policy!r}; the error path holds for an ADC that rounds to "
            "whole levels and never clips: 'lossless'"
        )
    if targets.shape != crossbars.cells.shape:
        raise MappingError(
            f"layer {placement.matmul.name}: targets have shape {tuple(targets.shape)}; "
            f"expected {tuple(crossbars.cells.shape)}"
        )
