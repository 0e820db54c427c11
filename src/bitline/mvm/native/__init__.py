"""The product of a crossbar in C++, for CPUs: which paths there are here, and plans that run on them.

A path is one instruction set's version of the same engine. Each gives the numbers of `bitline.mvm.reference`, bit for
bit.
"""

import math
import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from bitline.errors import MappingError, nearest
from bitline.mapping.encode import column_tiles
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.physics import kernels
from bitline.physics.noise import ReadNoise

try:
    from bitline.mvm.native import _native  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
except ImportError as error:
    _native: Any = None
    _missing = str(error)
else:
    _missing = ""
kernels.native = _native

TENSOR = "tensor"
"""name of the path that is no native one: `bitline.mvm.torch_fast`"""
VARIABLE = "BITLINE_PATH"
"""environment variable that chooses the path; the fastest where it is unset"""


def paths() -> list[str]:
    """Native paths that this processor runs, fastest first; none if the kernels are not built."""
    return _native.paths() if _native else []


def threads() -> str:
    """Say where the threads of products come from: ``"OpenMP of PyTorch"``, or ``"new threads"`` for each of them."""
    return _native.threads() if _native else "OpenMP of PyTorch"


def chosen_path() -> str:
    """Path that products on the CPU take: the fastest one, or what the environment says.

    Raises:
        MappingError: the environment names a path that does not run here.
    """
    here = [*paths(), TENSOR]
    wanted = os.environ.get(VARIABLE) or here[0]
    if wanted not in here:
        raise MappingError(
            f"{VARIABLE} = {wanted!r} does not run here{nearest(wanted, here)}; allowed: {', '.join(here)}"
        )
    return wanted


def why_not(crossbars: Crossbars, device: torch.device, noise: ReadNoise | None = None) -> str | None:
    """Say why a layer's product cannot run on a native path, or None; `Plan` may still refuse its sums."""
    form = crossbars.product.form
    if _native is None:
        return "the native kernels are not built here"
    if device.type != "cpu":
        return f"its tensors are on {device}, native kernels run on the CPU"
    if form.bits > 8:
        return f"inputs of {form.bits} bits; native kernels take up to 8"
    if noise is not None and noise.proportional:
        return "read noise in proportion to conductance; native kernels draw noise of one variance for all cells"
    return None


