"""The product of a crossbar in few large tensor operations, on any torch device.

Working memory is bounded whatever the batch: vectors are taken in runs of at most `CHUNK` partial sums and `16 * CHUNK`
input digits, or one vector if that is more. A run holds at most 40 bytes for each of its sums and 10 for each of its
digits.
"""

from collections.abc import Iterator
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from bitline.mapping.encode import column_tiles
from bitline.mapping.quantize import digits
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars, Observer, check, noise_shape
from bitline.mvm.product import Product
from bitline.physics import noise as noises
from bitline.physics.noise import ReadNoise

CHUNK = 2**19
"""partial sums held at once"""
_EXACT_IN_FLOAT = 2**24
_FEW_GROUPS = 8


def crossbar_mvm(
    x: Tensor,
    crossbars: Crossbars,
    scale: AdcScale,
    *,
    noise: ReadNoise | None = None,
    observer: Observer | None = None,
    shortcut: bool = True,
) -> Tensor:
    """Multiply integer activations by the crossbars of one layer.

    The same numbers as `bitline.mvm.reference.crossbar_mvm`, bit for bit.

    Args:
        x: integers within the input format, (images, positions, groups, rows).
        crossbars: the programmed layer.
        scale: ranges of its ADCs, on the torch device of `x`.
        noise: of the reads; none if absent.
        observer: sees every analog sum and code (clipped already); forces the long way.
        shortcut: take one integer product where no conversion can round or clip.

    Returns:
        weight x activation units, float64, (images, positions, groups, cols).

    Raises:
        MappingError: x and levels disagree with the layer.
    """
    product = crossbars.product
    check(x, crossbars.cells, product)
    if shortcut and observer is None and noise is None and exact(crossbars, scale):
        return integer_product(x, crossbars)
    images, positions, groups, rows = x.shape
    placement = product.placement
    y = torch.empty(images * positions, groups, placement.stored_columns, dtype=torch.float64, device=x.device)
    rule = Rule(scale, crossbars, noise)
    highest = crossbars.most if scale.high is None else max(scale.high, -(scale.low or 0))
    wide = highest * placement.row_tiles > _EXACT_IN_FLOAT
    flat = x.reshape(-1, groups, rows)
    for start, stop in _runs(images * positions, product):
        codes: Tensor | None = None
        for tile, a in _sums(flat[start:stop], crossbars, whole=observer is not None):
            at = crossbars.columns[tile] if observer is None else None
            gone = crossbars.lacking[tile] if observer is None else _gone(crossbars, tile)
            if noise is not None:
                a = a.to(rule.real)
                _disturb(a, flat[start:stop], crossbars, noise, tile, start, positions, at)
            if gone is not None:
                a.masked_fill_(gone[:, None, None, None, None], 0)
            seen = a.clone() if observer is not None else None
            code = rule.convert_(a, at)
            if gone is not None:
                code.masked_fill_(gone[:, None, None, None, None], 0)
            if observer is not None and seen is not None:
                observer(seen, code)
            code = code.double() if wide else code
            if at is not None:
                codes = code.new_zeros(*code.shape[:-1], placement.stored_columns) if codes is None else codes
                codes.index_add_(-1, at, code)
            else:
                codes = code if codes is None else codes.add_(code)
        if codes is None:
            y[start:stop] = 0
        else:
            _shift_and_add(codes, scale, product, out=y[start:stop])
    return digital_sum(y, flat, product).view(images, positions, groups, placement.matmul.cols)


def digital_sum(y: Tensor, x: Tensor, product: Product) -> Tensor:
    """Take away what encoded the sign: a reference column, or Z sum(x).

    Args:
        y: weighted codes, (vectors, groups, stored columns); overwritten.
        x: the integers that were multiplied, (vectors, groups, rows).
        product: the layer.

    Returns:
        (vectors, groups, cols).
    """
    placement = product.placement
    cols = placement.matmul.cols
    if placement.stored_columns > cols:
        return y[..., :cols] - y[..., cols:].index_select(-1, column_tiles(placement, x.device))
    if product.digital_offset and product.built is not None:
        tiles = [x[..., a:b].sum(-1, dtype=torch.int64) for a, b in pairwise(placement.row_bounds)]
        read = torch.einsum("tvg,tgc->vgc", torch.stack(tiles).double(), product.built.to(x.device).double())
        y -= product.digital_offset * read
    elif product.digital_offset:
        y -= product.digital_offset * x.sum(-1, keepdim=True, dtype=torch.int64)
    return y


def exact(crossbars: Crossbars, scale: AdcScale) -> bool:
    """Whether no conversion can round or clip, so that the result is one integer product."""
    product = crossbars.product
    return crossbars.integral and scale.resolves(-product.max_sum if product.subtracts else 0, product.max_sum)


