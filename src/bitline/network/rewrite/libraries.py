"""Layers of transformers and timm that are a linear layer or a convolution of PyTorch, written otherwise."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from bitline.network.rewrite.module import Rewritten, Stays, linear, twin, with_parameters

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class SamePadded(nn.Module):
    """A convolution that pads its input so that there is an output for each step of the stride, as TensorFlow's do."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    conv: nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        """Pad, (batch, channels, height, width), and convolve."""
        pad: list[int] = []
        sizes = zip(x.shape[-2:], self.kernel_size, self.stride, self.dilation, strict=True)
        for length, kernel, stride, dilation in reversed(list(sizes)):
            lacking = max((-(-length // stride) - 1) * stride + (kernel - 1) * dilation + 1 - length, 0)
            pad += [lacking // 2, lacking - lacking // 2]
        return self.conv(F.pad(x, pad) if any(pad) else x)


def library_layer(module: nn.Module) -> Rewritten | None:
    """Make a plain layer of one of transformers or timm, which are known by the full names of their classes.

    Raises:
        Stays: it has hooks, which would be lost.
    """
    name = f"{type(module).__module__}.{type(module).__qualname__}"
    make = _KNOWN.get(name)
    if make is None:
        return None
    if any(getattr(module, hooks) for hooks in _HOOKS) or "forward" in vars(module):
        raise Stays("it has hooks, or a forward of its own, which would be lost")
    return make(module)


def _conv1d(module: Any) -> Rewritten:
    new = linear(module.weight.T, module.bias, like=module)
    new.nf, new.nx = module.nf, module.nx
    return Rewritten(new, "is a linear layer, its weights transposed", anew=True)


def _linear(module: Any) -> Rewritten:
    return Rewritten(twin(module, nn.Linear), "is a linear layer")


def _same(module: Any) -> Rewritten:
    return Rewritten(_padded(module, module.weight), "pads, and then is a convolution")


def _standardized(module: Any) -> Rewritten:
    weight = _weight_used(module)
    if getattr(module, "same_pad", False):
        how = "pads, and then is a convolution whose weights are standardized once"
        return Rewritten(_padded(module, weight), how, anew=True)
    new = with_parameters(_plain(module, module.padding), weight, module.bias, module)
    return Rewritten(new, "is a convolution whose weights are standardized once", anew=True)


def _padded(module: Any, weight: Tensor) -> nn.Module:
    new = twin(module, SamePadded, without=("weight", "bias", "gain"))
    new._modules["conv"] = with_parameters(_plain(module, module.padding), weight, module.bias, module)
    return new


def _plain(module: Any, padding: Any) -> nn.Conv2d:
    size = (module.in_channels, module.out_channels, module.kernel_size, module.stride)
    bias = module.bias is not None
    return nn.Conv2d(*size, padding, module.dilation, module.groups, bias, module.padding_mode, device="meta")


class _Seen(TorchFunctionMode):
    """The weight that a convolution is called with."""

    weight: Tensor | None = None

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.__name__ == "conv2d":
            self.weight = args[1]
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def _weight_used(module: Any) -> Tensor:
    spans = [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]
    with _Seen() as seen:
        module(module.weight.new_zeros(1, module.in_channels, *spans))
    if seen.weight is None or seen.weight.shape != module.weight.shape:
        raise Stays(f"{type(module).__name__} has a forward of its own")
    return seen.weight


_KNOWN = {
    "transformers.pytorch_utils.Conv1D": _conv1d,
    "timm.layers.linear.Linear": _linear,
    "timm.layers.conv2d_same.Conv2dSame": _same,
    **{
        f"timm.layers.std_conv.{name}": _standardized
        for name in ("StdConv2d", "StdConv2dSame", "ScaledStdConv2d", "ScaledStdConv2dSame")
    },
}
