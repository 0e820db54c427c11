"""Convolutions as a pointwise and a depthwise one.

A pointwise layer needs one row for each channel and a depthwise kernel k * k rows, where a dense layer needs their
product: the network that the hardware half of Wu et al., HPEC 2021, doi:10.1109/HPEC49654.2021.9622798, is made for, in
our reconstruction, since its abstract alone is public.

Pointwise first (D. Haase and M. Amthor, CVPR 2020, arXiv:2003.13549), since what lies between the two layers has signs:
the highest digits of signed inputs are half ones that cancel, so that a coarse ADC loses much of a sum over many rows.
Here many rows read what the dense layer read, unsigned behind a ReLU, and signs meet the few rows of a kernel alone.

The kernels of each output start as their best approximation by a few products, a singular value decomposition as in
network decoupling (J. Guo et al., BMVC 2018, arXiv:1808.05517), here weighted by the data; then both layers are fitted.
"""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn

from bitline.compress.reconstruct.choose import Limit, candidates, channels, positions
from bitline.compress.reconstruct.fit import Fit
from bitline.compress.reconstruct.layer_by_layer import Reconstruction, Sampling
from bitline.compress.reconstruct.least_squares import measure
from bitline.compress.reconstruct.products import approximate, fit_products
from bitline.compress.result import LayerReport, Report, RewriteResult, UnchangedLayer
from bitline.errors import ConversionError
from bitline.models.blocks import SeparableConv2d
from bitline.models.rewrite import Rewrite


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
) -> RewriteResult:
    """Replace convolutions that need partial sums by separable ones, pointwise first.

    Args:
        model: trained; it is not changed.
        batches: tensors, or (inputs, labels) as data loaders give; a few hundred images, normalized as in training.
        rows: wordlines that a crossbar reads at once.
        all_layers: rewrite every dense convolution with a kernel, also where its rows fit.
        multiplier: products of a pointwise and a depthwise kernel that make the kernels of an output channel.
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
    reconstruction = Reconstruction(model, batches, chosen.names, sampling or Sampling(), norms=recalibrate_norms)
    unchanged = [
        *chosen.unchanged,
        *(UnchangedLayer(n, "never ran on the batches") for n in chosen.names if n not in reconstruction.activations),
    ]
    done: list[tuple[Rewrite, LayerReport]] = []
    for name, activations in reconstruction.activations.items():
        layer = reconstruction.layer(name)
        if not isinstance(layer, nn.Conv2d) or positions(layer) == 1 or activations.axes != layer.weight.dim():
            if channels(layer) * positions(layer) > rows:
                unchanged.append(
                    UnchangedLayer(
                        name, "has no kernel to separate" if activations.axes != 3 else "its input has 3 axes"
                    )
                )
            continue
        limit.check(name, layer)
        most = min(positions(layer), channels(layer))
        if multiplier > most:
            raise ConversionError(f"multiplier is {multiplier}; layer {name} allows 1 to {most}")
        done.append(_to_separable(reconstruction, name, layer, limit, multiplier, refit=refit))
    reports = tuple(report for _, report in done)
    return RewriteResult(
        reconstruction.finish(), tuple(rewrite for rewrite, _ in done), Report(reports, tuple(unchanged))
    )


def _to_separable(
    reconstruction: Reconstruction, name: str, layer: nn.Conv2d, limit: Limit, multiplier: int, *, refit: bool
) -> tuple[Rewrite, LayerReport]:
    factors, free = reconstruction.factors(name), reconstruction.offset_is_free(name)
    folds = measure((s.x.flatten(1).unsqueeze(1), s.y.unsqueeze(1)) for s in reconstruction.samples(name))
    moments = folds.all
    kernels = layer.weight.detach().double().flatten(2)
    start, kept = approximate(kernels, moments.centred() if free else moments, factors, multiplier)
    fitted = (fit_products(folds, start, factors, offset=free) if refit else start).balanced()
    order = torch.arange(len(kernels), device=kernels.device)
    first, last = Fit(moments, start.whole, order), Fit(moments, fitted.whole, order)
    block = SeparableConv2d(layer, multiplier=multiplier)
    block.pointwise.weight.copy_(fitted.pointwise.reshape(block.pointwise.weight.shape))
    block.depthwise.weight.copy_(fitted.depthwise.reshape(block.depthwise.weight.shape))
    block.requires_grad_(layer.weight.requires_grad)
    reconstruction.put(name, block, last.target_statistics(), last.output_statistics(), refit=refit)
    report = LayerReport(
        name=name,
        kind="separable",
        rows=channels(layer) * positions(layer),
        tiles_before=limit.tiles(channels(layer) * positions(layer)),
        tiles_after=limit.tiles(max(channels(layer), multiplier * positions(layer))),
        groups=1,
        mix=0,
        kept={f"rank {multiplier}": kept},
        error_before=first.error(factors, offset=reconstruction.follows(name)),
        error_after=last.error(factors, offset=free) if refit else None,
    )
    return Rewrite(kind="separable", module=name, multiplier=multiplier, pointwise_first=True), report
