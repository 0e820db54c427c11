"""Crossbar pruning: one trainable factor for all weights of a crossbar; where it is zero, the crossbar is not built.

S. Huai et al., "CRIMP", ACM TECS 22(5s), 2023: factors rank by magnitude, those left at the end go into the weights.
"""

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized, register_parametrization

from bitline.chip.description import Chip
from bitline.compress.prune.importance import taylor_terms
from bitline.compress.prune.zero_count import ZeroCount
from bitline.compress.result import UnchangedLayer
from bitline.errors import ConversionError, nearest
from bitline.mapping.layer import LayerPlacement
from bitline.mapping.lower import Lowerable, Matmul
from bitline.mapping.strategies import choose, placed
from bitline.network.copy import evaluating
from bitline.network.trace import MAPPED, modules, trace

Rank = Literal["factor", "norm"]
RANKS: tuple[Rank, ...] = get_args(Rank)


class BlockMask(nn.Module):
    """Weights times the factor of the crossbar that holds them: a parametrization of a layer's weight.

    Parameter: `factors`, (groups, crossbars below each other, crossbars side by side), ones at first.

    Args:
        placement: of the layer, dense.
        like: the weights, for type and device.
    """

    def __init__(self, placement: LayerPlacement, like: Tensor) -> None:
        super().__init__()
        matmul, per = placement.matmul, placement.tiles_per_crossbar
        rows, cols = placement.row_bounds[:-1:per], placement.col_bounds[:-1]
        self.shape = (matmul.groups, matmul.rows, matmul.cols)
        self.height = rows[1] if len(rows) > 1 else matmul.rows
        self.width = cols[1] if len(cols) > 1 else matmul.cols
        self.factors = nn.Parameter(like.new_ones(matmul.groups, len(rows), len(cols)))

    def forward(self, weight: Tensor) -> Tensor:
        """Multiply the weights of a layer, of its own shape."""
        return weight * self.spread(self.factors).transpose(1, 2).reshape(weight.shape)

    def spread(self, blocks: Tensor) -> Tensor:
        """Repeat one value a crossbar for each of its weights, (groups, rows, cols)."""
        groups, down, across = blocks.shape
        each = blocks[:, :, None, :, None].expand(groups, down, self.height, across, self.width)
        _, rows, cols = self.shape
        return each.reshape(groups, down * self.height, across * self.width)[:, :rows, :cols]

    def power(self, weight: Tensor) -> Tensor:
        """Sum of the squared weights of every crossbar, float64, shaped as `factors`."""
        groups, rows, cols = self.shape
        _, down, across = self.factors.shape
        squares = weight.new_zeros(groups, down * self.height, across * self.width, dtype=torch.float64)
        squares[:, :rows, :cols] = weight.detach().double().square().reshape(groups, cols, rows).transpose(1, 2)
        return squares.view(groups, down, self.height, across, self.width).sum((2, 4))

    def sizes(self) -> Tensor:
        """Count the weights of every crossbar, float64, shaped as `factors`."""
        groups, rows, cols = self.shape
        return self.power(self.factors.new_ones(groups * cols, rows))

    def extra_repr(self) -> str:
        """Say how many factors are not zero."""
        return f"{int((self.factors != 0).sum())} of {self.factors.numel()} crossbars of {self.height} x {self.width}"


