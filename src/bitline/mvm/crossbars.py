"""The crossbars of one layer: the type that every path of `mvm` multiplies by, its check and its shapes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from bitline.errors import MappingError
from bitline.mapping.encode import decode
from bitline.mvm.product import Product
from bitline.physics import noise as noises
from bitline.physics.noise import ReadNoise
from bitline.physics.normal import MOST
from bitline.physics.steps import RESOLUTION, in_levels

_EXACT_IN_FLOAT = 2**24

Observer = Callable[[Tensor, Tensor], None]
"""called with analog sums and codes, both (groups, digits, vectors, slices, sides, stored columns), of one row tile
after the other for a run of vectors, then for the next run; of absent crossbars both are 0"""


@dataclass(frozen=True)
class Crossbars:
    """The cells of one layer, laid out for large products.

    Args:
        product: the layer.
        cells: what each adds to its bitline, (groups, sides, slices, rows, stored columns): levels, uint8, or float32
            in whole multiples of `bitline.physics.steps.RESOLUTION`; or these multiples, int16.
        correction: what a layer subtracts after the product, see `bitline.programming.mean_error`; no product
            does.
        flipped: columns that hold their weights with the other sign, (groups, cols) bool, whose results a layer turns
            after the product, see `bitline.programming.remap`; no product here does. None: none.
    """

    product: Product
    cells: Tensor
    correction: Tensor | None = None
    flipped: Tensor | None = None

    @property
    def levels(self) -> Tensor:
        """What each cell adds to its bitline, levels, uint8 or float32."""
        return in_levels(self.cells)

    @property
    def adapted(self) -> bool:
        """Whether a layer does something to results of the product before they are its own."""
        return self.correction is not None or self.flipped is not None

    @property
    def integral(self) -> bool:
        """Whether every cell sits exactly on a level."""
        return self.cells.dtype == torch.uint8

    @cached_property
    def plans(self) -> dict[Any, Any]:
        """What other paths have prepared from the cells; not copied."""
        return {}

    def of_tiles(self, tiles: Sequence[int]) -> "Crossbars":
        """The same cells, of which only some row tiles are read."""
        return replace(self, product=replace(self.product, tiles=tuple(tiles)))

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "plans"}

    @cached_property
    def most(self) -> float:
        """No analog sum exceeds this, level units, nor does any part of it."""
        if self.integral or not self.cells.numel():
            return self.product.max_sum
        reach = self.levels.abs().sum(1)
        most = max(float(reach[:, :, a:b].sum(2).max()) for a, b in pairwise(self.product.placement.row_bounds))
        return most * self.product.max_digit

    @cached_property
    def real(self) -> torch.dtype:
        """Type that holds every analog sum without rounding, in whatever order it is added up."""
        return self.holds(*self.reach())

    def holds(self, most: float, unit: float) -> torch.dtype:
        """Type that holds whole multiples of `unit` up to `most`."""
        return torch.float32 if most <= _EXACT_IN_FLOAT * unit else torch.float64

    def reach(self, noise: ReadNoise | None = None) -> tuple[float, float]:
        """What no analog sum exceeds, nor its negative, and what all are whole multiples of; level units."""
        if noise is None:
            return self.most, 1 if self.integral else RESOLUTION
        variance = float(noise.cell_variance(in_levels(self.cells.max()))) if self.cells.numel() else 0.0
        sides = 2 if self.product.subtracts else 1
        power = self.product.max_rows * self.product.max_digit**2 * sides * variance
        farthest = noises.levels(torch.tensor(MOST), noises.steps(torch.tensor(power, dtype=torch.float64)))
        return self.most + float(farthest), RESOLUTION

    @cached_property
    def tiles(self) -> list[Tensor]:
        """One matrix per row tile, (groups, rows of the tile, slices * sides * stored columns), int8 or real."""
        levels = self.levels.to(torch.int16) if self.integral else self.levels
        small = self.integral and self.product.placement.chip.cell.bits < 8
        levels = levels[:, :1] - levels[:, 1:] if self.product.subtracts else levels
        return self._cut(levels.to(torch.int8 if small else self.real))

    @cached_property
    def columns(self) -> list[Tensor | None]:
        """Stored columns that some group has in each row tile, int64; None: all."""
        if self.product.built is None:
            return [None] * self.product.placement.row_tiles
        some = self.product.built.any(1)
        return [None if bool(tile.all()) else tile.nonzero().flatten().to(self.cells.device) for tile in some]

    @cached_property
    def built_tiles(self) -> list[Tensor]:
        """Matrices of `tiles`, of the stored columns that there are."""
        kinds = len(self.product.slice_weights) * len(self.product.side_weights)
        return [
            matrix if at is None else matrix.unflatten(2, (kinds, -1))[..., at].flatten(2).contiguous()
            for matrix, at in zip(self.tiles, self.columns, strict=True)
        ]

    @cached_property
    def lacking(self) -> list[Tensor | None]:
        """Which of these columns a group lacks that another has, bool, (groups, columns); None: no group does."""
        masks: list[Tensor | None] = []
        for tile, at in enumerate(self.columns):
            gone = None if self.product.built is None else ~self.product.built[tile].to(self.cells.device)
            gone = gone if gone is None or at is None else gone[:, at]
            masks.append(gone if gone is not None and bool(gone.any()) else None)
        return masks

    def variances(self, noise: ReadNoise) -> list[Tensor]:
        """Cell variances laid out as `tiles`, float64."""
        variance = noise.cell_variance(self.levels)
        return self._cut(variance.sum(1, keepdim=True) if self.product.subtracts else variance)

    def _cut(self, x: Tensor) -> list[Tensor]:
        """Cut (groups, sides, slices, rows, stored columns) into row tiles."""
        x = x.permute(0, 3, 2, 1, 4).flatten(2)
        return [x[:, a:b].contiguous() for a, b in pairwise(self.product.placement.row_bounds)]

    @cached_property
    def weights(self) -> Tensor:
        """Integer weights that the levels stand for, (groups, rows, cols); int8 where they fit, else float64."""
        w = decode(self.levels, self.product.placement)
        return w.to(torch.int8) if w.numel() and w.min() >= -128 and w.max() <= 127 else w


def check(x: Tensor, cells: Tensor, product: Product) -> None:
    """Raise MappingError where inputs or cells do not fit the layer."""
    matmul, placement = product.placement.matmul, product.placement
    wanted = (matmul.groups, placement.chip.sides, placement.chip.slices, matmul.rows, placement.stored_columns)
    if tuple(cells.shape) != wanted:
        raise MappingError(f"layer {matmul.name}: levels have shape {tuple(cells.shape)}; expected {wanted}")
    if x.dim() != 4 or tuple(x.shape[2:]) != (matmul.groups, matmul.rows):
        raise MappingError(
            f"layer {matmul.name}: inputs have shape {tuple(x.shape)}; "
            f"expected (images, positions, {matmul.groups}, {matmul.rows})"
        )
    low, high = product.form.limits
    if x.numel() and (int(x.min()) < low or int(x.max()) > high):
        raise MappingError(
            f"layer {matmul.name}: inputs span [{int(x.min())}, {int(x.max())}]; {product.form.bits} bits, "
            f"{'signed' if product.form.signed else 'unsigned'}, hold [{low}, {high}]"
        )


def noise_shape(product: Product) -> tuple[int, int, int, int, int]:
    """Conversions of a row tile: (groups, digits, slices, converted sides, stored columns)."""
    return (
        product.placement.matmul.groups,
        len(product.digit_weights),
        len(product.slice_weights),
        len(product.side_weights),
        product.placement.stored_columns,
    )
