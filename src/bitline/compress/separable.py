"""Convolutions as a depthwise and a pointwise one.

A depthwise kernel needs k * k rows and a pointwise layer one row for each channel, where a dense layer needs their
product: the network that the hardware half of Wu et al., HPEC 2021, doi:10.1109/HPEC49654.2021.9622798, is made for, in
our reconstruction, since its abstract alone is public.

The kernels of each input channel start as their best approximation by a few, a singular value decomposition as in
network decoupling (J. Guo et al., BMVC 2018, arXiv:1808.05517), here weighted by the data; then both layers are fitted.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from bitline.compress.choose import Limit, candidates, channels, positions
from bitline.compress.fitted import Fitted
from bitline.compress.moments import TINY, Moments, measured
from bitline.compress.result import LayerReport, Left, Report, Rewritten
from bitline.compress.twostage import TwoStage, fit_both
from bitline.compress.walk import Sampling, Walk
from bitline.errors import ConversionError
from bitline.models.blocks import SeparableConv2d
from bitline.models.rewrite import Rewrite

SMOOTHING = 1e-2
"""share of the mean power of a kernel's inputs that is added to each, where data weigh kernels"""


@torch.no_grad()
def separate(
    model: nn.Module,
    batches: Iterable[Tensor | Sequence[Tensor]],
    *,
    rows: int,
    all_layers: bool = False,
    multiplier: int = 1,
    refit: bool = True,
    recalibrate_norms: bool = True,
    leave: Collection[str] = (),
    sampling: Sampling | None = None,
) -> Rewritten:
    """Replace convolutions that need partial sums by depthwise separable ones.

    Args:
        model: trained; it is not changed.
        batches: tensors, or (inputs, labels) as data loaders give; a few hundred images, normalized as in training.
        rows: wordlines that a crossbar reads at once.
        all_layers: rewrite every dense convolution with a kernel, also where its rows fit.
        multiplier: depthwise kernels per input channel.
        refit: fit both layers to the dense layer's outputs; otherwise they are the approximation alone.
        recalibrate_norms: let the statistics of batch norms follow.
        leave: names of layers to leave as they are.
        sampling: which data decide.

    Returns:
        The network, its rewrites and a report, which lists the layers that still need partial sums.

    Raises:
        ConversionError: a kernel of more rows than allowed, a multiplier that no kernel has use for, an unknown name,
            no data, or data that the model does not take.
    """
    if multiplier < 1:
        raise ConversionError(f"multiplier is {multiplier}; allowed: 1 or more")
    limit = Limit(rows)
    chosen = candidates(model, 0 if all_layers else rows, leave)
    walk = Walk(model, batches, chosen.names, sampling or Sampling(), norms=recalibrate_norms)
    left = [*chosen.left, *(Left(n, "never ran on the batches") for n in chosen.names if n not in walk.seen)]
    done: list[tuple[Rewrite, LayerReport]] = []
    for name, seen in walk.seen.items():
        layer = walk.layer(name)
        if not isinstance(layer, nn.Conv2d) or positions(layer) == 1 or seen.axes != layer.weight.dim():
            if channels(layer) * positions(layer) > rows:
                left.append(Left(name, "has no kernel to separate" if seen.axes != 3 else "its input has 3 axes"))
            continue
        limit.check(name, layer)
        most = min(positions(layer), layer.out_channels)
        if multiplier > most:
            raise ConversionError(f"multiplier is {multiplier}; layer {name} allows 1 to {most}")
        done.append(_separated(walk, name, layer, limit, multiplier, refit=refit))
    reports = tuple(report for _, report in done)
    return Rewritten(walk.finish(), tuple(rewrite for rewrite, _ in done), Report(reports, tuple(left)))


def _separated(
    walk: Walk, name: str, layer: nn.Conv2d, limit: Limit, multiplier: int, *, refit: bool
) -> tuple[Rewrite, LayerReport]:
    factors, free = walk.factors(name), walk.offset_is_free(name)
    folds = measured((s.x.flatten(1).unsqueeze(1), s.y.unsqueeze(1)) for s in walk.samples(name))
    moments = folds.all
    kernels = layer.weight.detach().double().flatten(2)
    start, kept = _start(kernels, moments.centred() if free else moments, factors, multiplier)
    fitted = _balanced(fit_both(folds, start, factors, offset=free) if refit else start)
    order = torch.arange(len(kernels), device=kernels.device)
    first, last = Fitted(moments, start.whole, order), Fitted(moments, fitted.whole, order)
    block = SeparableConv2d(layer, multiplier=multiplier)
    block.depthwise.weight.copy_(fitted.first.transpose(1, 2).reshape(block.depthwise.weight.shape))
    block.pointwise.weight.copy_(fitted.second[0].t().reshape(block.pointwise.weight.shape))
    block.requires_grad_(layer.weight.requires_grad)
    walk.put(name, block, last.wanted(), last.given(), refit=refit)
    report = LayerReport(
        name=name,
        kind="separable",
        rows=channels(layer) * positions(layer),
        tiles_before=limit.tiles(channels(layer) * positions(layer)),
        tiles_after=limit.tiles(block.pointwise.in_channels),
        groups=1,
        mix=0,
        kept={f"rank {multiplier}": kept},
        error_before=first.error(factors, offset=walk.follows(name)),
        error_after=last.error(factors, offset=free) if refit else None,
    )
    return Rewrite(kind="separable", module=name, multiplier=multiplier), report


def _start(kernels: Tensor, moments: Moments, factors: Tensor, multiplier: int) -> tuple[TwoStage, float]:
    """Approximate the kernels of each input channel by a few, and say what share of their weighted power that keeps.

    Args:
        kernels: dense, (outputs, inputs, positions).
        moments: of all inputs, input by input.
        factors: that each output counts with.
        multiplier: kernels for each input.
    """
    size = kernels.shape[2]
    inputs = moments.xx[0].unflatten(1, (-1, size)).unflatten(0, (-1, size)).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
    power, axes = torch.linalg.eigh(inputs)  # (inputs, positions), (inputs, positions, positions)
    root = (power.clamp_min(0) + SMOOTHING * power.mean(1, keepdim=True) + TINY).sqrt()
    weighted = (kernels * factors.view(-1, 1, 1)).transpose(0, 1) @ axes * root.unsqueeze(1)
    _, values, right = torch.linalg.svd(weighted, full_matrices=False)
    chosen = right[:, :multiplier]  # (inputs, kernels, positions), orthonormal
    depthwise = (chosen / root.unsqueeze(1)) @ axes.transpose(1, 2)
    pointwise = kernels.transpose(0, 1) @ axes * root.unsqueeze(1) @ chosen.transpose(1, 2)
    kept = values[:, :multiplier].square().sum() / values.square().sum().clamp_min(TINY)
    second = pointwise.permute(0, 2, 1).flatten(0, 1).unsqueeze(0)
    between = torch.arange(second.shape[1], device=second.device)
    return TwoStage(depthwise.transpose(1, 2), second, between), float(kept)


def _balanced(layers: TwoStage) -> TwoStage:
    """Scale the channels between the layers so that their weights reach equally far on both sides.

    That makes both matrices easy to quantize (cross-layer equalization: M. Nagel et al., ICCV 2019, arXiv:1906.04721).
    """
    before, after = layers.first.abs().amax(1).flatten(), layers.second[0].abs().amax(1)
    known = (before > 0) & (after > 0)
    scale = torch.where(known, after / before.where(known, 1), 1).sqrt()
    first = layers.first * scale.view(len(layers.first), 1, -1)
    return replace(layers, first=first, second=layers.second / scale.unsqueeze(1))
