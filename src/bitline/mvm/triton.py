"""The product of a crossbar on a GPU, in one Triton kernel.

Every analog sum is an integer: whole levels, or whole multiples of `RESOLUTION`. Cells are cut into signed bytes and
input digits are bytes, so tensor cores add them up exactly in int32. A sum becomes its code in registers, where codes
weighed by digit and slice add up as integers too. Neither digits nor sums nor codes ever reach memory.

Rounding a sum to its code takes one float32 multiply-add and one addition. The multiply-add rounds its place among the
codes to as many binary places as exact codes need (see `bitline.mvm.adc`), and the addition rounds that to even. Where
float32 has too few places, the layer does not fit.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from bitline.errors import BitlineError, MappingError
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars, check
from bitline.mvm.torch_fast import digital_sum, exact, integer_product
from bitline.mvm.triton_kernel import available, interpreted, product_kernel, tuned
from bitline.physics.steps import RESOLUTION

_ZERO, _ZERO_BITS = 1.5 * 2**23, 0x4B400000
"""a float32, and the integer of the same bits; from one float around it to the next, both grow by one"""
_EXACT_BITS = 23
_LARGEST_BYTE = 127


def why_not(crossbars: Crossbars, scale: AdcScale) -> str | None:
    """Say in a sentence why a layer does not fit the kernel; None if it does."""
    return Layout(crossbars, scale).obstacle


def crossbar_mvm(x: Tensor, crossbars: Crossbars, scale: AdcScale, *, shortcut: bool = True) -> Tensor:
    """Multiply integer activations by the crossbars of one layer, on the GPU that holds them.

    The same numbers as `bitline.mvm.torch_fast.crossbar_mvm` without noise, bit for bit.

    Args:
        x: integers within the input format, (images, positions, groups, rows).
        crossbars: the programmed layer.
        scale: ranges of its ADCs.
        shortcut: take one integer product where no conversion can round or clip.

    Returns:
        weight x activation units, float64, (images, positions, groups, cols).

    Raises:
        MappingError: x and levels disagree with the layer, or `why_not` says why the layer does not fit.
        BitlineError: not `available`, or inputs on no GPU.
    """
    if shortcut and exact(crossbars, scale):
        check(x, crossbars.cells, crossbars.product)
        return integer_product(x, crossbars)
    return Layout(crossbars, scale).multiply(x)


@dataclass(frozen=True)
class Ranges:
    """Ranges of a layer's ADCs for the kernel, each (groups or 1, digits, planes, stored columns or 1) unless said.

    A plane is one converted side of one slice; a unit of a sum is a level, or `RESOLUTION` where levels are real.

    Args:
        inverse: codes per unit of a sum, float32.
        offset: units of a sum, int32.
        factor: what a code adds to the result of its digit, units of a result; int32 if such results fit, else int64.
        start: what makes up for codes that count from `_ZERO_BITS`, modulo the width of `factor`, without planes.
        weight: of each digit, int32, (digits,).
        constant: what offsets add to the result, units of a result, int64, (groups, stored columns).
        unit: of a result, weight x activation units; a power of two.
    """

    inverse: Tensor
    offset: Tensor
    factor: Tensor
    start: Tensor
    weight: Tensor
    constant: Tensor
    unit: float


@dataclass(frozen=True)
class Layout:
    """A layer's cells and ranges as the kernel reads them; keep it to multiply by the same layer again.

    Args:
        crossbars: the programmed layer.
        scale: ranges of its ADCs.
    """

    crossbars: Crossbars
    scale: AdcScale

    @property
    def grain(self) -> int:
        """Units of a sum in one level."""
        return 1 if self.crossbars.integral else round(1 / RESOLUTION)

    @cached_property
    def block_rows(self) -> int:
        """Wordlines that are added up at once; as many as waste the fewest on padding."""
        rows = self.crossbars.product.max_rows
        return min((256, 128, 64, 32), key=lambda block: math.ceil(rows / block) * block)

    @cached_property
    def _planes(self) -> Tensor:
        """Cells, units of a sum, int64, (groups, planes, stored columns, rows)."""
        units = (self.crossbars.levels.double() * self.grain).long()
        units = units[:, :1] - units[:, 1:] if self.crossbars.product.subtracts else units
        return units.permute(0, 2, 1, 4, 3).flatten(1, 2)

    @cached_property
    def parts(self) -> int:
        """Signed bytes that hold any cell."""
        most = int(self._planes.abs().max()) if self._planes.numel() else 0
        return next(n for n in range(1, 9) if most <= _LARGEST_BYTE * ((256**n - 1) // 255))

    @cached_property
    def cells(self) -> Tensor:
        """Cells cut into signed bytes, highest first, (groups, row tiles, planes, parts, stored columns, height).

        Height is that of the tallest row tile, padded to whole blocks.
        """
        bounds, rest = self.crossbars.product.placement.row_bounds, self._planes
        groups, planes, columns, _ = rest.shape
        height = math.ceil(self.crossbars.product.max_rows / self.block_rows) * self.block_rows
        shape = (groups, len(bounds) - 1, planes, self.parts, columns, height)
        cells = torch.zeros(shape, dtype=torch.int8, device=rest.device)
        for part in reversed(range(self.parts)):
            low = rest.to(torch.int8)
            for tile, (a, b) in enumerate(pairwise(bounds)):
                cells[:, tile, :, part, :, : b - a] = low[..., a:b]
            rest = (rest - low) >> 8
        return cells

    @cached_property
    def _steps(self) -> tuple[Tensor, Tensor]:
        """LSBs and offsets on the CPU, level units, float64."""
        return self.scale.lsb.double().cpu(), self.scale.offset.double().cpu()

    @cached_property
    def _odd(self) -> Tensor:
        """LSBs without their powers of two."""
        return self.scale.odd.cpu()

    @cached_property
    def reach(self) -> tuple[int, int]:
        """Lowest and highest code that any sum would have without clipping."""
        (lsb, offset), most = self._steps, self.crossbars.most
        least = 0 if self.crossbars.integral and not self.crossbars.product.subtracts else -most
        return math.floor(((least - offset) / lsb).min()) - 1, math.ceil(((most - offset) / lsb).max()) + 1

    @property
    def codes(self) -> tuple[int, int]:
        """Lowest and highest code that any sum can have."""
        low, high = self.scale.low, self.scale.high
        least, most = self.reach
        return (least, most) if low is None or high is None else (min(max(low, least), high), max(min(high, most), low))

    @cached_property
    def _most(self) -> float:
        """No sum less its offset exceeds this, units of a sum."""
        return (self.crossbars.most + float(self._steps[1].abs().max())) * self.grain

    @cached_property
    def places(self) -> int | None:
        """Binary places of a position that make its code exact; None if float32 has too few."""
        (low, high), steps = self.codes, torch.maximum(self._odd, self._steps[0] * self.grain)
        places = math.ceil(math.log2(float(steps.max()))) + 1
        fits = (high - low) // 2 < 2 ** (22 - places) and max(-low, high) < 2 ** (23 - places)
        return places if fits and self._most < 2**_EXACT_BITS else None

    @cached_property
    def ranges(self) -> Ranges:
        """Ranges of the ADCs, on the device of the cells."""
        product, placement = self.crossbars.product, self.crossbars.product.placement
        digits = torch.tensor(product.digit_weights, dtype=torch.float64)
        planes = torch.tensor([s * k for s in product.slice_weights for k in product.side_weights], dtype=torch.float64)
        shape = (-1, len(digits), len(product.slice_weights), -1)
        lsb, offset = (t.expand(shape).repeat_interleave(len(product.side_weights), 2) for t in self._steps)
        unit = min(1.0, float((self._steps[0] / self._odd).min()))
        factor = lsb * planes[:, None] / unit
        constant = torch.einsum("gpkc,p,k->gc", offset, digits, planes) * (placement.row_tiles / unit)
        most = float(factor.abs().sum(2).max()) * max(map(abs, self.codes))
        width = torch.int32 if most < 2**31 else torch.int64

        def ready(x: Tensor, dtype: torch.dtype) -> Tensor:
            return x.to(dtype).contiguous().to(self.crossbars.cells.device)

        return Ranges(
            inverse=ready(1 / (lsb * self.grain), torch.float32),
            offset=ready(offset * self.grain, torch.int32),
            factor=ready(factor, width),
            start=ready(-_ZERO_BITS * factor.long().sum(2), width),
            weight=ready(digits, torch.int32),
            constant=ready(constant.expand(placement.matmul.groups, placement.stored_columns), torch.int64),
            unit=unit,
        )

    @cached_property
    def obstacle(self) -> str | None:
        """Why the layer does not fit the kernel, in a sentence; None if it does."""
        product, (lsb, offset) = self.crossbars.product, self._steps
        if product.built is not None:
            return f"{product.placement.removed} of its crossbars are not built; this kernel reads all"
        if product.max_digit > _LARGEST_BYTE:
            return f"input digits of {product.placement.chip.dac.bits} bits exceed the 7 bits of a signed byte"
        if self.parts > 3:
            return f"a cell of {float(self.crossbars.levels.abs().max()):g} levels exceeds three signed bytes"
        if not bool((torch.isfinite(lsb) & (lsb > 0) & (self._odd == self._odd.round())).all()):
            return "an LSB is not a positive number of at most 10 significant bits"
        if not bool((offset == offset.round()).all()):
            return "an offset is not a whole number of levels"
        if self._most >= 2**_EXACT_BITS:
            return f"sums of up to {self._most / self.grain:g} levels need more than {_EXACT_BITS} bits"
        largest = max(map(abs, self.codes))
        if self.places is None:
            return f"float32 does not tell codes of up to {largest} from their middles at an LSB of {lsb.max():g}"
        ranges, tiles = self.ranges, product.placement.row_tiles
        most = torch.einsum("gpkc,p->gc", ranges.factor.double().abs(), ranges.weight.double().abs()) * largest * tiles
        if float((most + ranges.constant.double().abs()).max()) >= 2**53:
            return "results need more than the 53 bits of a double"
        return None

    def multiply(self, x: Tensor) -> Tensor:
        """Multiply integers, (images, positions, groups, rows), without a shortcut; see `crossbar_mvm`."""
        product = self.crossbars.product
        placement = product.placement
        check(x, self.crossbars.levels, product)
        if self.obstacle:
            raise MappingError(f"layer {placement.matmul.name} does not fit the Triton kernel: {self.obstacle}")
        if not available() or not (x.is_cuda or interpreted()):
            raise BitlineError(f"inputs are on {x.device}; the kernel needs Triton and a GPU, torch_fast does not")
        images, positions, groups, rows = x.shape
        flat, cols = x.reshape(-1, groups, rows), placement.matmul.cols
        y = torch.empty(len(flat), groups, placement.stored_columns, dtype=torch.float64, device=x.device)
        if y.numel():
            self._launch(flat, y)
        return digital_sum(y, flat, product).view(images, positions, groups, cols)

    def _launch(self, x: Tensor, y: Tensor) -> None:
        """Multiply x, (vectors, groups, rows), into y, (vectors, groups, stored columns)."""
        product, ranges = self.crossbars.product, self.ranges
        vectors, (groups, tiles, planes, parts, columns, height) = len(y), self.cells.shape
        kind = torch.uint8 if product.form.bits <= 8 else torch.int16
        inputs = torch.empty(vectors, groups, tiles, height, dtype=kind, device=x.device)
        # What the padding holds does not matter: its cells are zero.
        for tile, (a, b) in enumerate(pairwise(product.placement.row_bounds)):
            inputs[:, :, tile, : b - a] = x[..., a:b]
        (low, high), (least, most) = self.codes, self.reach
        # Position 0; the middle of the codes lies amid the floats that are `places` apart.
        near = 1.5 * 2 ** (23 - (self.places or 0)) - (low + high + 1) // 2

        def grid(block: dict[str, int]) -> tuple[int]:
            return (math.ceil(vectors / block["block_m"]) * math.ceil(columns / block["block_n"]) * groups,)

        kernel, blocks = (product_kernel, {"block_m": 16, "block_n": 16}) if interpreted() else (tuned(), {})
        with torch.cuda.device_of(y):
            kernel[grid](
                inputs.view(torch.int32),
                self.cells,
                ranges.inverse,
                ranges.offset,
                ranges.factor,
                ranges.start,
                ranges.weight,
                ranges.constant,
                y,
                vectors,
                groups,
                columns,
                tiles,
                len(product.digit_weights),
                planes,
                height,
                product.form.bits - product.form.signed,
                product.placement.chip.dac.bits,
                near,
                near + low,
                near + high,
                _ZERO - near,
                ranges.unit,
                lanes=4 // inputs.itemsize,
                parts=parts,
                block_k=self.block_rows,
                one_step=height == self.block_rows,
                by_group=ranges.factor.shape[0] > 1,
                by_column=ranges.factor.shape[3] > 1,
                shifted=bool(self._steps[1].any()),
                clips_low=low > least,
                clips_high=high < most,
                enable_fp_fusion=False,
                **blocks,
            )
