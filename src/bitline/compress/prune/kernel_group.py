"""Kernel-group pruning: whole kernels go, so many of a layer that those left fill crossbars.

S. Huai et al., "CRIMP", ACM TECS 22(5s), 2023, doi:10.1145/3609115: kernels rank by the factor of their batch norm over
the whole network, and what is left of a layer is rounded to a multiple of the weight columns of a crossbar. Zeroing
factor and offset together: ZeroBN, arXiv:2607.06922.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from bitline.chip.description import Chip
from bitline.compress.prune.constants import constants
from bitline.compress.prune.dependencies import KernelSet, kernel_sets, one_a_group, plain_copy
from bitline.compress.prune.importance import taylor_terms
from bitline.compress.prune.repack import CHANGES, remove_constants
from bitline.compress.prune.shrink import Removal, channel_masks
from bitline.compress.prune.sparsity import weights
from bitline.compress.prune.zero_count import ZeroCount
from bitline.compress.result import UnchangedLayer
from bitline.errors import ConversionError, nearest
from bitline.network.copy import copied
from bitline.network.readers import BatchNorm
from bitline.network.trace import MAPPED, modules
from bitline.nn.layer import CrossbarLayer

Coupled = Literal["sum", "mean"]
COUPLED: tuple[Coupled, ...] = get_args(Coupled)


@dataclass(frozen=True, eq=False)
class Competitor:
    """A set of kernels some of which can go.

    Args:
        kernels: the set.
        counts: how many of its channels may be left, ascending; the last is all of them.
    """

    kernels: KernelSet
    counts: tuple[int, ...]

    def nearest_count(self, left: int) -> int:
        """The allowed count nearest to one, the larger of two equally near."""
        return min(self.counts, key=lambda count: (abs(count - left), -count))


class KernelGroups:
    """Kernels of a network that compete for being left, in sets of kernels that depend on each other.

    Factors are those of batch norms, |gamma|. Kernels that depend on each other (additions, depthwise convolutions)
    have one factor: the sum over all batch norms among them. Where a set has no batch norm, the factor is the L2 norm
    of its kernels. Weights and bias of kernels that no batch norm of their own follows are zeroed as well. Layers no
    wider than a crossbar keep all of their kernels, and so does the last layer.

    Nothing is kept beside the network: on a network from a checkpoint, make it anew.

    Args:
        model: holds the factors; only `zero` changes it.
        example: one batch, which shows what follows what.
        chip: whose weight columns count.
        coupled: factor of kernels that depend on each other: ``"sum"``, or ``"mean"``, which lets large sets go as
            easily as single kernels.

    Attributes:
        sets: that compete.
        unchanged: kernels that do not, and why.

    Raises:
        ConversionError: a network that is on a chip or that cannot be followed, or an unknown word.
    """

    def __init__(self, model: nn.Module, example: Tensor, chip: Chip, *, coupled: Coupled = "sum") -> None:
        if coupled not in COUPLED:
            raise ConversionError(f"coupled is {coupled!r}; allowed: {', '.join(COUPLED)}{nearest(coupled, COUPLED)}")
        if any(isinstance(module, CrossbarLayer) for module in model.modules()):
            raise ConversionError("the network is on a chip already; prune the plain network, then to_crossbar")
        self.model, self.chip, self.coupled = model, chip, coupled
        self._importance: dict[str, Tensor] = {}
        plain = plain_copy(model)
        example = example.to(next(plain.parameters()).device)
        candidates = _rehearse(plain, kernel_sets(copied(plain), example), example)
        layers = dict(modules(plain))
        sets = [Competitor(kernels, _counts(kernels, layers, chip.weight_columns)) for kernels in candidates]
        self.sets = tuple(each for each in sets if not each.kernels.why and len(each.counts) > 1)
        narrow = f"no wider than the {chip.weight_columns} weight columns of a crossbar"
        self.unchanged = tuple(
            UnchangedLayer(each.kernels.name, each.kernels.why or narrow) for each in sets if each not in self.sets
        )

    def factors(self) -> dict[str, Tensor]:
        """Importance of every channel of the sets that compete, by the set's first layer, with a gradient."""
        return {each.kernels.name: self._factor(each.kernels) for each in self.sets}

    def penalty(self) -> Tensor:
        """Sum of the magnitudes of all factors that compete, with a gradient: |gamma|, or the L2 norm of kernels."""
        parts = [part.sum() for each in self.sets for part in self._parts(each.kernels)]
        return torch.stack(parts).sum() if parts else next(self.model.parameters()).new_zeros(())

    def measure_importance(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Rank kernels from now on by their Taylor importance on these batches, for every weight saved.

        Args:
            batches: images and labels; many small batches say more than a few large ones. See
                `bitline.compress.prune.importance`.
        """
        of = {each.kernels.name: self._parameters_to_zero(each.kernels) for each in self.sets}
        total = {each.kernels.name: torch.zeros(each.kernels.channels, dtype=torch.float64) for each in self.sets}
        parameters = [parameter for parts in of.values() for parameter, _ in parts]
        for terms in taylor_terms(self.model, batches, parameters) if parameters else ():
            rest = iter(terms)
            for name, parts in of.items():
                each = [next(rest).cpu().reshape(len(p), -1).sum(1)[places].sum(1) for p, places in parts]
                total[name] += torch.stack(each).sum(0).square()
        self._importance = {each.kernels.name: total[each.kernels.name] / self._saved(each) for each in self.sets}

    @torch.no_grad()
    def zero(self, ratio: float) -> ZeroCount:
        """Zero the kernels whose factors are the least over the whole network, in place.

        As many as the ratio says are candidates; then each set rounds what is left of it to whole crossbars, and zeroes
        the least of its factors with their offsets. What momentum has brought back since the last time competes again.

        Args:
            ratio: share of the kernels that compete, in [0, 1].

        Raises:
            ConversionError: another ratio.
        """
        chosen, candidates = self._choose(ratio)
        of: dict[str, int] = {}
        left: dict[str, int] = {}
        for removal in chosen:
            _zero(self.model, removal)
            for name, places in removal.kernels.kernels.items():
                of[name] = of.get(name, 0) + places.numel()
                left[name] = left.get(name, 0) + places[~removal.gone].numel()
        return ZeroCount("kernels", left, of, candidates)

    def target(self, sparsity: float) -> float:
        """Return the least ratio at which `zero` and `repack` remove a share of all weights, as factors rank now.

        Args:
            sparsity: share of all weights of the network, in [0, 1).

        Raises:
            ConversionError: more than can be removed.
        """
        total = sum(each.kernels.kernels_each * each.kernels.channels for each in self.sets)
        if sparsity <= 0:
            return 0.0
        most = self._sparsity(1.0)
        if most < sparsity:
            raise ConversionError(
                f"sparsity is {sparsity}; allowed: up to {most:.4f}, as every layer keeps the kernels of one crossbar"
            )
        low, high = 0, total
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._sparsity(middle / total) >= sparsity else (middle + 1, high)
        return low / total

    def _sparsity(self, ratio: float) -> float:
        """Share of the network's weights that goes at a ratio."""
        return 1 - self._weights_left(self._choose(ratio)[0]) / weights(self.model)

    def _weights_left(self, removals: Iterable[Removal]) -> int:
        masks = channel_masks(self.model, removals)
        layers = [(name, layer) for name, layer in modules(self.model) if isinstance(layer, MAPPED)]
        count = 0
        for name, layer in layers:
            outputs, inputs = masks.outputs[name], masks.inputs[name]
            share = 1.0 if one_a_group(layer) else float(inputs.sum()) / len(inputs)
            count += int(outputs.sum()) * round(share * math.prod(layer.weight.shape[1:]))
        return count

    def _saved(self, each: Competitor) -> int:
        """Weights that one channel of a set takes with it."""
        one = torch.arange(each.kernels.channels) == 0
        return weights(self.model) - self._weights_left([Removal(each.kernels, one)])

    @torch.no_grad()
    def _choose(self, ratio: float) -> tuple[list[Removal], int]:
        """What goes of each set at a ratio, and how many kernels were candidates."""
        if not 0 <= ratio <= 1:
            raise ConversionError(f"ratio is {ratio}; allowed: 0 to 1")
        if not self.sets:
            return [], 0
        factors = [self._score(each.kernels) for each in self.sets]
        every = torch.cat(factors)
        worth = torch.cat([torch.full((each.kernels.channels,), each.kernels.kernels_each) for each in self.sets])
        order = every.argsort(stable=True)
        total = worth[order].cumsum(0)
        within = total <= ratio * float(total[-1]) + 1e-9
        candidate = torch.zeros_like(within)
        candidate[order[within]] = True
        removals: list[Removal] = []
        parts = candidate.split([len(factor) for factor in factors])
        for each, factor, part in zip(self.sets, factors, parts, strict=True):
            goes = len(factor) - each.nearest_count(len(factor) - int(part.sum()))
            gone = torch.zeros(len(factor), dtype=torch.bool)
            gone[factor.argsort(stable=True)[:goes]] = True
            removals.append(Removal(each.kernels, gone))
        return removals, int(total[within][-1]) if bool(within.any()) else 0

    def _score(self, kernels: KernelSet) -> Tensor:
        """Importance of every channel, float64, (channels,)."""
        importance = self._importance.get(kernels.name)
        return self._factor(kernels).double().cpu() if importance is None else importance

    def _parameters_to_zero(self, kernels: KernelSet) -> list[tuple[Tensor, Tensor]]:
        """What `zero` makes zero of a set: parameters, and where in them, (channels, of this one)."""
        parameters: list[tuple[Tensor, Tensor]] = []
        for name, places in kernels.norms.items():
            norm = self._norm(name)
            parameters += [(norm.weight, places), (norm.bias, places)] if norm.affine else []
        for name in kernels.bare:
            places, bias = kernels.kernels[name], self.model.get_submodule(name).bias
            parameters.append((_trained_weight(self.model, name), places))
            parameters += [(bias, places)] if isinstance(bias, Tensor) else []
        return parameters

    def _factor(self, kernels: KernelSet) -> Tensor:
        parts = self._parts(kernels)
        total = torch.stack([part.sum(1) for part in parts]).sum(0)
        return total / sum(part.shape[1] for part in parts) if self.coupled == "mean" else total

    def _parts(self, kernels: KernelSet) -> list[Tensor]:
        """Magnitudes of a set's factors, (channels, of one module) each."""
        norms = [(n, places) for n, places in kernels.norms.items() if self._norm(n).affine]
        if norms:
            return [self._norm(name).weight.abs()[places] for name, places in norms]
        return [
            torch.linalg.vector_norm(_trained_weight(self.model, name).flatten(1), dim=1)[places]
            for name, places in kernels.kernels.items()
        ]

    def _norm(self, name: str) -> BatchNorm:
        norm = self.model.get_submodule(name)
        assert isinstance(norm, BatchNorm)
        return norm


def _zero(model: nn.Module, removal: Removal) -> None:
    """Zero factor and offset of some kernels, and weight and bias of those without a batch norm of their own."""
    kernels = removal.kernels
    for name, places in kernels.norms.items():
        norm = model.get_submodule(name)
        assert isinstance(norm, BatchNorm)
        if norm.affine:
            norm.weight[places[removal.gone]] = 0
            norm.bias[places[removal.gone]] = 0
    for name in kernels.bare:
        where, layer = kernels.kernels[name][removal.gone], model.get_submodule(name)
        _trained_weight(model, name)[where] = 0
        if isinstance(layer.bias, Tensor):
            layer.bias[where] = 0


def _trained_weight(model: nn.Module, name: str) -> Tensor:
    """The weight that an optimizer changes."""
    layer = model.get_submodule(name)
    weight = (
        layer.parametrizations.weight.original  # pyright: ignore[reportAttributeAccessIssue]
        if is_parametrized(layer, "weight")
        else layer.weight
    )
    assert isinstance(weight, Tensor)
    return weight


def _counts(kernels: KernelSet, layers: dict[str, nn.Module], columns: int) -> tuple[int, ...]:
    """How many channels of a set fill crossbars: so many that each layer wider than a crossbar has a multiple left."""
    unit = 0
    for name, places in kernels.kernels.items():
        layer = layers[name]
        groups = layer.groups if isinstance(layer, nn.Conv1d | nn.Conv2d) else 1
        assert isinstance(layer.weight, Tensor)
        if not one_a_group(layer) and layer.weight.shape[0] // groups > columns:
            each = places.shape[1] // groups
            unit = math.lcm(max(unit, 1), columns // math.gcd(columns, each))
    return (*(range(unit, kernels.channels, unit) if unit else ()), kernels.channels)


@torch.no_grad()
def _rehearse(plain: nn.Module, sets: list[KernelSet], example: Tensor) -> list[KernelSet]:
    """Take half of every set off a copy, and keep the sets without which the network would answer otherwise."""
    trial, rng = copied(plain), torch.Generator().manual_seed(0)
    halves = [
        Removal(kernels, torch.rand(kernels.channels, generator=rng).argsort() < kernels.channels // 2)
        for kernels in sets
        if not kernels.why
    ]
    for half in halves:
        _zero(trial, half)
    _, _, refused = remove_constants(trial, halves, example, constants(trial, example))
    return [replace(kernels, why=CHANGES) if kernels in refused else kernels for kernels in sets]
