"""Layers that take the place of a dense layer and keep its inputs and outputs where they were.

Group convolution with a channel shuffle: X. Zhang et al., "ShuffleNet", CVPR 2018, arXiv:1707.01083.
Depthwise separable convolution: A. Howard et al., "MobileNets", 2017, arXiv:1704.04861; pointwise first: D. Haase and
M. Amthor, "Rethinking depthwise separable convolutions", CVPR 2020, arXiv:2003.13549. Here nothing stands between the
two parts.
"""

from typing import Any

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]


class Block(nn.Module):
    """What replaces one layer; the result of its last layer, perhaps in another order, is the result of the block."""

    @property
    def last(self) -> str:
        """Name of the child whose result leaves the block."""
        raise NotImplementedError

    @property
    def order(self) -> Tensor | None:
        """Which output of the last layer each output of the block is, (outputs,); None where it is the same one."""
        return None


class GroupConv2d(Block):
    """A group convolution over input and output channels in any order.

    Children: `conv`, with groups, and where asked `mix`, a 1x1 convolution that reads an equal share of every group.
    Buffers: `inputs` and `outputs`, permutations: input channel `inputs[i]` is channel i of `conv`, and output channel
    i is channel `outputs[i]` of the last layer.

    Args:
        like: the convolution to replace; its sizes, stride, padding, dilation and bias are taken over, not its weights.
        groups: divides its input and its output channels.
        mix: groups of the 1x1 convolution after it; 0 leaves it out.
    """

    inputs: Tensor
    outputs: Tensor

    def __init__(self, like: nn.Conv2d, groups: int, *, mix: int = 0) -> None:
        super().__init__()
        at: dict[str, Any] = {"device": like.weight.device, "dtype": like.weight.dtype}
        self.conv = nn.Conv2d(
            like.in_channels,
            like.out_channels,
            _two(like.kernel_size),
            _two(like.stride),
            _same(like.padding),
            _two(like.dilation),
            groups,
            biased(like) and not mix,
            like.padding_mode,
            **at,
        )
        self.mix = (
            nn.Conv2d(like.out_channels, like.out_channels, 1, groups=mix, bias=biased(like), **at) if mix else None
        )
        self.register_buffer("inputs", torch.arange(like.in_channels, device=like.weight.device))
        self.register_buffer("outputs", torch.arange(like.out_channels, device=like.weight.device))

    @property
    def last(self) -> str:
        """``"mix"`` where there is one, else ``"conv"``."""
        return "conv" if self.mix is None else "mix"

    @property
    def order(self) -> Tensor:
        """The permutation of the outputs."""
        return self.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, (batch, in_channels, height, width) to (batch, out_channels, height, width)."""
        y = self.conv(taken(x, self.inputs))
        if self.mix is not None:
            y = self.mix(nn.functional.channel_shuffle(y, self.conv.groups))
        return taken(y, self.outputs)


class SeparableConv2d(Block):
    """A 1x1 convolution and one of every channel by itself, with nothing between them.

    Children, in the order they run: `pointwise`, a 1x1 convolution over all input channels without a bias, and
    `depthwise`, with the kernel, stride, padding, dilation and bias of the convolution it replaces; a group of it reads
    the maps of one output channel. Padding comes after `pointwise`, which maps zero to zero. `pointwise` runs at every
    position of the input, also where `depthwise` has a stride.

    Pointwise first, the layer of many rows reads what the block reads, without a sign behind a ReLU. What lies between
    the two has signs: its highest digits cancel in the sum, and a coarse ADC loses much where many rows read them.

    Args:
        like: the convolution to replace.
        multiplier: maps between the two for each output channel, or for each input channel where depthwise is first.
        pointwise_first: otherwise `depthwise`, without a bias, reads each input channel by itself, and `pointwise`,
            with the bias, reads all that gave.
    """

    def __init__(self, like: nn.Conv2d, *, multiplier: int = 1, pointwise_first: bool = True) -> None:
        super().__init__()
        at: dict[str, Any] = {"device": like.weight.device, "dtype": like.weight.dtype}
        groups = like.out_channels if pointwise_first else like.in_channels
        maps, bias = groups * multiplier, biased(like)
        ends = (maps, like.out_channels) if pointwise_first else (like.in_channels, maps)
        depthwise = nn.Conv2d(
            *ends,
            _two(like.kernel_size),
            _two(like.stride),
            _same(like.padding),
            _two(like.dilation),
            groups,
            bias and pointwise_first,
            like.padding_mode,
            **at,
        )
        self.pointwise_first = pointwise_first
        if pointwise_first:
            self.pointwise = nn.Conv2d(like.in_channels, maps, 1, bias=False, **at)
            self.depthwise = depthwise
        else:
            self.depthwise = depthwise
            self.pointwise = nn.Conv2d(maps, like.out_channels, 1, bias=bias, **at)

    @property
    def last(self) -> str:
        """The one that does not run first."""
        return "depthwise" if self.pointwise_first else "pointwise"

    def forward(self, x: Tensor) -> Tensor:
        """Convolve, (batch, in_channels, height, width) to (batch, out_channels, height, width)."""
        return self.depthwise(self.pointwise(x)) if self.pointwise_first else self.pointwise(self.depthwise(x))


class GroupLinear(Block):
    """A linear layer whose inputs are dealt to groups, each with outputs of its own.

    Child: `conv`, a convolution of kernel 1 over a single position, with groups. Buffers as those of GroupConv2d.

    Args:
        like: the layer to replace.
        groups: divides its inputs and its outputs.
    """

    inputs: Tensor
    outputs: Tensor

    def __init__(self, like: nn.Linear, groups: int) -> None:
        super().__init__()
        at: dict[str, Any] = {"device": like.weight.device, "dtype": like.weight.dtype}
        self.conv = nn.Conv1d(like.in_features, like.out_features, 1, groups=groups, bias=biased(like), **at)
        self.register_buffer("inputs", torch.arange(like.in_features, device=like.weight.device))
        self.register_buffer("outputs", torch.arange(like.out_features, device=like.weight.device))

    @property
    def last(self) -> str:
        """The layer of all groups."""
        return "conv"

    @property
    def order(self) -> Tensor:
        """The permutation of the outputs."""
        return self.outputs

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, (batch, in_features) to (batch, out_features)."""
        return self.conv(x.index_select(1, self.inputs).unsqueeze(-1)).squeeze(-1).index_select(1, self.outputs)


def biased(layer: nn.Module) -> bool:
    """Whether a layer has a bias."""
    return getattr(layer, "bias", None) is not None


def taken(x: Tensor, order: Tensor) -> Tensor:
    """Return the channels of a batch of images in another order, laid out in memory as they were."""
    if x.is_contiguous() or not x.is_contiguous(memory_format=torch.channels_last):
        return x.index_select(1, order)
    return x.permute(0, 2, 3, 1)[..., order].permute(0, 3, 1, 2)


def _two(size: Shape) -> tuple[int, int]:
    return size[0], size[1]


def _same(padding: str | Shape) -> str | tuple[int, int]:
    return padding if isinstance(padding, str) else _two(padding)
