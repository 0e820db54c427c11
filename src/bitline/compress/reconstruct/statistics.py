"""Batch norm statistics that follow a change of the layers before them.

A statistic moves by what the change did to it on the same data, so that a few images are enough: what the sample has of
its own is in both networks and cancels.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitline.network.readers import BatchNorm
from bitline.network.trace import run_hooked


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of each channel, float64, (channels,)."""

    mean: Tensor
    variance: Tensor


def follow(norm: BatchNorm, before: Statistics, after: Statistics) -> None:
    """Move the running statistics of a batch norm, in place, by what changed between two measurements on one data.

    Args:
        norm: with running statistics.
        before: of its input in the network these belong to.
        after: of its input now.
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean += (after.mean - before.mean).to(norm.running_mean)
    known = before.variance > 0
    ratio = torch.where(known, after.variance / before.variance.where(known, 1), 1)
    norm.running_var *= ratio.to(norm.running_var)


class Enough(BaseException):
    """Nothing further on in the network is needed; no failure of the network, as an Exception would be."""


def recalibrate(
    model: nn.Module, dense: nn.Module, names: Collection[str], batches: Sequence[Tensor], *, until: str | None = None
) -> None:
    """Let batch norms of a rewritten network follow what was changed before them.

    While they are measured they use the statistics of each batch, so that one sees what those before it will give it.

    Args:
        model: rewritten, in eval mode; changed in place.
        dense: as it was before, in eval mode.
        names: of the batch norms.
        batches: inputs, several values of each channel in each.
        until: name of a layer that runs after them, where both networks are left.
    """
    if not names:
        return
    before, after = (measure(network, names, batches, until=until) for network in (dense, model))
    for name in before.keys() & after.keys():
        norm = model.get_submodule(name)
        assert isinstance(norm, BatchNorm)
        follow(norm, before[name], after[name])


def leave(*_: object) -> None:
    """Leave a network from a hook."""
    raise Enough


def measure(
    model: nn.Module, names: Collection[str], batches: Iterable[Tensor], *, until: str | None = None
) -> dict[str, Statistics]:
    """Measure what reaches batch norms while these use the statistics of each batch.

    Args:
        model: in eval mode; it is left as it was.
        names: of batch norms with running statistics.
        batches: inputs, several values of each channel in each.
        until: name of a layer that runs after them, where the network is left.
    """
    sums: dict[str, tuple[Tensor | float, Tensor | float, int]] = {}
    norms = {name: m for name, m in model.named_modules() if name in names and isinstance(m, BatchNorm)}

    def recorder(name: str) -> Callable[..., None]:
        def record(_: nn.Module, args: tuple[Tensor, ...]) -> None:
            values = args[0].transpose(0, 1).flatten(1).double()
            mean, square, count = sums.get(name, (0.0, 0.0, 0))
            sums[name] = (mean + values.sum(1), square + values.square().sum(1), count + values.shape[1])

        return record

    kept = {
        name: (norm.momentum, None if norm.num_batches_tracked is None else norm.num_batches_tracked.clone())
        for name, norm in norms.items()
    }
    try:
        for norm in norms.values():
            norm.train()
            norm.momentum = 0.0
        for batch in batches:
            handles = [norm.register_forward_pre_hook(recorder(name)) for name, norm in norms.items()]
            if until is not None:
                handles.append(model.get_submodule(until).register_forward_pre_hook(leave))
            with contextlib.suppress(Enough):
                run_hooked(model, batch, handles)
    finally:
        for name, norm in norms.items():
            norm.eval()
            norm.momentum, norm.num_batches_tracked = kept[name]
    statistics: dict[str, Statistics] = {}
    for name, (total, square, count) in sums.items():
        mean = torch.as_tensor(total) / count
        statistics[name] = Statistics(mean, (torch.as_tensor(square) / count - mean.square()).clamp_min(0))
    return statistics
