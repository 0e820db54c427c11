"""Transposed convolutions as the convolutions that they are, one for each kind of phase of the output.

Output pixel s q + r of a stride s is read by the taps j of the kernel whose d j leaves the rest r when divided by s.
For each r these are evenly spaced, and what they read is a convolution of the input. Phases of as many taps are outputs
of one convolution. So each weight is stored once, and none multiplies a zero between pixels. W. Shi et al., "Real-Time
Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network", CVPR 2016.
"""

from collections.abc import Sequence
from itertools import product
from math import gcd
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.network.rewrite.module import Rewritten, Stays, keeps_to, twin, with_parameters
from bitline.network.subclass import gain

Transposed = nn.ConvTranspose1d | nn.ConvTranspose2d


class Phases(NamedTuple):
    """Phases of an axis that read their input by kernels of one form.

    Args:
        rests: the phases, each below the stride.
        taps: of each phase, places in the kernel in the order in which a convolution reads its input.
        first: pixels by which the last tap reads behind the output's pixel.
        step: pixels from tap to tap.
    """

    rests: list[int]
    taps: list[list[int]]
    first: int
    step: int

    @property
    def span(self) -> int:
        """Pixels from the first tap to the last."""
        return self.step * (len(self.taps[0]) - 1)


def phases(kernel: int, stride: int, dilation: int) -> list[Phases]:
    """List the phases of an axis, those of one form together; a phase that no tap reads is not listed."""
    step = dilation // gcd(dilation, stride)
    found: dict[tuple[int, int], Phases] = {}
    for rest in range(stride):
        taps = [tap for tap in range(kernel) if (dilation * tap - rest) % stride == 0]
        if taps:
            first = (dilation * taps[0] - rest) // stride
            form = found.setdefault((len(taps), first), Phases([], [], first, step))
            form.rests.append(rest)
            form.taps.append(taps[::-1])
    return list(found.values())


class Pixels(NamedTuple):
    """Which pixels of an axis the convolution of some phases makes, of an output of one size.

    Args:
        start: number of the first, in steps of the stride from the border of the uncropped output.
        each: how many of each phase.
        pad: zeros before and after the input; below zero, pixels that are left out.
    """

    start: int
    each: int
    pad: tuple[int, int]


