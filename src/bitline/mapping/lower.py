"""Layers as matrix products: which shape, how often per image, and the rows each product reads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.errors import MappingError

UNFOLDED_BYTES = 2**26
"""input vectors of a convolution held at once"""

Lowerable = nn.Linear | nn.Conv1d | nn.Conv2d


@dataclass(frozen=True)
class Matmul:
    """One layer as `groups` products of a (rows, cols) matrix with `positions` vectors per image.

    Args:
        name: of the layer in its network.
        kind: ``"linear"``, ``"conv1d"`` or ``"conv2d"``.
        rows: inputs of one product, kernel positions x input channels of a group.
        cols: outputs of one product, output channels of a group.
        groups: independent products (1 unless a group convolution).
        positions: input vectors per image; 1 while the input's size is unknown.
        inputs: activations that enter the layer per image, each counted once.
        signed: inputs below zero occur.
        depthwise: there are several groups, each of a single input channel or of a single output channel.
        window: activations that must be at hand while the input streams in: the rows that a kernel spans, ((k - 1) W +
            k) for each channel; 0 while the input's size is unknown.
    """

    name: str
    kind: str
    rows: int
    cols: int
    groups: int = 1
    positions: int = 1
    inputs: int = 0
    signed: bool = False
    depthwise: bool = False
    window: int = 0

    def __post_init__(self) -> None:
        for field in ("rows", "cols", "groups", "positions"):
            if getattr(self, field) < 1:
                raise MappingError(f"layer {self.name}: {field} = {getattr(self, field)} must be at least 1")

    @property
    def outputs(self) -> int:
        """Results per image."""
        return self.positions * self.groups * self.cols

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image; each is two operations."""
        return self.outputs * self.rows


def lower(module: nn.Module, name: str, *, input_shape: torch.Size | None = None, signed: bool = False) -> Matmul:
    """Describe a linear or convolution layer as a matrix product.

    Args:
        module: nn.Linear, nn.Conv1d or nn.Conv2d.
        name: of the layer in its network.
        input_shape: of one batch as it reaches the layer, (batch, ...), or of one input without the batch axis; without
            it positions is 1 and inputs 0.
        signed: inputs below zero occur.

    Raises:
        MappingError: another kind of layer, or an input that it does not take.
    """
    if isinstance(module, Lowerable) and input_shape is not None:
        input_shape = with_batch(module, input_shape)
        check_batch(module, name, input_shape)
    if isinstance(module, nn.Linear):
        positions = math.prod(input_shape[1:-1]) if input_shape is not None else 1
        return Matmul(
            name,
            "linear",
            module.in_features,
            module.out_features,
            1,
            positions,
            positions * module.in_features if input_shape is not None else 0,
            signed,
            window=module.in_features,
        )
    if not isinstance(module, nn.Conv1d | nn.Conv2d):
        raise MappingError(
            f"layer {name}: {type(module).__name__} is no matrix product that bitline maps; "
            "allowed: Linear, Conv1d, Conv2d"
        )
    positions, inputs, window = 1, 0, 0
    if input_shape is not None:
        inputs = math.prod(input_shape[1:])
        positions = math.prod(_output_size(module, input_shape[2:]))
        window = min(inputs, module.in_channels * _window(module, input_shape))
    rows = module.in_channels // module.groups * math.prod(module.kernel_size)
    kind = "conv2d" if isinstance(module, nn.Conv2d) else "conv1d"
    depthwise = module.groups > 1 and module.groups in (module.in_channels, module.out_channels)
    cols = module.out_channels // module.groups
    return Matmul(name, kind, rows, cols, module.groups, positions, inputs, signed, depthwise, window)


def _window(module: nn.Conv1d | nn.Conv2d, input_shape: torch.Size) -> int:
    """Pixels of a channel from the first that a kernel reads to the last, in the order that they stream in."""
    window = 1
    for span, length in zip(_spans(module), input_shape[2:], strict=True):
        window = (span - 1) + (window - 1) * length + 1
    return window


def with_batch(module: Lowerable, shape: torch.Size) -> torch.Size:
    """Return the shape of a layer's input with a batch axis of 1 in front where it has none."""
    axes = 2 if isinstance(module, nn.Linear) else module.weight.dim()
    return torch.Size((1, *shape)) if len(shape) == axes - 1 else shape


def check_batch(module: Lowerable, name: str, shape: torch.Size) -> None:
    """Raise MappingError where a layer's input has no batch axis, too many axes, or other channels than the layer's."""
    linear = isinstance(module, nn.Linear)
    axes = 2 if linear else module.weight.dim()
    if len(shape) < axes or (len(shape) > axes and not linear):
        expected = "..., features" if linear else "channels, length" if axes == 3 else "channels, height, width"
        raise MappingError(f"layer {name}: input of shape {tuple(shape)}; expected (batch, {expected})")
    have, need = (shape[-1], module.in_features) if isinstance(module, nn.Linear) else (shape[1], module.in_channels)
    if have != need:
        what = "features" if linear else "channels"
        raise MappingError(f"layer {name}: input of shape {tuple(shape)} has {have} {what}; expected {need}")


def _padding(module: nn.Conv1d | nn.Conv2d) -> list[int]:
    """Zeros on both ends of every axis, last axis first, as F.pad wants them; resolves ``padding="same"``."""
    return list(module._reversed_padding_repeated_twice)  # pyright: ignore[reportPrivateUsage]


