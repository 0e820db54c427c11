"""Windows that a kernel sees of an image, laid out (batch, space..., channels)."""

from collections.abc import Sequence
from itertools import product

from torch import Tensor


def pad(x: Tensor, padding: Sequence[tuple[int, int]], value: int) -> Tensor:
    """Put a border of one value around an image.

    Args:
        x: (batch, space..., channels).
        padding: places before and after, for every axis of space.
        value: of the border.
    """
    if not any(map(any, padding)):
        return x
    sizes = [n + before + after for n, (before, after) in zip(x.shape[1:-1], padding, strict=True)]
    bordered = x.new_full((x.shape[0], *sizes, x.shape[-1]), value)
    inside = [slice(before, before + n) for n, (before, _) in zip(x.shape[1:-1], padding, strict=True)]
    bordered[(slice(None), *inside)] = x
    return bordered


def windows(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> Tensor:
    """What a kernel sees everywhere, (batch, space..., kernel..., channels); a view."""
    if not kernel:
        return x
    x = x.contiguous()
    steps = x.stride()[1:-1]
    return x.as_strided(
        (x.shape[0], *_sizes(x, kernel, stride, dilation), *kernel, x.shape[-1]),
        (
            x.stride(0),
            *(a * b for a, b in zip(steps, stride, strict=True)),
            *(a * b for a, b in zip(steps, dilation, strict=True)),
            1,
        ),
        x.storage_offset(),
    )


def slices(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[Tensor]:
    """What every place of a kernel sees, each (batch, space..., channels)."""
    sizes = _sizes(x, kernel, stride, dilation)
    return [
        x[
            (
                slice(None),
                *(
                    slice(p * d, p * d + (n - 1) * s + 1, s)
                    for p, d, n, s in zip(place, dilation, sizes, stride, strict=True)
                ),
            )
        ]
        for place in product(*map(range, kernel))
    ]


def _sizes(x: Tensor, kernel: Sequence[int], stride: Sequence[int], dilation: Sequence[int]) -> list[int]:
    spaces = zip(x.shape[1:-1], kernel, stride, dilation, strict=True)
    return [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in spaces]
