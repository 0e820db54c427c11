"""Which matrix products a network makes of one image, found by letting one pass through."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.mapping.lower import Lowerable, Matmul, lower
from bitline.network.copy import evaluating
from bitline.network.inputs import Inputs, call, described

MAPPED = (nn.Linear, nn.Conv1d, nn.Conv2d)
"""plain layers that crossbars can hold"""
_POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
)


def modules(model: nn.Module, *, everywhere: bool = False) -> list[tuple[str, nn.Module]]:
    """List the modules of a network by name; `everywhere` lists one that stands in several places once for each."""
    return list(model.named_modules(remove_duplicate=not everywhere))


def matmuls(model: nn.Module, input_shape: Sequence[int]) -> list[Matmul]:
    """List the layers of a network that crossbars can hold, in the order they run.

    The network answers one image of zeros in eval mode, so this takes neither training nor data.

    Args:
        model: any module; it is not changed.
        input_shape: of one image, without the batch: (channels, height, width) or (features,).

    Raises:
        ConversionError: the network does not accept such an image.
    """
    layers = {name: m for name, m in modules(model) if isinstance(m, MAPPED)}
    parameter = next(model.parameters(), torch.empty(0))
    with evaluating(model):
        return trace(model, parameter.new_zeros(1, *input_shape), layers)


def trace(model: nn.Module, example: Inputs, layers: dict[str, Lowerable]) -> list[Matmul]:
    """List what matrix products `layers` make while the model runs on one batch, in the order they run.

    A layer that runs several times has its positions added up; one that never runs is not listed.

    Args:
        model: in the state in which it is to run.
        example: one batch.
        layers: of the model, by name.

    Raises:
        ConversionError: the model does not accept the batch.
    """
    names: dict[nn.Module, str] = {module: name for name, module in layers.items()}
    products: dict[str, Matmul] = {}

    def seen(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], _: object) -> None:
        name = names[module]
        matmul = lower(module, name, input_shape=(args[0] if args else kwargs["input"]).shape)
        if name in products:
            inputs, positions = products[name].inputs + matmul.inputs, products[name].positions + matmul.positions
            window = max(products[name].window, matmul.window)
            matmul = replace(matmul, inputs=inputs, positions=positions, window=window)
        products[name] = matmul

    run_hooked(model, example, [layer.register_forward_hook(seen, with_kwargs=True) for layer in layers.values()])
    return list(products.values())


def macs(model: nn.Module, example: Inputs) -> int:
    """Count the multiplications of one batch in layers and matrix products, wherever the network makes them.

    Args:
        model: plain, in evaluation mode.
        example: one batch.

    Raises:
        ConversionError: the network does not accept the batch.
    """
    from torch.utils.flop_counter import FlopCounterMode  # with triton

    with FlopCounterMode(display=False) as counter, torch.enable_grad():  # attention has a way of its own without
        run(model, example)
    return counter.get_total_flops() // 2


def poolings(model: nn.Module, example: Inputs, layers: Collection[str]) -> dict[str, int]:
    """Count the activations per image that pooling modules read, by the layer on crossbars that ran before.

    Args:
        model: plain or converted.
        example: one batch.
        layers: names of those on crossbars.

    Returns:
        layer name -> activations; pooling before the first layer is not counted.
    """
    last: list[str] = []
    read: dict[str, int] = {}

    def pooled(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if last:
            read[last[-1]] = read.get(last[-1], 0) + args[0][:1].numel()

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in modules(model):
        if name in layers:
            handles.append(module.register_forward_hook(lambda _m, _a, _out, n=name: last.append(n)))
        elif isinstance(module, _POOLS):
            handles.append(module.register_forward_pre_hook(pooled))
    run_hooked(model, example, handles)
    return read


def run_hooked(model: nn.Module, example: Inputs, handles: Iterable[torch.utils.hooks.RemovableHandle]) -> object:
    """Run the model once on a batch without gradients, remove the hooks, and return its result."""
    try:
        with torch.no_grad():
            return run(model, example)
    finally:
        for handle in handles:
            handle.remove()


def run(model: nn.Module, example: Inputs) -> object:
    """Run the model on a batch, and return its result.

    Raises:
        ConversionError: the network does not accept the batch.
    """
    try:
        return call(model, example)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        raise ConversionError(
            f"{type(model).__name__} does not run on a batch of shape {described(example)}: {error}"
        ) from error
