"""Plain affine quantization after training, to stand beside: the least that a chip of the same bits should reach.

Weights are symmetric with a scale for each output channel, the inputs of products affine with a range for each tensor,
from the calibration images: the smallest and the largest value, or percentiles.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

_BITS = 8
_OPERANDS = {"aten::mm": (0, 1), "aten::bmm": (0, 1), "aten::addmm": (1, 2), "aten::baddbmm": (1, 2)}
"""places of the input and of the weights"""


class Affine(TorchDispatchMode):
    """Computes products by weights, and convolutions, with quantized weights and inputs.

    Args:
        model: whose weights these are.
        tail: share of the values of an input beyond each end of its range; 0: none.

    Attributes:
        learns: whether ranges are widened to what passes, which then stays as it is.
    """

    def __init__(self, model: nn.Module, tail: float) -> None:
        super().__init__()
        self.tail, self.learns = tail, True
        self.ranges: dict[tuple[int, int], tuple[float, float]] = {}
        self._weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self._calls: dict[int, int] = {}

    def __enter__(self) -> "Affine":
        self._calls.clear()
        return super().__enter__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, name = list(args), func._schema.name
        if name == "aten::convolution" and args[0].is_floating_point():
            axis = 1 if args[6] else 0
            args[:2] = self._operands(args[0], args[1], axis, of_weights=self._is_weight(args[1]))
        elif name in _OPERANDS and self._is_weight(args[_OPERANDS[name][1]]):
            x, w = _OPERANDS[name]
            args[x], args[w] = self._operands(args[x], args[w], args[w].dim() - 1, of_weights=True)
        return func(*args, **(kwargs or {}))

    def _is_weight(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._weights

    def _operands(self, x: Tensor, weight: Tensor, axis: int, *, of_weights: bool) -> tuple[Tensor, Tensor]:
        key = (weight.untyped_storage().data_ptr(), weight.storage_offset()) if of_weights else (0, self._number())
        if self.learns:
            low, high = self.ranges.get(key, (0.0, 0.0))
            least, most = _ends(x, self.tail)
            self.ranges[key] = min(low, least), max(high, most)
            return x, weight
        if key not in self.ranges:
            return x, weight
        return affine(x, *self.ranges[key]), symmetric(weight, axis)

    def _number(self) -> int:
        """Of a convolution by weights that are computed."""
        self._calls[0] = self._calls.get(0, 0) + 1
        return self._calls[0]


def _ends(x: Tensor, tail: float) -> tuple[float, float]:
    flat = x.flatten()
    beyond = int(tail * len(flat))
    if not beyond:
        return float(flat.min()), float(flat.max())
    return float(flat.kthvalue(beyond + 1)[0]), float(flat.kthvalue(len(flat) - beyond)[0])


def affine(x: Tensor, low: float, high: float) -> Tensor:
    """Round to 2^8 evenly spaced numbers from `low` to `high`, of which 0 is one."""
    steps = 2**_BITS - 1
    step = (high - low) / steps
    if step == 0:
        return x
    zero = round(-low / step)
    return ((x / step).round() + zero).clamp(0, steps).sub(zero).mul(step)


def symmetric(weight: Tensor, axis: int) -> Tensor:
    """Round each slice along an axis to whole numbers of -127 to 127 times a scale of its own."""
    most = 2 ** (_BITS - 1) - 1
    others = [other for other in range(weight.dim()) if other != axis]
    scale = (weight.abs().amax(others, keepdim=True) / most).clamp(min=1e-30)
    return (weight / scale).round().clamp(-most, most) * scale


@torch.no_grad()
def quantized(model: nn.Module, calibrate: Callable[[], object], ask: Callable[[], Any], tail: float) -> Any:
    """Return what a network answers with quantized products.

    Args:
        model: in evaluation mode.
        calibrate: runs it on the calibration inputs.
        ask: runs it on others.
        tail: see `Affine`.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        mode = Affine(model, tail)
        with mode:
            calibrate()
        mode.learns = False
        with mode:
            return ask()
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