class CrossbarBlocks:
    """One trainable factor for every crossbar of a network, of convolutions and linear layers.

    The factors are parameters of the network (`parametrizations.weight.0.factors` of each layer), so that a plain
    forward pass, its gradient and its state_dict include them; give the optimizer `model.parameters()` after this. A
    network that has such factors already, with their values, is taken as it is.

    Args:
        model: changed in place: its weights are parametrized.
        example: one batch, which shows what layers run.
        chip: whose crossbars count.
        rank: what `zero` compares: ``"factor"``: the magnitude of the factor, as published, and among equal ones as
            ``"norm"``; ``"norm"``: the factor times the root of the mean square weight of the crossbar, relative to
            that of the layer.
        mapping: layer name or kind -> strategy, as `to_crossbar` takes it; layers that are not dense have no factors.
        leave: names of layers without factors.

    Attributes:
        masks: layer name -> its BlockMask.
        unchanged: layers without factors, and why.

    Raises:
        ConversionError: no layer to prune, an unknown name or rank, weights parametrized by others, factors made for
            other crossbars, or a network that does not take the example.
    """

    def __init__(
        self,
        model: nn.Module,
        example: Tensor,
        chip: Chip,
        *,
        rank: Rank = "factor",
        mapping: Mapping[str, str] | None = None,
        leave: Collection[str] = (),
    ) -> None:
        if rank not in RANKS:
            raise ConversionError(f"rank is {rank!r}; allowed: {', '.join(RANKS)}{nearest(rank, RANKS)}")
        self.model, self.chip, self.rank = model, chip, rank
        self._importance: dict[str, Tensor] = {}
        layers = {name: layer for name, layer in modules(model) if isinstance(layer, MAPPED)}
        for name in leave:
            if name not in layers:
                raise ConversionError(f"leave names {name!r}, which is no layer{nearest(name, layers)}")
        self.masks: dict[str, BlockMask] = {}
        self.unchanged: tuple[UnchangedLayer, ...] = tuple(
            UnchangedLayer(name, "left as asked") for name in layers if name in leave
        )
        matmuls = _trace(model, example, layers)
        chosen = choose(matmuls, mapping or {})
        for matmul in matmuls:
            placement = placed(matmul, chip, chosen[matmul.name])
            if placement.strategy != "dense":
                self.unchanged += (
                    UnchangedLayer(matmul.name, f"mapped as {placement.strategy}, which keeps every crossbar"),
                )
            elif matmul.name not in leave:
                self.masks[matmul.name] = _add_mask(matmul.name, layers[matmul.name], placement)
        if not self.masks:
            raise ConversionError(f"{type(model).__name__} has no layer whose crossbars could be pruned")

    def penalty(self) -> Tensor:
        """Sum of the magnitudes of all factors, with a gradient."""
        return torch.stack([mask.factors.abs().sum() for mask in self.masks.values()]).sum()

    def measure_importance(self, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        """Rank crossbars from now on by their Taylor importance on these batches; `rank` decides between equal ones.

        Args:
            batches: images and labels; many small batches say more than a few large ones. See
                `bitline.compress.prune.importance`.
        """
        factors = {name: mask.factors for name, mask in self.masks.items()}
        importance = {name: factor.new_zeros(factor.shape, dtype=torch.float64) for name, factor in factors.items()}
        for terms in taylor_terms(self.model, batches, list(factors.values())):
            for total, term in zip(importance.values(), terms, strict=True):
                total += term.square()
        self._importance = importance

    @torch.no_grad()
    def zero(self, ratio: float) -> ZeroCount:
        """Set a share of all factors to zero, in place: the least important over the whole network.

        Factors that came back since the last time compete like any other. The most important of a layer stays.

        Args:
            ratio: share of the crossbars, in [0, 1].

        Raises:
            ConversionError: another ratio.
        """
        if not 0 <= ratio <= 1:
            raise ConversionError(f"ratio is {ratio}; allowed: 0 to 1")
        sizes = {name: mask.factors.numel() for name, mask in self.masks.items()}
        wanted = int(ratio * sum(sizes.values()) + 1e-9)
        left: dict[str, int] = {}
        for name, zero in self._order().lowest(wanted).items():
            factors = self.masks[name].factors
            factors[zero.view(factors.shape).to(factors.device)] = 0
            left[name] = int(factors.count_nonzero())
        return ZeroCount("crossbars", left, sizes, wanted)

    @torch.no_grad()
    def target(self, sparsity: float) -> float:
        """Return the least ratio at which `zero` removes a share of the network's weights, as factors rank now.

        Args:
            sparsity: share of all weights of the network, in [0, 1).

        Raises:
            ConversionError: more than can be removed.
        """
        whole = sum(layer.weight.numel() for _, layer in modules(self.model) if isinstance(layer, MAPPED))
        sizes = {name: mask.sizes().flatten().cpu() for name, mask in self.masks.items()}
        order, total = self._order(), sum(len(each) for each in sizes.values())

        def removed(count: int) -> float:
            return sum(float(sizes[name][zero].sum()) for name, zero in order.lowest(count).items()) / whole

        if sparsity > removed(total):
            raise ConversionError(
                f"sparsity is {sparsity}; allowed: up to {removed(total):.4f}, as one crossbar of every layer stays"
            )
        count = bisect_left(range(total + 1), sparsity, key=removed)
        return count / total

    def fold(self) -> None:
        """Multiply the factors into the weights, in place, and take them off; each weight stays the same parameter."""
        fold_masks(self.model)
        self.masks = {}

    def _order(self) -> "_Order":
        return _Order({name: self._scores(name) for name in self.masks})

    def _scores(self, name: str) -> Tensor:
        """Importance of every crossbar, and a second row that decides between equal ones, (2, crossbars)."""
        mask, layer = self.masks[name], self.model.get_submodule(name)
        power, weights = mask.power(_trained_weight(layer)), mask.sizes()
        mean = power.sum() / weights.sum()
        norm = (power / weights / mean.clamp_min(torch.finfo(torch.float64).tiny)).sqrt()
        factor = torch.where(power > 0, mask.factors.detach().double().abs(), 0)  # empty ones learn none
        first = self._importance.get(name, factor * norm if self.rank == "norm" else factor)
        return torch.stack([first.flatten(), (factor * norm).flatten()]).cpu()


@torch.no_grad()
def fold_masks(model: nn.Module) -> nn.Module:
    """Multiply the factors of crossbars into the weights of a network, in place, and take them off."""
    for _, layer in modules(model):
        if mask_of(layer) is not None:
            original = _trained_weight(layer)
            original.copy_(layer.weight)  # pyright: ignore[reportArgumentType]
            # Copies of a layer share its class, whose property remove_parametrizations would delete for all of them.
            layer.__class__ = type(layer).__bases__[0]
            del layer.parametrizations
            layer.register_parameter("weight", original)
    return model


def mask_of(layer: nn.Module) -> BlockMask | None:
    """The factors of a layer, where it has any."""
    if not is_parametrized(layer, "weight") or len(layer.parametrizations) != 1:  # pyright: ignore[reportArgumentType]
        return None
    steps = list(layer.parametrizations.weight)  # pyright: ignore[reportAttributeAccessIssue, reportArgumentType]
    return steps[0] if len(steps) == 1 and isinstance(steps[0], BlockMask) else None


def _trained_weight(layer: nn.Module) -> nn.Parameter:
    """The weights without their factors."""
    weight = layer.parametrizations.weight.original  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(weight, nn.Parameter)
    return weight


def _trace(model: nn.Module, example: Tensor, layers: Mapping[str, Lowerable]) -> list[Matmul]:
    """List the layers that run on an example, in order, without changing the statistics of batch norms."""
    with evaluating(model):
        return trace(model, example.to(next(model.parameters()).device), dict(layers))


def _add_mask(name: str, layer: nn.Module, placement: LayerPlacement) -> BlockMask:
    """Give a layer its factors, or find those it has."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    mask = mask_of(layer)
    if mask is None:
        if is_parametrized(layer):
            raise ConversionError(f"layer {name}: its weights are parametrized by others; take that off first")
        mask = BlockMask(placement, weight.detach())
        register_parametrization(layer, "weight", mask)
    wanted = BlockMask(placement, weight.detach())
    if (mask.factors.shape, mask.height, mask.width) != (wanted.factors.shape, wanted.height, wanted.width):
        raise ConversionError(
            f"layer {name} has factors for {mask.extra_repr()}; chip {placement.chip.name} has crossbars of "
            f"{wanted.height} x {wanted.width}"
        )
    return mask


class _Order:
    """Crossbars of all layers, the least important first.

    Args:
        scores: layer name -> importance, and what decides between equal ones, (2, crossbars).
    """

    def __init__(self, scores: dict[str, Tensor]) -> None:
        self.scores = scores
        self.places = _ascending(torch.cat(list(scores.values()), 1))
        self.best = {name: int(_ascending(score)[-1]) for name, score in scores.items()}

    def lowest(self, count: int) -> dict[str, Tensor]:
        """Mark the least important crossbars, so many, but for the best of each layer."""
        lowest = torch.zeros(len(self.places), dtype=torch.bool)
        lowest[self.places[:count]] = True
        parts = dict(zip(self.scores, lowest.split([score.shape[1] for score in self.scores.values()]), strict=True))
        for name, zero in parts.items():
            zero[self.best[name]] = False
        return parts


def _ascending(scores: Tensor) -> Tensor:
    """Order columns by the first row, equal ones by the second."""
    second = scores[1].argsort(stable=True)
    return second[scores[0][second].argsort(stable=True)]