def _spans(module: nn.Conv1d | nn.Conv2d) -> list[int]:
    """Pixels from the first to the last of a kernel, along each axis."""
    return [d * (k - 1) + 1 for d, k in zip(module.dilation, module.kernel_size, strict=True)]


def _output_size(module: nn.Conv1d | nn.Conv2d, size: torch.Size | tuple[int, ...]) -> list[int]:
    pad = _padding(module)
    padded = [length + sum(pad[-2 * (axis + 1) :][:2]) for axis, length in enumerate(size)]
    spans = _spans(module)
    if any(length < span for length, span in zip(padded, spans, strict=True)):
        have, need = (" x ".join(map(str, lengths)) for lengths in (padded, spans))
        raise MappingError(f"padded input of {have} is smaller than a kernel that spans {need}")
    return [(n - span) // step + 1 for n, span, step in zip(padded, spans, module.stride, strict=True)]


def weight_matrix(module: Lowerable) -> Tensor:
    """Return the layer's weights as the crossbars see them: a kernel is a column.

    Returns:
        (groups, rows, cols); row order is channel, then kernel position.
    """
    groups = 1 if isinstance(module, nn.Linear) else module.groups
    return module.weight.reshape(groups, module.weight.shape[0] // groups, -1).transpose(1, 2)


def input_view(module: Lowerable, x: Tensor, together: int = 1) -> Tensor:
    """Return every input vector that the crossbars of a layer read, as a view of its padded input.

    Args:
        module: the layer.
        x: its input of any dtype, (images, features...) or (images, channels, length...).
        together: neighbouring groups of a convolution whose inputs make one vector; the last vector ends in zeros where
            groups are lacking.

    Returns:
        Same dtype; (images, positions, 1, rows) for linear layers, (images, length..., groups, channels of a group,
        kernel...) for convolutions, a group being `together` of the layer's.

    Raises:
        MappingError: an input smaller than the kernel.
    """
    if isinstance(module, nn.Linear):
        return x.reshape(x.shape[0], math.prod(x.shape[1:-1]), 1, x.shape[-1])
    return windows(module, padded(module, x, together), _output_size(module, x.shape[2:]), together)


def windows(module: nn.Conv1d | nn.Conv2d, x: Tensor, out: Sequence[int], together: int = 1) -> Tensor:
    """Return every input vector of a convolution as a view of its input with borders, see `input_view`.

    Args:
        module: the layer.
        x: from `padded`; any number of channels that the groups divide.
        out: positions along each axis.
        together: neighbouring groups whose inputs make one vector.
    """
    groups = math.ceil(module.groups / together)
    channels = x.shape[1] // groups
    strides = [step * size for step, size in zip(x.stride()[2:], module.stride, strict=True)]
    spans = [step * size for step, size in zip(x.stride()[2:], module.dilation, strict=True)]
    return x.as_strided(
        (x.shape[0], *out, groups, channels, *module.kernel_size),
        (x.stride(0), *strides, x.stride(1) * channels, x.stride(1), *spans),
        x.storage_offset(),
    )


def padded(module: nn.Conv1d | nn.Conv2d, x: Tensor, together: int = 1) -> Tensor:
    """Return the input of a convolution with its borders, and with zeros for the channels that its last vector lacks.

    Args:
        module: the layer; where its `input_zero` is the integer that stands for 0, borders of integers are that.
        x: its input of any dtype, (images, channels, length...).
        together: neighbouring groups whose inputs make one vector.
    """
    pad = _padding(module)
    if any(pad):
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        # Circular and reflecting borders are not implemented for integers; doubles hold them exactly.
        zero = 0 if x.is_floating_point() else getattr(module, "input_zero", 0)
        x = F.pad(x, pad, value=zero) if mode == "constant" else F.pad(x.double(), pad, mode=mode).to(x.dtype)
    lacking = x.shape[1] // module.groups * (-module.groups % together)
    return F.pad(x, (*[0] * (2 * (x.dim() - 2) + 1), lacking)) if lacking else x


def position_axes(module: Lowerable) -> int:
    """How many axes of `input_view` number the positions."""
    return 1 if isinstance(module, nn.Linear) else len(module.kernel_size)


def input_rows(module: Lowerable, x: Tensor, together: int = 1) -> Tensor:
    """Return every input vector as `input_view` does, laid out as (images, positions, groups, rows)."""
    view, axes = input_view(module, x, together), position_axes(module)
    if isinstance(module, nn.Linear):
        return view
    groups, rows = view.shape[1 + axes], view.shape[2 + axes :].numel()
    return view.reshape(x.shape[0], view.shape[1 : 1 + axes].numel(), groups, rows)


def input_runs(module: Lowerable, x: Tensor, together: int = 1) -> Iterator[tuple[int, Tensor]]:
    """Yield (first image, input vectors of some images) as `input_rows` gives them, a bounded number at a time."""
    per_image = x[:1].numel()
    if not isinstance(module, nn.Linear):
        per_image = module.in_channels * math.prod(module.kernel_size) * math.prod(output_shape(module, x.shape)[2:])
    most = max(1, UNFOLDED_BYTES // max(1, per_image * x.element_size()))
    for start in range(0, x.shape[0], most):
        yield start, input_rows(module, x[start : start + most], together)


def output_shape(module: Lowerable, input_shape: torch.Size) -> list[int]:
    """Shape of the layer's result for an input of the given shape, batch first."""
    if isinstance(module, nn.Linear):
        return [*input_shape[:-1], module.out_features]
    return [input_shape[0], module.out_channels, *_output_size(module, input_shape[2:])]