def window(form: Phases, length: int, stride: int, padding: int, extent: int) -> Pixels:
    """Find the pixels that remain of some phases.

    Args:
        form: the phases.
        length: of the input.
        stride: of the axis.
        padding: pixels cropped before.
        extent: pixels of the uncropped output up to the last that remains.
    """
    start = min(-((rest - padding) // stride) for rest in form.rests)
    last = max((extent - 1 - rest) // stride for rest in form.rests)
    return Pixels(start, last - start + 1, (form.first + form.span - start, last - form.first - (length - 1)))


class Upsampling(nn.Module):
    """nn.ConvTranspose1d or nn.ConvTranspose2d as convolutions, `phases`, whose outputs are interleaved."""

    out_channels: int
    groups: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    phases: nn.ModuleList

    def forward(self, input: Tensor, output_size: Sequence[int] | None = None) -> Tensor:
        """Compute what the transposed convolution does, also of an input without a batch."""
        axes = len(self.kernel_size)
        if input.dim() == axes + 1:
            return self.forward(input.unsqueeze(0), output_size).squeeze(0)
        itself: Any = self
        size = None if output_size is None else list(output_size)[-axes:]
        extra = itself._output_padding(input, size, self.stride, self.padding, self.kernel_size, axes, self.dilation)
        geometry = list(zip(self.kernel_size, self.stride, self.padding, self.dilation, extra, strict=True))
        lengths = input.shape[2:]
        out = [(n - 1) * s - 2 * p + d * (k - 1) + 1 + e for n, (k, s, p, d, e) in zip(lengths, geometry, strict=True)]
        forms = list(product(*(phases(k, s, d) for k, s, _, d, _ in geometry)))
        windows = [
            [window(f, n, s, p, m + p) for f, n, (_, s, p, _, _), m in zip(form, lengths, geometry, out, strict=True)]
            for form in forms
        ]
        starts = [min(p // s, *(w[a].start for w in windows)) for a, (_, s, p, *_) in enumerate(geometry)]
        ends = [
            max((out[a] + p - 1) // s + 1, *(w[a].start + w[a].each for w in windows))
            for a, (_, s, p, *_) in enumerate(geometry)
        ]
        canvas = [(end - start) * s for start, end, s in zip(starts, ends, self.stride, strict=True)]
        y = input.new_zeros(input.shape[0], self.out_channels, *canvas)
        for layer, form, places in zip(self.phases, forms, windows, strict=True):
            if all(place.each > 0 for place in places):
                pad = [side for place in reversed(places) for side in place.pad]
                made = layer(F.pad(input, pad) if any(pad) else input).unflatten(1, (self.groups, -1))
                made = made.unflatten(2, (-1, self.out_channels // self.groups))
                for number, rests in enumerate(product(*(f.rests for f in form))):
                    at = [
                        slice((w.start - first) * s + rest, (w.start + w.each - 1 - first) * s + rest + 1, s)
                        for w, first, s, rest in zip(places, starts, self.stride, rests, strict=True)
                    ]
                    y[(slice(None), slice(None), *at)] = made[:, :, number].flatten(1, 2)
        for axis, (start, s, p, n) in enumerate(zip(starts, self.stride, self.padding, out, strict=True)):
            y = y.narrow(axis + 2, p - s * start, n)
        return y


def transposed(module: nn.Module) -> Rewritten | None:
    """Make convolutions of a transposed convolution.

    Raises:
        Stays: a forward of its own, or pixels of the output that have nothing but the bias.
    """
    if not isinstance(module, Transposed) or isinstance(module, Upsampling):
        return None
    one = isinstance(module, nn.ConvTranspose1d)
    if not keeps_to(module, nn.ConvTranspose1d if one else nn.ConvTranspose2d):
        raise Stays(f"{type(module).__name__} has a forward of its own")
    if module.weight.is_complex():
        raise Stays("its weights are complex")
    axes = [phases(k, s, d) for k, s, d in zip(module.kernel_size, module.stride, module.dilation, strict=True)]
    covered = all(sum(len(f.rests) for f in forms) == s for forms, s in zip(axes, module.stride, strict=True))
    if module.bias is not None and not covered:
        raise Stays("its kernel is smaller than its stride, and some outputs are its bias alone")
    layers = [_convolution(module, form, nn.Conv1d if one else nn.Conv2d) for form in product(*axes)]
    new = twin(module, without=("weight", "bias"))
    new._modules["phases"] = nn.ModuleList(layers).train(module.training)
    gain(new, Upsampling, type(module))
    return Rewritten(new, "is a convolution for each form of its phases", anew=True)


def _convolution(module: Transposed, form: tuple[Phases, ...], cls: Any) -> nn.Module:
    """The convolution that makes the outputs of some phases, ordered by group, phase and channel."""
    weights: list[Tensor] = []
    for taps in product(*(f.taps for f in form)):
        weight = module.weight
        for axis, places in enumerate(taps):
            weight = weight.index_select(axis + 2, torch.tensor(places, device=weight.device))
        weights.append(weight.unflatten(0, (module.groups, -1)).transpose(1, 2))
    weight = torch.stack(weights, 1).flatten(0, 2)
    bias = module.bias
    if bias is not None:
        bias = bias.view(module.groups, 1, -1).expand(-1, len(weights), -1).flatten()
    step = tuple(f.step for f in form)
    layer = cls(
        module.in_channels, len(weight), weight.shape[2:], 1, 0, step, module.groups, bias is not None, device="meta"
    )
    return with_parameters(layer, weight, bias, module)
