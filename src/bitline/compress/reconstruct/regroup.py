"""Layers that need partial sums, as layers of groups that do not.

Our reconstruction of the software half of Wu et al., HPEC 2021, doi:10.1109/HPEC49654.2021.9622798, whose abstract
alone is public: as few groups as let the rows of each fit the wordlines of a crossbar. Linear layers of groups are our
form of Input-Splitting (Y. Kim et al., ISLPED 2018, doi:10.1145/3218603.3218647).
"""

from collections.abc import Collection, Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import channel_shuffle

from bitline.compress.reconstruct.assignment import KINDS, Kind, assign, check_kind
from bitline.compress.reconstruct.choose import Dense, Limit, candidates, channels, positions
from bitline.compress.reconstruct.fit import Fit
from bitline.compress.reconstruct.layer_by_layer import Activations, Reconstruction, Sampling
from bitline.compress.reconstruct.least_squares import fit, measure
from bitline.compress.reconstruct.two_stage import TwoStage, fit_both
from bitline.compress.result import LayerReport, Report, RewriteResult, UnchangedLayer
from bitline.models.blocks import GroupConv2d, GroupLinear
from bitline.models.rewrite import Rewrite


@torch.no_grad()
def regroup(
    model: nn.Module,
    batches: Iterable[Tensor | Sequence[Tensor]],
    *,
    rows: int,
    row_tiles: int = 1,
    assignment: Kind = "best",
    refit: bool = True,
    mix: bool = False,
    linear: bool = False,
    recalibrate_norms: bool = True,
    leave: Collection[str] = (),
    sampling: Sampling | None = None,
) -> RewriteResult:
    """Replace every dense layer that needs more than so many row tiles by one of groups that does not.

    Args:
        model: trained; it is not changed.
        batches: tensors, or (inputs, labels) as data loaders give; a few hundred images, normalized as in training.
        rows: wordlines that a crossbar reads at once.
        row_tiles: partial sums allowed for one output.
        assignment: which channels share a group: ``"best"``, ``"diagonal"`` or ``"shuffle"``; see `assign`.
        refit: fit the weights of each group to the dense layer's outputs; otherwise they are those of the dense layer.
        mix: end each group convolution with a 1x1 convolution, grouped so that it fits too, at first the identity.
        linear: rewrite linear layers as well, but for the last layer.
        recalibrate_norms: let the statistics of batch norms follow.
        leave: names of layers to leave as they are.
        sampling: which data decide.

    Returns:
        The network, its rewrites and a report, which lists the layers that still need partial sums.

    Raises:
        ConversionError: a kernel of more rows than allowed, an unknown name or assignment, no data, or data that the
            model does not take.
    """
    check_kind(assignment)
    limit = Limit(rows, row_tiles)
    chosen = candidates(model, limit.inputs, leave)
    reconstruction = Reconstruction(model, batches, chosen.names, sampling or Sampling(), norms=recalibrate_norms)
    unchanged = [
        *chosen.unchanged,
        *(UnchangedLayer(n, "never ran on the batches") for n in chosen.names if n not in reconstruction.activations),
    ]
    done: list[tuple[Rewrite, LayerReport]] = []
    for name, activations in reconstruction.activations.items():
        groups = limit.groups(name, reconstruction.layer(name))
        why = _why_not(reconstruction, name, activations, linear=linear)
        if groups is None or why:
            unchanged.append(UnchangedLayer(name, why or _indivisible(reconstruction.layer(name), limit)))
        else:
            done.append(_to_groups(reconstruction, name, groups, limit, assignment, refit=refit, mix=mix))
    reports = tuple(report for _, report in done)
    return RewriteResult(
        reconstruction.finish(), tuple(rewrite for rewrite, _ in done), Report(reports, tuple(unchanged))
    )


def _why_not(reconstruction: Reconstruction, name: str, activations: Activations, *, linear: bool) -> str:
    layer = reconstruction.layer(name)
    if isinstance(layer, nn.Linear) and name == reconstruction.last:
        return "the last layer"
    if isinstance(layer, nn.Linear) and not linear:
        return "a linear layer; these are rewritten where asked for (linear=True, --split-linear)"
    if activations.axes != layer.weight.dim():
        return f"its input has {activations.axes} axes"
    return ""


def _indivisible(layer: Dense, limit: Limit) -> str:
    return (
        f"no number of groups divides its {channels(layer)} inputs and {layer.weight.shape[0]} outputs and leaves at "
        f"most {limit.inputs} rows"
    )


