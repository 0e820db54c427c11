"""Matrix products that a network's own code makes, outside of its layers."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from bitline.network.inputs import Inputs
from bitline.network.trace import MAPPED, modules, run_hooked

_WEIGHTED = {
    torch.matmul: "matmul",
    Tensor.matmul: "matmul",
    Tensor.__matmul__: "matmul",
    torch.bmm: "bmm",
    Tensor.bmm: "bmm",
    Tensor.__rmatmul__: "matmul",
    torch.linalg.matmul: "matmul",
    torch.linalg.multi_dot: "multi_dot",
    torch.mm: "mm",
    Tensor.mm: "mm",
    torch.mv: "mv",
    Tensor.mv: "mv",
    torch.dot: "dot",
    Tensor.dot: "dot",
    torch.addmm: "addmm",
    Tensor.addmm: "addmm",
    torch.addmv: "addmv",
    Tensor.addmv: "addmv",
    torch.baddbmm: "baddbmm",
    Tensor.baddbmm: "baddbmm",
    torch.addbmm: "addbmm",
    Tensor.addbmm: "addbmm",
    torch.einsum: "einsum",
    torch.tensordot: "tensordot",
    torch.inner: "inner",
    Tensor.inner: "inner",
    nn.functional.linear: "linear",
    nn.functional.bilinear: "bilinear",
    nn.functional.scaled_dot_product_attention: "scaled_dot_product_attention",
    nn.functional.conv1d: "conv1d",
    nn.functional.conv2d: "conv2d",
    nn.functional.conv3d: "conv3d",
    torch.conv1d: "conv1d",
    torch.conv2d: "conv2d",
    torch.conv3d: "conv3d",
    nn.functional.conv_transpose1d: "conv_transpose1d",
    nn.functional.conv_transpose2d: "conv_transpose2d",
    nn.functional.conv_transpose3d: "conv_transpose3d",
    nn.functional.multi_head_attention_forward: "multi_head_attention_forward",
}


def functions(model: nn.Module, example: Inputs) -> list[tuple[str, str]]:
    """Run a network and list the matrix products that are called as functions: (name of the module, function).

    Args:
        model: float.
        example: an input batch.
    """
    spy = _Spy()
    handles = [handle for name, module in modules(model) for handle in spy.watch(name, module)]
    with spy:
        run_hooked(model, example, handles)
    return list(spy.calls)


class _Spy(TorchFunctionMode):
    """Note which module calls which matrix product; those of PyTorch are listed as modules, and not looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, nn.Module]] = []
        self.calls: dict[tuple[str, str], None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, module = self.running[-1] if self.running else ("", None)
        if func in _WEIGHTED and not (isinstance(module, MAPPED) or type(module).__module__.startswith("torch.nn.")):
            self.calls[(name, _WEIGHTED[func])] = None
        return func(*args, **(kwargs or {}))

    def watch(self, name: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Follow when a module begins and ends."""
        return [
            module.register_forward_pre_hook(lambda _module, _args: self.running.append((name, module))),
            module.register_forward_hook(self._ended),
        ]

    def _ended(self, _module: nn.Module, _args: object, _output: object) -> None:
        self.running.pop()
