"""The operations of a program: those of PyTorch that compute, as the functions that networks call."""

import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from bitline.errors import DataError

_PREFIX = "torch.ops.aten."
_SYMBOLIC: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "eq", "ne", "lt", "le", "gt", "ge")
} | {"_operator.getitem": operator.getitem}
_TEXTS = {"padding", "rounding_mode", "approximate", "mode", "interpolation_mode", "indexing", "equation", "reduce"}
"""arguments that may be text; a file's name, for example, may not"""
_MAKERS = {"arange", "zeros", "ones", "full", "eye", "scalar_tensor", "linspace", "tril_indices"}
"""operations that begin with no tensor"""


def _method(name: str) -> Callable[..., Any]:
    def call(x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return getattr(x, name)(*args, **kwargs)

    return call


_KNOWN: dict[str, Callable[..., Any]] = {
    "relu.default": F.relu,
    "relu_.default": partial(F.relu, inplace=True),
    "add.Tensor": torch.add,
    "add_.Tensor": operator.iadd,
    "cat.default": torch.cat,
    "flatten.using_ints": torch.flatten,
    "view.default": torch.reshape,  # the same, whatever the layout in memory
    "reshape.default": torch.reshape,
    "squeeze.dim": torch.squeeze,
    "unsqueeze.default": torch.unsqueeze,
    "contiguous.default": _method("contiguous"),
    "clone.default": _method("clone"),
    "mean.dim": torch.mean,
    "dropout.default": F.dropout,
    "max_pool2d.default": torch.max_pool2d,
    "max_pool1d.default": torch.max_pool1d,
    "avg_pool2d.default": F.avg_pool2d,
    "adaptive_avg_pool2d.default": F.adaptive_avg_pool2d,
    "adaptive_avg_pool1d.default": F.adaptive_avg_pool1d,
    "index_select.default": torch.index_select,
    "channel_shuffle.default": torch.channel_shuffle,
    "linear.default": F.linear,
    "conv1d.default": torch.conv1d,
    "conv1d.padding": torch.conv1d,
    "conv2d.default": torch.conv2d,
    "conv2d.padding": torch.conv2d,
    "conv3d.default": torch.conv3d,
    "matmul.default": torch.matmul,
    "mm.default": torch.mm,
    "bmm.default": torch.bmm,
    "addmm.default": torch.addmm,
    "baddbmm.default": torch.baddbmm,
    "einsum.default": torch.einsum,
    "scaled_dot_product_attention.default": F.scaled_dot_product_attention,
}
"""operations by the functions that a network of a user calls, which reports and exports know by these"""


def function(where: str, target: str) -> Callable[..., Any]:
    """Return what computes a node.

    Args:
        where: named in errors.
        target: as the file has it, for example ``torch.ops.aten.relu.default``.

    Raises:
        DataError: an operation that does something else than compute, or none that this PyTorch has.
    """
    if (symbolic := _SYMBOLIC.get(target)) is not None:
        return symbolic
    name = target.removeprefix(_PREFIX)
    packet, _, overload = name.partition(".")
    if not target.startswith(_PREFIX) or not (packet.isidentifier() and overload.isidentifier()):
        raise DataError(f"{where} calls {target[:100]}; allowed: operations of {_PREFIX.removesuffix('.')}")
    try:
        found: Any = getattr(getattr(torch.ops.aten, packet), overload)
        arguments, returns = found._schema.arguments, found._schema.returns
    except AttributeError as error:
        raise DataError(f"{where} calls {target[:100]}, which PyTorch {torch.__version__} has not") from error
    kinds = {argument.name: str(argument.type) for argument in arguments}
    reads = packet in _MAKERS or any("Tensor" in kind for kind in kinds.values())
    if not reads or not returns or any("str" in kind and key not in _TEXTS for key, kind in kinds.items()):
        raise DataError(f"{where} calls {target[:100]}, which does something else than compute")
    if torch.Tag.nondeterministic_seeded in found.tags and packet not in ("dropout", "scaled_dot_product_attention"):
        raise DataError(f"{where} calls {target[:100]}, which answers by chance")
    known: Any = _KNOWN.get(name, found)
    return known