def _to_groups(
    reconstruction: Reconstruction, name: str, groups: int, limit: Limit, kind: Kind, *, refit: bool, mix: bool
) -> tuple[Rewrite, LayerReport]:
    """Put a layer of groups in the place of a dense one."""
    layer, factors, free = reconstruction.layer(name), reconstruction.factors(name), reconstruction.offset_is_free(name)
    kernels = layer.weight.detach().double().reshape(*layer.weight.shape[:2], -1)
    importance = kernels.square().sum(2) * reconstruction.activations[name].power * factors.square().unsqueeze(1)
    assignments = {k: assign(importance.cpu(), groups, k, seed=reconstruction.sampling.seed) for k in KINDS}
    inputs, order = (places.to(kernels.device) for places in (assignments[kind].inputs, assignments[kind].outputs))
    block = (
        GroupLinear(layer, groups)
        if isinstance(layer, nn.Linear)
        else GroupConv2d(layer, groups, mix=limit.mix(layer) if mix else 0)
    )
    block.inputs.copy_(inputs)

    folds = measure(
        (_parts(s.x[:, inputs], groups), _parts(s.y[:, order], groups)) for s in reconstruction.samples(name)
    )
    start = _diagonal(kernels[order][:, inputs], groups)
    weight = fit(folds, start, offset=free) if refit else start
    _set(block.conv, weight, layer)
    first, last = Fit(folds.all, start, order), Fit(folds.all, weight, order)
    if isinstance(block, GroupConv2d) and block.mix is not None:
        both, last = _fit_mix(reconstruction, name, block, last, refit=refit)
        _set(block.conv, both.first, layer)
        _set(block.mix, both.second, layer)
    block.outputs.copy_(last.order.argsort())
    rewrite = Rewrite(
        kind="group_linear" if isinstance(layer, nn.Linear) else "group",
        module=name,
        groups=groups,
        mix=block.mix.groups if isinstance(block, GroupConv2d) and block.mix is not None else 0,
    )
    report = LayerReport(
        name=name,
        kind=rewrite.kind,
        rows=channels(layer) * positions(layer),
        tiles_before=limit.tiles(channels(layer) * positions(layer)),
        tiles_after=limit.tiles(channels(layer) * positions(layer) // groups),
        groups=groups,
        mix=rewrite.mix,
        kept={k: assignment.kept for k, assignment in assignments.items()},
        error_before=first.error(factors, offset=reconstruction.follows(name)),
        error_after=last.error(factors, offset=free) if refit else None,
    )
    reconstruction.put(name, block, last.target_statistics(), last.output_statistics(), refit=refit)
    return rewrite, report


def _fit_mix(
    reconstruction: Reconstruction, name: str, block: GroupConv2d, before: Fit, *, refit: bool
) -> tuple[TwoStage, Fit]:
    """Fit a group convolution and the 1x1 convolution that ends it, which starts as the identity."""
    assert block.mix is not None
    size = block.conv.out_channels // block.mix.groups
    between = channel_shuffle(torch.arange(len(before.order)).view(1, -1, 1, 1), block.conv.groups).flatten()
    between = between.to(before.order.device)
    order, free = before.order[between], reconstruction.offset_is_free(name)
    samples = ((_parts(s.x[:, block.inputs], 1), s.y[:, order].unsqueeze(1)) for s in reconstruction.samples(name))
    folds = measure(samples)
    second = torch.eye(size, dtype=torch.float64, device=order.device).repeat(block.mix.groups, 1, 1)
    both = TwoStage(before.weight, second, between)
    if refit:
        both = fit_both(folds, both, reconstruction.factors(name)[order], offset=free)
    return both, Fit(folds.all, both.whole, order)


def _parts(vectors: Tensor, groups: int) -> Tensor:
    """Cut vectors, (vectors, channels) or (vectors, channels, kernel positions), into (vectors, groups, values)."""
    return vectors.reshape(len(vectors), groups, -1)


def _diagonal(kernels: Tensor, groups: int) -> Tensor:
    """Cut the blocks of groups out of dense kernels, (outputs, inputs, positions), as (groups, rows, outputs)."""
    cut = kernels.unflatten(1, (groups, -1)).unflatten(0, (groups, -1)).diagonal(dim1=0, dim2=2)
    return cut.permute(3, 1, 2, 0).flatten(1, 2)


def _set(layer: nn.Conv1d | nn.Conv2d, weight: Tensor, like: nn.Module) -> None:
    """Give a layer of groups its weights, (groups, rows, cols)."""
    layer.weight.copy_(weight.transpose(1, 2).reshape(layer.weight.shape))
    for parameter in layer.parameters():
        parameter.requires_grad_(next(like.parameters()).requires_grad)