def integer_product(x: Tensor, crossbars: Crossbars) -> Tensor:
    """Multiply by the integer weights that integral levels stand for: the ideal limit of a lossless ADC.

    Args:
        x: integers within the input format, (images, positions, groups, rows).
        crossbars: the programmed layer; its levels are integers.

    Returns:
        Exact integers, float64, (images, positions, groups, cols).
    """
    images, positions, groups, rows = x.shape
    form, w = crossbars.product.form, crossbars.weights
    flat = x.reshape(-1, groups, rows)
    small = form.bits <= 8 and w.dtype == torch.int8 and rows < 2**16
    if not (small and x.device.type == "cpu" and _int8_is_exact()):
        y = torch.einsum("vgr,grc->vgc", flat.double(), w.double())
        return y.view(images, positions, *y.shape[1:])
    shift = 0 if form.limits[1] < 128 else 128
    # uint8 x minus 128 is x with its top bit flipped, read as int8.
    signed = (flat.to(torch.uint8) ^ 128).view(torch.int8) if shift else flat.to(torch.int8)
    parts = [_int_mm(signed[:, g].contiguous(), w[g]) + shift * w[g].sum(0, dtype=torch.int32) for g in range(groups)]
    return torch.stack(parts, dim=1).double().view(images, positions, groups, w.shape[2])


def analog_sums(x: Tensor, crossbars: Crossbars) -> Iterator[Tensor]:
    """Yield the analog sums of every row tile, run by run, without conversion; 0 where a crossbar is absent.

    Args:
        x: integers within the input format, (images, positions, groups, rows).
        crossbars: the programmed layer.

    Yields:
        level units, exact, (groups, digits, vectors, slices, converted sides, stored columns).
    """
    check(x, crossbars.cells, crossbars.product)
    flat = x.reshape(-1, *x.shape[2:])
    for start, stop in _runs(len(flat), crossbars.product):
        for _, a in _sums(flat[start:stop], crossbars, whole=True):
            yield a


