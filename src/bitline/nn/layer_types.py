"""The three layers whose product a chip computes; one class serves training and inference."""

from typing import Any, Self

from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip.description import Chip
from bitline.mapping.lower import Matmul
from bitline.mapping.place import Strategy
from bitline.network.subclass import gain
from bitline.network.trace import MAPPED
from bitline.nn.description import arguments
from bitline.nn.layer import CrossbarLayer


class _Converted(CrossbarLayer):
    @classmethod
    def from_float(cls, layer: Any, chip: Chip, matmul: Matmul, strategy: Strategy = "dense") -> Self:
        """Take over the weights and geometry of a plain layer, and the class and attributes that it has of its own."""
        built = arguments(layer, bias=layer.bias is not None)
        new: Any = cls(*built, chip=chip, matmul=matmul, strategy=strategy, device="meta")
        # The very parameters: weights tied to another module stay tied, frozen ones stay frozen.
        new.weight, new.bias = layer.weight, layer.bias
        if not layer.weight.is_meta:
            new.chip_seed = new.chip_seed.to(layer.weight.device)
            new.ranges.to(layer.weight.device)
        for name, value in vars(layer).items():
            mine = vars(new).setdefault(name, value)
            if name in ("_parameters", "_buffers", "_modules"):
                mine.update({key: each for key, each in value.items() if key not in mine})
        if type(layer) not in MAPPED:
            gain(new, cls, type(layer))
        return new.train(layer.training)


class CrossbarLinear(_Converted, nn.Linear):
    """nn.Linear on a chip."""

    def _plain(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return F.linear(x, w, b)


class _CrossbarConv(_Converted):
    def _plain(self, x: Tensor, w: Tensor, b: Tensor | None) -> Tensor:
        return self._conv_forward(x, w, b)  # pyright: ignore[reportCallIssue]


class CrossbarConv1d(_CrossbarConv, nn.Conv1d):
    """nn.Conv1d on a chip."""


class CrossbarConv2d(_CrossbarConv, nn.Conv2d):
    """nn.Conv2d on a chip."""