class Plan:
    """One layer's crossbars and ADC ranges, packed for a path.

    Args:
        crossbars: the programmed layer, on the CPU.
        scale: ranges of its ADCs.
        path: one of `paths()`.
        count: count conversions that clip, at some loss of speed.
        noise: of the reads; which reads they are is said when multiplying.

    Raises:
        MappingError: the layer does not fit a native path.
    """

    def __init__(
        self, crossbars: Crossbars, scale: AdcScale, path: str, *, count: bool = False, noise: ReadNoise | None = None
    ) -> None:
        reason = why_not(crossbars, crossbars.cells.device, noise)
        if reason:
            raise MappingError(reason)
        product, form = crossbars.product, crossbars.product.form
        width = product.placement.chip.dac.bits
        body = form.bits - form.signed
        shifts = list(range(0, body, width))
        masks = [2 ** min(width, body - shift) - 1 for shift in shifts]
        if form.signed:
            shifts, masks = [*shifts, form.bits - 1], [*masks, 1]
        self.product, self.count = product, count
        low, high = _ends(scale, crossbars, noise)
        try:
            self._plan = _native.compile(
                path,
                _ready(crossbars.cells),
                bounds=list(product.placement.row_bounds),
                digit_shift=shifts,
                digit_mask=masks,
                digit_weight=[float(w) for w in product.digit_weights],
                slice_weight=[float(w) for w in product.slice_weights],
                side_weight=[float(w) for w in product.side_weights],
                subtracts=product.subtracts,
                digital_offset=product.digital_offset,
                lsb=scale.lsb.contiguous(),
                offset=scale.offset.contiguous(),
                low=low,
                high=high,
                places=lambda: scale.places(*crossbars.reach(noise)),  # asked for where sums are floats
                count=count,
                noise_variance=0.0 if noise is None else (1 + product.subtracts) * noise.absolute_variance,
                **({} if product.built is None else {"built": product.built.transpose(0, 1).byte().contiguous()}),
            )
        except ValueError as error:
            raise MappingError(str(error)) from None

    @property
    def kind(self) -> str:
        """How analog sums are made, a few words."""
        return self._plan.kind

    def multiply(
        self, x: Tensor, position_axes: int, *, noise: ReadNoise | None = None, shortcuts: bool = True
    ) -> tuple[Tensor, int]:
        """Multiply integer activations.

        Args:
            x: uint8 or int8, any strides, (images, `position_axes` axes of positions, groups, axes of rows).
            position_axes: how many axes number the positions.
            noise: of these reads, where the plan has any.
            shortcuts: skip input digits and rows that are all zero; changes no bit of the answer.

        Returns:
            weight x activation units, float64, (images, positions, groups, cols), and how many conversions clipped,
            0 unless the plan counts them.
        """
        placement, groups = self.product.placement, self.product.placement.matmul.groups
        positions = x.shape[1 : 1 + position_axes].numel()
        y = torch.empty(x.shape[0], positions, groups, placement.stored_columns, dtype=torch.float64)
        clipped = 0
        if y.numel():
            clipped = _native.multiply(
                self._plan,
                x.view(torch.uint8),
                position_axes,
                y,
                threads=torch.get_num_threads(),
                shortcuts=shortcuts,
                count=self.count,
                reads=_reads(noise),
            )
        cols = placement.matmul.cols
        if placement.stored_columns > cols:
            y = y[..., :cols] - y[..., cols:].index_select(-1, column_tiles(placement))
        return y, clipped

    @property
    def scales(self) -> bool:
        """Whether `multiply_scaled` is to be had: no reference columns."""
        return self.product.placement.stored_columns == self.product.placement.matmul.cols

    def multiply_scaled(
        self,
        x: Tensor,
        position_axes: int,
        factor: Tensor,
        bias: Tensor | None,
        shape: list[int],
        *,
        last: bool,
        noise: ReadNoise | None = None,
    ) -> Tensor:
        """Multiply, scale and add a bias in one go.

        Args:
            x: as for `multiply`.
            position_axes: how many axes number the positions.
            factor: real value of a product of 1, float64, (groups * cols,).
            bias: float32, (groups * cols,), or None.
            shape: of the result.
            last: channels are the last axis of the result, not the second.
            noise: of these reads, where the plan has any.

        Returns:
            float32, of the given shape.
        """
        y = torch.empty(shape, dtype=torch.float32)
        if y.numel():
            _native.multiply_scaled(
                self._plan,
                x.view(torch.uint8),
                position_axes,
                y,
                channels_first=not last,
                factor=factor.contiguous(),
                bias=None if bias is None else bias.detach().contiguous(),
                threads=torch.get_num_threads(),
                shortcuts=True,
                reads=_reads(noise),
            )
        return y


def plan(
    crossbars: Crossbars,
    scale: AdcScale,
    path: str,
    noise: ReadNoise | None = None,
    *,
    unless: Callable[[], str | None] | None = None,
) -> Plan | str:
    """Return the plan of a layer on a path, packed once for the same cells and ranges, or why there is none.

    Args:
        crossbars: the programmed layer.
        scale: ranges of its ADCs.
        path: one of `paths()`.
        noise: of the reads.
        unless: says why none is wanted for these cells and ranges; None: one is. Asked when one would be packed.
    """
    key = (path, noise is None, unless is None)
    ranges, cached = crossbars.plans.get(key, (None, ""))
    if ranges is not None and same_ranges(ranges, scale):
        return cached
    made = None if unless is None else unless()
    try:
        made = made or Plan(crossbars, scale, path, noise=noise)
    except MappingError as error:
        made = str(error)
    crossbars.plans[key] = (scale.copy(), made)
    return made


def _ready(cells: Tensor) -> Tensor:
    return (cells if cells.dtype in (torch.uint8, torch.int16) else cells.float()).contiguous()


def _ends(scale: AdcScale, crossbars: Crossbars, noise: ReadNoise | None) -> tuple[int | None, int | None]:
    """Lowest and highest code; of signed sums, whose codes are kept with an offset, ones that no sum goes beyond."""
    if scale.low is not None or not crossbars.product.subtracts:
        return scale.low, scale.high
    most = math.ceil((crossbars.reach(noise)[0] + float(scale.offset.abs().max())) / float(scale.lsb.min())) + 1
    return -most, most


def _reads(noise: ReadNoise | None) -> tuple[int, int] | None:
    return None if noise is None else (noise.seed, noise.first_image)


def same_ranges(a: AdcScale, b: AdcScale) -> bool:
    """Whether two scales convert alike."""
    return (a.low, a.high) == (b.low, b.high) and a.lsb.equal(b.lsb) and a.offset.equal(b.offset)


def quantiles() -> tuple[list[int], list[int]]:
    """Return the normal numbers that read noise is made of, as `bitline.physics.normal.quantiles` and `tail`."""
    return _native.quantiles(), _native.tail()
