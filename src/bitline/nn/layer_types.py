"""The three layers whose product a chip computes; one class serves training and inference."""

from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip.description import Chip
from bitline.mapping.lower import Matmul
from bitline.mapping.place import Strategy
from bitline.nn.layer import CrossbarLayer


class CrossbarLinear(CrossbarLayer, nn.Linear):
    """nn.Linear on a chip."""

    @classmethod
    def from_float(cls, layer: Any, chip: Chip, matmul: Matmul, strategy: Strategy = "dense") -> Self:
        """Take over the weights of a plain layer."""
        new = cls(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            chip=chip,
            matmul=matmul,
            strategy=strategy,
            device="meta",
        )
        return _take_over(new, layer)

    def _plain(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.linear(x, w, b)


class _CrossbarConv(CrossbarLayer):
    @classmethod
    def from_float(cls, layer: Any, chip: Chip, matmul: Matmul, strategy: Strategy = "dense") -> Self:
        """Take over the weights and geometry of a plain layer."""
        new = cls(
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
            layer.groups,
            layer.bias is not None,
            layer.padding_mode,
            chip=chip,
            matmul=matmul,
            strategy=strategy,
            device="meta",
        )
        return _take_over(new, layer)

    def _plain(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return self._conv_forward(x, w, b)  # pyright: ignore[reportCallIssue]


class CrossbarConv1d(_CrossbarConv, nn.Conv1d):
    """nn.Conv1d on a chip."""


class CrossbarConv2d(_CrossbarConv, nn.Conv2d):
    """nn.Conv2d on a chip."""


def _take_over(new: Any, layer: Any) -> Any:
    # The very parameters: weights tied to another module stay tied, frozen ones stay frozen.
    new.weight, new.bias = layer.weight, layer.bias
    if not layer.weight.is_meta:
        new.chip_seed = new.chip_seed.to(layer.weight.device)
        new.ranges.to(layer.weight.device)
    new.train(layer.training)
    return new
