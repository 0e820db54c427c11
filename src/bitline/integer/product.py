"""Integer weights times integer inputs, by products of bytes where the computer makes them exactly."""

from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import ClassVar

import torch
from torch import Tensor

from bitline.integer.operations import Operation
from bitline.integer.windows import pad, slices, windows


@dataclass(frozen=True)
class Product(Operation):
    """Integer weights times integer inputs, plus an integer bias: a linear layer, or a convolution with padding 0.

    Args:
        layer: name of the layer in its network.
        weight: (groups, kernel places * channels of a group, outputs of a group), int8 where that holds it, else int32.
        bias: in units of the accumulator, (outputs,), of the accumulator's dtype.
        kernel: places along every axis; empty for a linear layer.
        stride: the same.
        padding: zeros before and after, for every axis.
        dilation: the same as stride.
        unsigned: inputs are uint8.
    """

    kind: ClassVar[str] = "product"
    layer: str
    weight: Tensor
    bias: Tensor
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[tuple[int, int], ...] = ()
    dilation: tuple[int, ...] = ()
    unsigned: bool = False

    def run(self, *values: Tensor) -> Tensor:
        """Multiply, (batch, space..., channels) to (batch, space..., outputs)."""
        x = pad(values[0], self.padding, 0)
        groups, rows, cols = self.weight.shape
        if groups > 1 and rows == torch.Size(self.kernel).numel():
            return self._depthwise(x)
        patches = windows(x, self.kernel, self.stride, self.dilation)
        axes = patches.dim() - 1 - len(self.kernel)
        patches = patches.unflatten(-1, (groups, -1)).movedim(-2, axes)
        rows_of = patches.reshape(*patches.shape[:axes], groups, rows).flatten(0, axes - 1)
        y = [self._multiply(rows_of[:, g], self.weight[g]) for g in range(groups)]
        whole = y[0] if groups == 1 else torch.cat(y, 1)
        return whole.add_(self._bias).view(*patches.shape[:axes], groups * cols)

    def _multiply(self, x: Tensor, weight: Tensor) -> Tensor:
        if self.weight.dtype != torch.int8 or x.dtype not in (torch.int8, torch.uint8) or not exact_bytes():
            return x.to(self.bias.dtype) @ weight.to(self.bias.dtype)
        # Bytes are multiplied with a sign; what that takes from unsigned ones is in `_bias`.
        signed = torch.bitwise_xor(x, 128).view(torch.int8) if x.dtype == torch.uint8 else x
        return _product_of_bytes(signed.contiguous(), weight).to(self.bias.dtype)

    @property
    def _bias(self) -> Tensor:
        if not self.unsigned or self.weight.dtype != torch.int8 or not exact_bytes():
            return self.bias
        return self.bias + 128 * self.weight.sum(1, dtype=self.bias.dtype).flatten()

    def _depthwise(self, x: Tensor) -> Tensor:
        """Every group has one channel: one multiplication of whole maps for each place of the kernel."""
        groups, rows, cols = self.weight.shape
        x = x.to(self.bias.dtype).repeat_interleave(cols, -1)
        weight = self.weight.to(self.bias.dtype).transpose(0, 1).reshape(rows, groups * cols)
        parts = slices(x, self.kernel, self.stride, self.dilation)
        return reduce(torch.add, (part * w for part, w in zip(parts, weight, strict=True))) + self.bias


def _product_of_bytes(x: Tensor, weight: Tensor) -> Tensor:
    """Multiply matrices of int8 to one of int32."""
    return torch._int_mm(x, weight)  # pyright: ignore[reportPrivateUsage, reportPrivateImportUsage]


@lru_cache(maxsize=1)
def exact_bytes() -> bool:
    """Whether this computer multiplies matrices of bytes exactly: some kernels saturate at 16 bits."""
    ends = torch.tensor([-128, 127], dtype=torch.int8)
    x, w = ends.repeat(32, 64), ends.repeat_interleave(64)[:, None].repeat(1, 32)
    for a, b in ((x, w), (x.sort(1).values.contiguous(), w), (-1 - x, w), (ends[0].expand(32, 128).contiguous(), w)):
        if not _product_of_bytes(a, b).equal(a.int() @ b.int()):
            return False
    return True
