"""Multiplications of a network, counted where PyTorch computes them and by PyTorch's own formulas.

Nothing of `bitline.network` has a part in this: it is what the report of a conversion is checked against.
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry


def _vector(args: Any, _: Any) -> int:
    return args[-2].numel()


def _added(args: Any, _: Any) -> int:
    return args[1].numel() * args[2].shape[-1]


def _rows(args: Any, out: Any) -> int:
    return args[0].numel() * out.shape[-1]


def _deformed(args: Any, out: Any) -> int:
    return out.numel() * args[1][0].numel()


def _recurrent(args: Any, _: Any) -> int:
    return args[0].shape[:-1].numel() * sum(weight.numel() for weight in args[1:3])


_MORE: dict[str, Callable[[Any, Any], int]] = {
    "aten::mv": _vector,
    "aten::dot": _vector,
    "aten::vdot": _vector,
    "aten::addmv": lambda args, _: args[1].numel(),
    "aten::addbmm": _added,
    "aten::_grouped_mm": _rows,
    "aten::_cdist_forward": lambda args, _: args[0].numel() * args[1].shape[-2],
    "aten::mkldnn_rnn_layer": _recurrent,
    "torchvision::deform_conv2d": _deformed,
}
"""products that PyTorch has no formula for: multiplications, from arguments and result"""


class Count(TorchDispatchMode):
    """Adds up multiplications while it is entered, by what stands around them.

    Args:
        model: whose parameters are weights.

    Attributes:
        inside: of modules that are watched.
        outside: of them.
        weighted: of those outside, by weights or by what convolutions take for them.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inside = self.outside = self.weighted = 0
        self._depth = 0
        self._weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def watch(self, layers: Iterable[nn.Module], stack: ExitStack) -> None:
        """Know when one of some modules runs, until a stack closes."""
        for layer in layers:
            for handle in (
                layer.register_forward_pre_hook(self._begun),
                layer.register_forward_hook(self._ended, always_call=True),
            ):
                stack.callback(handle.remove)

    def _begun(self, *_: object) -> None:
        self._depth += 1

    def _ended(self, *_: object) -> None:
        self._depth -= 1

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self._add(func._schema.name, args, formula(*args, **kwargs, out_val=out) // 2)
        elif (more := _MORE.get(func._schema.name)) is not None:
            self._add(func._schema.name, args, more(args, out))
        return out

    def _add(self, name: str, args: Any, macs: int) -> None:
        if self._depth:
            self.inside += macs
            return
        self.outside += macs
        tensors = [leaf for leaf in torch.utils._pytree.tree_leaves(args) if isinstance(leaf, Tensor)]
        operands = tensors if "rnn" in name else tensors[-2:]  # before these stands what is added
        if "conv" in name or any(tensor.untyped_storage().data_ptr() in self._weights for tensor in operands):
            self.weighted += macs


def count(model: nn.Module, run: Callable[[], object], layers: Iterable[nn.Module] = ()) -> Count:
    """Count the multiplications of a run of a network inside of some layers, and outside of them.

    Attention is computed by the products that it consists of.
    """
    counting, fast = Count(model), torch.backends.mha.get_fastpath_enabled()
    with ExitStack() as stack:
        counting.watch(layers, stack)
        torch.backends.mha.set_fastpath_enabled(False)
        stack.callback(torch.backends.mha.set_fastpath_enabled, fast)
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.no_grad())
        stack.enter_context(counting)
        run()
    return counting


def answers(found: Any) -> list[Tensor]:
    """Every tensor of real numbers that a network returns."""
    leaves = torch.utils._pytree.tree_leaves(dict(found) if hasattr(found, "keys") else found)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]
