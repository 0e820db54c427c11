"""Which matrix products a network makes of one image, found by letting one pass through."""

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bitline.errors import BitlineError, ConversionError
from bitline.mapping.lower import Lowerable, Matmul, check_batch, lower, with_batch
from bitline.network.copy import evaluating
from bitline.network.inputs import Inputs, call, count, described, leaves, mapped
from bitline.network.products import Made, Products, Running, slow_attention

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


def trace(model: nn.Module, example: Inputs, layers: Mapping[str, Lowerable]) -> list[Matmul]:
    """List what matrix products `layers` make of one image while the model runs, in the order they run; see `look`."""
    return look(model, example, layers).matmuls


class Look(NamedTuple):
    """What a network computes of one image.

    Args:
        matmuls: products of the layers that were asked for, in the order they run; one that never runs is not listed.
        axes: of the inputs of linear layers, which one numbers the images; the first where it is not said.
        macs: multiplications of every product that is made, in layers or not, by place and function.
        decides: modules whose code read values, and may go another way for others.
    """

    matmuls: list[Matmul]
    axes: dict[str, int]
    macs: dict[Made, int]
    decides: tuple[str, ...]


def look(model: nn.Module, example: Inputs, layers: Mapping[str, Lowerable]) -> Look:
    """Watch a network while it runs on one batch.

    A layer's first axis need not number images: windows, regions, experts and sequences stand there too. What there is
    of an image is what there is of the batch, divided by its images; what stays the same for a batch of one is of every
    image. A layer that runs several times has its positions added up.

    Args:
        model: in the state in which it is to run.
        example: one batch.
        layers: of the model, by name.

    Raises:
        ConversionError: the model does not accept the batch.
        MappingError: the example has no batch axis.
    """
    images = count(example)
    seen = _watch(model, example, layers)
    for name, shapes in seen.shapes.items():
        for whole in {part.shape for part in leaves(example)}.intersection(shapes):
            check_batch(layers[name], name, whole)  # a batch itself, whose first axis a layer may not take for channels
    few = images == 1
    doubt = any(len(shape) > 2 for name, shapes in seen.shapes.items() if _linear(layers[name]) for shape in shapes)
    other: _Seen | None = None
    if not few or doubt:
        with suppress(ConversionError):
            other = _watch(model, _doubled(example) if few else mapped(example, lambda x: x[:1]), layers)
    one = seen if few else other
    matmuls = [
        _of_one_image(layers[name], name, shapes, images, None if one is None else one.shapes.get(name))
        for name, shapes in seen.shapes.items()
    ]
    axes = {} if other is None else _axes(layers, *((seen, other) if few else (other, seen)))
    macs = {made: _share(n, images, None if one is None else one.macs.get(made)) for made, n in seen.macs.items()}
    return Look(matmuls, axes, macs, tuple(seen.decides))


class _Seen(NamedTuple):
    """What a pass of one batch showed: shapes of the inputs of layers, of each call."""

    shapes: dict[str, list[torch.Size]]
    macs: dict[Made, int]
    decides: dict[str, int]


def _watch(model: nn.Module, example: Inputs, layers: Mapping[str, Lowerable]) -> _Seen:
    names: dict[nn.Module, str] = {module: name for name, module in layers.items()}
    shapes: dict[str, list[torch.Size]] = {}

    def see(module: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], _: object) -> None:
        shapes.setdefault(names[module], []).append((args[0] if args else kwargs["input"]).shape)

    running = Running()
    handles = running.watch(modules(model))
    handles += [layer.register_forward_hook(see, with_kwargs=True) for layer in layers.values()]
    with slow_attention(), Products(running) as products:
        run_hooked(model, example, handles)
    return _Seen(shapes, dict(products.macs), products.decides)


def _linear(layer: Lowerable) -> bool:
    return isinstance(layer, nn.Linear)


def _doubled(example: Inputs) -> Inputs:
    return mapped(example, lambda x: torch.cat([x, x]))


def _share(total: int, images: int, one: int | None) -> int:
    """What one image has of a batch's; all of it where a batch of one has as much."""
    return total if total == one else math.ceil(total / images)


def _of_one_image(
    layer: Lowerable, name: str, shapes: Sequence[torch.Size], images: int, one: Sequence[torch.Size] | None
) -> Matmul:
    """Describe the product of a layer that saw inputs of some shapes, and of `one` in a batch of one image."""
    calls = [lower(layer, name, input_shape=shape) for shape in shapes]
    positions, inputs = _totals(layer, name, shapes)
    alone = (None, None) if one is None else _totals(layer, name, one)
    return replace(
        calls[0],
        positions=max(1, _share(positions, images, alone[0])),
        inputs=max(1, _share(inputs, images, alone[1])),
        window=max(call.window for call in calls),
    )


def _totals(layer: Lowerable, name: str, shapes: Sequence[torch.Size]) -> tuple[int, int]:
    """Input vectors and activations of all calls."""
    calls = [(lower(layer, name, input_shape=shape), with_batch(layer, shape)[0]) for shape in shapes]
    return sum(m.positions * first for m, first in calls), sum(m.inputs * first for m, first in calls)


def _axes(layers: Mapping[str, Lowerable], few: _Seen, more: _Seen) -> dict[str, int]:
    """Axes of linear layers' inputs that are longer in the larger of two batches, and are not the first."""
    axes: dict[str, int] = {}
    for name in few.shapes.keys() & more.shapes.keys():
        if not _linear(layers[name]) or len(few.shapes[name]) != len(more.shapes[name]):
            continue
        found = {_longer(a, b) for a, b in zip(few.shapes[name], more.shapes[name], strict=True)}
        if len(found) == 1 and (axis := found.pop()) > 0:
            axes[name] = axis
    return axes


def _longer(a: torch.Size, b: torch.Size) -> int:
    """The one axis that differs, of those before the features; the first where several do, or none."""
    differ = [axis for axis, (x, y) in enumerate(zip(a, b, strict=False)) if x != y]
    return differ[0] if len(a) == len(b) and len(differ) == 1 and differ[0] < len(a) - 1 else 0


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
    images = count(example)

    def pooled(_: nn.Module, args: tuple[Tensor, ...]) -> None:
        if last:
            read[last[-1]] = read.get(last[-1], 0) + args[0].numel()

    handles: list[torch.utils.hooks.RemovableHandle] = []
    for name, module in modules(model):
        if name in layers:
            handles.append(module.register_forward_hook(lambda _m, _a, _out, n=name: last.append(n)))
        elif isinstance(module, _POOLS):
            handles.append(module.register_forward_pre_hook(pooled))
    run_hooked(model, example, handles)
    return {name: math.ceil(activations / images) for name, activations in read.items()}


def run_hooked(model: nn.Module, example: Inputs, handles: Iterable[torch.utils.hooks.RemovableHandle]) -> object:
    """Run the model once on a batch without gradients, remove the hooks, and return its result."""
    try:
        with torch.no_grad():
            return run(model, example)
    finally:
        for handle in handles:
            handle.remove()


def run(model: nn.Module, example: Inputs) -> object:
    """Run the model on a copy of a batch, which it may change, and return its result.

    Raises:
        ConversionError: the network does not accept the batch.
    """
    try:
        return call(model, mapped(example, torch.clone))
    except BitlineError:
        raise
    except Exception as error:  # a user's own network may raise anything
        raise ConversionError(
            f"{type(model).__name__} does not run on a batch of shape {described(example)}: {type(error).__name__}: "
            f"{error}"
        ) from error
