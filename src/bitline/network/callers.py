"""What cannot call a layer on a chip: PyTorch's transforms that rewrite a computation. They are told so."""

from typing import Any

import torch
from torch import Tensor

from bitline.errors import ConversionError

_EXPORT = "export a program with torch.export.export, or integers with bitline export"


def check_caller(input: Any, layer: str) -> None:
    """Refuse what would trace or transform a layer's answer, which is no expression of PyTorch's operations.

    Raises:
        ConversionError: torch.fx, torch.jit, torch.onnx or torch.func is at work; says what to do.
    """
    if not isinstance(input, Tensor):
        raise ConversionError(
            f"layer {layer}: torch.fx cannot follow a layer on a chip; trace the plain network, then to_crossbar"
        )
    if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        raise ConversionError(f"layer {layer}: torch.jit and torch.onnx cannot follow a layer on a chip; {_EXPORT}")
    if torch.compiler.is_compiling():
        return
    if torch._C._functorch.peek_interpreter_stack() is not None:  # pyright: ignore
        raise ConversionError(
            f"layer {layer}: vmap, grad and other transforms of torch.func cannot follow a layer on a chip; give the "
            "layer a whole batch, and use backward() or torch.autograd.grad"
        )
