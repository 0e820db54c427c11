"""What is compiled for the GPU: one Triton kernel that multiplies, adds, converts and adds up codes; see `triton`."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    triton: Any = None
    tl: Any = None
else:
    try:
        import triton
        import triton.language as tl
    except ImportError:
        triton = None


def available() -> bool:
    """Whether Triton is installed and there is a GPU, or Triton's interpreter, to run kernels."""
    return triton is not None and (interpreted() or torch.cuda.is_available())


def _compiled(function: Any) -> Any:
    return function if triton is None else triton.jit(function)


# What is compiled is Python in form only.
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportInvalidTypeForm=false
# pyright: reportPossiblyUnboundVariable=false
@_compiled
def _digit(words, shift, mask, lanes: tl.constexpr, block_m: tl.constexpr, block_k: tl.constexpr):
    """Cut one digit out of every input, `lanes` of which make a word, and give each a byte of its own."""
    if lanes == 4:
        words = (words >> shift) & (mask * 0x01010101)
        even = tl.join(words.to(tl.int8), (words >> 16).to(tl.int8))
        odd = tl.join((words >> 8).to(tl.int8), (words >> 24).to(tl.int8))
        digits = tl.join(even, odd)
    else:
        words = (words >> shift) & (mask * 0x00010001)
        digits = tl.join(words.to(tl.int8), (words >> 16).to(tl.int8))
    return tl.reshape(digits, (block_m, block_k))


@_compiled
def product_kernel(
    x,
    cells,
    inverse,
    offset,
    factor,
    start,
    weight,
    constant,
    y,
    vectors,
    groups,
    columns,
    tiles,
    digits,
    planes,
    height,
    body,
    width,
    near,
    lowest,
    highest,
    settle,
    unit,
    lanes: tl.constexpr,
    parts: tl.constexpr,
    block_k: tl.constexpr,
    one_step: tl.constexpr,
    by_group: tl.constexpr,
    by_column: tl.constexpr,
    shifted: tl.constexpr,
    clips_low: tl.constexpr,
    clips_high: tl.constexpr,
    block_m: tl.constexpr,
    block_n: tl.constexpr,
):
    """Multiply block_m vectors by block_n columns of one group: all row tiles, digits and planes."""
    across = tl.cdiv(columns, block_n)
    index = tl.program_id(0)
    group = index // across % groups
    column = index % across * block_n + tl.arange(0, block_n)
    vector = (index // across // groups).to(tl.int64) * block_m + tl.arange(0, block_m)
    # Past the last vector and column the first ones are computed again, and not stored.
    home, row, word = column % columns, tl.arange(0, block_k), tl.arange(0, block_k // lanes)
    x += ((vector % vectors) * groups + group)[:, None] * (tiles * (height // lanes)) + word[None, :]
    cells += home[None, :] * height + row[:, None]
    before = group.to(tl.int64) * tiles
    first = group * digits if by_group else 0
    stride = columns if by_column else 1
    own = home[None, :] if by_column else 0

    total = tl.zeros((block_m, block_n), tl.int64)
    for tile in range(tiles):
        for p in range(digits):
            # The sign bit stands just above the body.
            shift = tl.minimum(p * width, body)
            mask = (1 << tl.minimum(width, tl.maximum(body - shift, 1))) - 1
            if one_step:
                digit = _digit(tl.load(x + tile * (height // lanes)), shift, mask, lanes, block_m, block_k)
            codes = tl.zeros((block_m, block_n), factor.dtype.element_ty)
            codes += tl.load(start + (first + p) * stride + own)
            for plane in range(planes):
                at = ((first + p) * planes + plane) * stride + own
                rise, worth = tl.load(inverse + at), tl.load(factor + at)
                sums = tl.zeros((block_m, block_n), tl.int32)
                for part in tl.static_range(parts):
                    block = cells + (((before + tile) * planes + plane) * parts + part) * (columns * height)
                    if part > 0:
                        sums *= 256
                    if one_step:
                        sums = tl.dot(digit, tl.load(block), sums, out_dtype=tl.int32)
                    else:
                        for k in range(0, height, block_k):
                            words = tl.load(x + (tile * height + k) // lanes)
                            some = _digit(words, shift, mask, lanes, block_m, block_k)
                            sums = tl.dot(some, tl.load(block + k), sums, out_dtype=tl.int32)
                if shifted:
                    sums -= tl.load(offset + at)
                code = tl.fma(sums.to(tl.float32), rise, near)
                if clips_low:
                    code = tl.maximum(code, lowest)
                if clips_high:
                    code = tl.minimum(code, highest)
                codes += (code + settle).to(tl.int32, bitcast=True).to(codes.dtype) * worth
            total += codes.to(tl.int64) * tl.load(weight + p).to(tl.int64)
    total += tl.load(constant + group * columns + home)[None, :]
    out = y + (vector * groups + group)[:, None] * columns + column[None, :]
    tl.store(out, total.to(tl.float64) * unit, mask=(vector < vectors)[:, None] & (column < columns)[None, :])


def interpreted() -> bool:
    """Whether the kernel runs in Triton's interpreter, on the CPU."""
    return not isinstance(product_kernel, triton.JITFunction)


@cache
def tuned() -> Any:
    """Return the kernel, which times these block sizes at the first product of a kind of layer and keeps the best."""
    blocks = ((64, 128, 8, 3), (128, 64, 8, 3), (64, 64, 8, 3), (64, 64, 4, 4), (128, 32, 4, 4), (128, 16, 4, 4))
    configs = [triton.Config({"block_m": m, "block_n": n}, num_warps=w, num_stages=s) for m, n, w, s in blocks]
    return triton.autotune(configs, key=["columns", "planes", "parts", "block_k"])(product_kernel)