def _runs(vectors: int, product: Product) -> list[tuple[int, int]]:
    matmul, digits_of_all = product.placement.matmul, len(product.digit_weights) * product.placement.matmul.groups
    sums = digits_of_all * product.placement.stored_columns * len(product.slice_weights) * len(product.side_weights)
    most = max(1, CHUNK // max(sums, digits_of_all * matmul.rows // 16))
    return [(start, min(start + most, vectors)) for start in range(0, vectors, most)]


def _sums(x: Tensor, crossbars: Crossbars, *, whole: bool) -> Iterator[tuple[int, Tensor]]:
    """Yield (row tile, analog sums) for a run of vectors, (vectors, groups, rows).

    Of all stored columns if `whole`; else of `Crossbars.columns` only, and of no tile that has none.
    """
    product = crossbars.product
    bounds = product.placement.row_bounds
    planes = digits(x, product.form, product.placement.chip.dac.bits).permute(2, 0, 1, 3)
    shape = (len(product.slice_weights), len(product.side_weights))
    for tile, matrix in enumerate(crossbars.tiles if whole else crossbars.built_tiles):
        if matrix.shape[2]:
            rows = planes[..., bounds[tile] : bounds[tile + 1]].reshape(x.shape[1], -1, matrix.shape[1])
            yield tile, _matmul(rows, matrix, crossbars.real).view(*planes.shape[:3], *shape, -1)


def _gone(crossbars: Crossbars, tile: int) -> Tensor | None:
    """Which stored columns of a row tile there are not, (groups, stored columns); None: all are there."""
    built = crossbars.product.built
    return None if built is None else ~built[tile].to(crossbars.cells.device)


def _matmul(rows: Tensor, matrix: Tensor, real: torch.dtype) -> Tensor:
    """Multiply exactly, (groups, n, rows) x (groups, rows, m), where every sum fits in `real`."""
    if (
        rows.dtype == matrix.dtype == torch.int8
        and rows.device.type == "cpu"
        and rows.shape[0] <= _FEW_GROUPS
        and _int8_is_exact()
    ):
        out = rows.new_empty(rows.shape[0], rows.shape[1], matrix.shape[2], dtype=real)
        for group in range(rows.shape[0]):
            out[group].copy_(_int_mm(rows[group], matrix[group]))
        return out
    with torch.autocast(rows.device.type, enabled=False):  # sums are exact, whatever their network is computed in
        return torch.bmm(rows.to(real), matrix.to(real))


def _int_mm(a: Tensor, b: Tensor) -> Tensor:
    """Multiply int8 matrices to int32."""
    return torch._int_mm(a, b)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


@cache
def _int8_is_exact() -> bool:
    """Whether this processor's int8 product holds its extremes; some instruction sets saturate in between."""
    a = torch.full((64, 512), -128, dtype=torch.int8)
    b = torch.full((512, 64), -128, dtype=torch.int8)
    a[::2], b[:, ::3] = 127, 127
    try:
        got = _int_mm(a, b)
    except (RuntimeError, AttributeError):
        return False
    return bool((got.double() == a.double() @ b.double()).all())


class Rule:
    """Sum to code in place: in float32 where its places suffice, else by a division in doubles.

    Args:
        scale: ranges of the ADCs.
        crossbars: the programmed layer.
        noise: of the reads; none if absent.
    """

    def __init__(self, scale: AdcScale, crossbars: Crossbars, noise: ReadNoise | None = None) -> None:
        self.low, self.high = scale.low, scale.high
        most, grain = crossbars.reach(noise)
        self.real = crossbars.real if noise is None else crossbars.holds(most, grain)
        # Axes (groups, digits, vectors, slices, sides, columns).
        lsb, offset = (t[:, :, None, :, None, :] for t in (scale.lsb, scale.offset))
        self.unit = grain == 1 and bool((lsb == 1).all()) and bool((offset == offset.round()).all())
        self.places = scale.places(most, grain)
        self.zero = None if self.places is None else 1.5 * 2 ** (23 - self.places)
        self.multiply = self.unit or self.places is not None
        self.lsb, self.factor = lsb, lsb.reciprocal().float()
        self.offset = offset.to(self.real if self.multiply else torch.float64) if bool(offset.any()) else None

    def convert_(self, a: Tensor, columns: Tensor | None = None) -> Tensor:
        """Return codes, of the type of `a`, which may be overwritten; it has these stored columns only, if any."""
        lsb, factor, offset = self.lsb, self.factor, self.offset
        if columns is not None and lsb.shape[-1] > 1:
            lsb, factor = lsb[..., columns], factor[..., columns]
            offset = None if offset is None else offset[..., columns]
        if self.unit:
            code = a if offset is None else a.sub_(offset)
        elif self.zero is not None:
            code = a if offset is None else a.sub_(offset)
            code = code.mul_(factor).add_(self.zero).sub_(self.zero).round_()
        else:
            code = a.double() if offset is None else a.double() - offset
            code = code.div_(lsb).round_()
        return (code if self.low is None else code.clamp_(self.low, self.high)).to(a.dtype)


def _disturb(
    a: Tensor,
    x: Tensor,
    crossbars: Crossbars,
    noise: ReadNoise,
    tile: int,
    start: int,
    positions: int,
    columns: Tensor | None,
) -> None:
    """Add read noise to the sums of one row tile and run, in place; of these stored columns only, if any are named."""
    product = crossbars.product
    bounds = product.placement.row_bounds
    rows = x[..., bounds[tile] : bounds[tile + 1]]
    squares = digits(rows, product.form, product.placement.chip.dac.bits).permute(2, 0, 1, 3).double().square_()
    if noise.proportional:
        variance = crossbars.variances(noise)[tile]
        if columns is not None:
            kinds = len(product.slice_weights) * len(product.side_weights)
            variance = variance.unflatten(2, (kinds, -1))[..., columns].flatten(2)
        power = torch.bmm(squares.flatten(1, 2), variance).view_as(a)
    else:
        sides = 2 if product.subtracts else 1
        power = squares.sum(-1)[..., None, None, None] * (sides * noise.absolute_variance)
    vectors = torch.arange(start, start + a.shape[2], device=a.device)
    z = noise.draw(vectors, positions, tile, noise_shape(product))
    z = z if columns is None else z[..., columns]
    a += noises.levels(z, noises.steps(power)).to(a.dtype)


def _shift_and_add(codes: Tensor, scale: AdcScale, product: Product, *, out: Tensor) -> None:
    """Weigh the codes, summed over row tiles, by digit, slice and side; out is (vectors, groups, stored columns)."""
    tiles: int | Tensor = product.placement.row_tiles
    if product.built is not None:
        tiles = product.built.sum(0).to(codes.device)
    shape = (codes.shape[0], codes.shape[1], codes.shape[3], codes.shape[5])
    digit = torch.tensor(product.digit_weights, dtype=torch.float64, device=codes.device)[:, None]
    weights = digit * torch.tensor(product.slice_weights, dtype=torch.float64, device=codes.device)
    # (groups or 1, digits, slices, columns or 1); sides differ by sign only.
    factor = scale.lsb * weights[None, :, :, None]
    constant = (scale.offset.expand(*scale.offset.shape[:1], *shape[1:3], -1) * weights[None, :, :, None]).sum((1, 2))
    constant = constant * tiles * sum(product.side_weights)
    if len(product.side_weights) == 2:
        codes = codes[..., :1, :] - codes[..., 1:, :]
    total = torch.zeros(shape[0], codes.shape[2], shape[3], dtype=torch.float64, device=codes.device)
    for p in range(shape[1]):
        for s in range(shape[2]):
            total += codes[:, p, :, s, 0, :] * factor[:, min(p, factor.shape[1] - 1), s, None]
    out.copy_((total + constant[:, None]).transpose(0, 1))
