"""A network reconstructed layer by layer: what the dense layer gave, and what the network rewritten so far gives it.

Inputs come from the network as rewritten so far and wanted outputs from the dense one, so that a layer makes good what
those before it lost (asymmetric reconstruction: X. Zhang et al., TPAMI 2016, doi:10.1109/TPAMI.2015.2502579).
"""

import contextlib
import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from bitline import seeds
from bitline.compress.reconstruct.choose import Dense
from bitline.compress.reconstruct.statistics import Enough, Statistics, follow, recalibrate
from bitline.errors import ConversionError
from bitline.mapping.lower import input_view
from bitline.models.blocks import Block, biased
from bitline.models.rewrite import replace
from bitline.network.copy import copied
from bitline.network.readers import BatchNorm, neighbours
from bitline.network.trace import MAPPED, run_hooked


@dataclass(frozen=True)
class Sampling:
    """Which data decide.

    Args:
        positions: output positions of a layer to look at, at most so many over all images, but one of each image.
        seed: of the choice of positions, and of the random starts of an assignment.
    """

    positions: int = 8192
    seed: int = 0

    def __post_init__(self) -> None:
        if self.positions < 1:
            raise ConversionError(f"positions is {self.positions}; allowed: 1 or more")


@dataclass
class Activations:
    """Inputs and outputs of a layer in the dense network.

    Args:
        axes: of its input; nothing further is known where these are not (batch, channels, length...).
        images: how many.
        power: mean square of each input channel, float64.
        outputs: at the sampled positions, without the layer's bias, (vectors, out_channels), for each call in each
            batch.
    """

    axes: int
    images: int = 0
    power: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    outputs: list[list[Tensor]] = field(default_factory=list[list[Tensor]])


@dataclass(frozen=True)
class Sample:
    """Sampled positions of some images.

    Args:
        x: input vectors, (vectors, in_channels, kernel positions).
        y: outputs of the dense network without the layer's bias, (vectors, out_channels).
    """

    x: Tensor
    y: Tensor


class Reconstruction:
    """Layers of a network in the order they run; each is looked at, and perhaps replaced, before the next.

    Args:
        model: any network; it is not changed.
        batches: that decide, inputs of the network or pairs of inputs and labels.
        names: of the layers to reconstruct.
        sampling: which positions to look at.
        norms: whether batch norms are to follow what changes before them.

    Attributes:
        dense: the network as it was.
        model: the network as rewritten so far.
        activations: of each layer that ran in the dense network, by name, in running order.

    Raises:
        ConversionError: no batches, or batches that the model does not take.
    """

    def __init__(
        self,
        model: nn.Module,
        batches: Iterable[Tensor | Sequence[Tensor]],
        names: Collection[str],
        sampling: Sampling,
        *,
        norms: bool,
    ) -> None:
        if isinstance(batches, Tensor):
            raise ConversionError("batches are an iterable of tensors; put a single tensor in a list: [images]")
        self.dense, self.model = copied(model).eval(), copied(model).eval()
        first = next(self.model.parameters(), torch.zeros(()))
        self.batches = [(b if isinstance(b, Tensor) else b[0]).to(first.device) for b in batches]
        if not self.batches:
            raise ConversionError("batches is empty; images are needed to see what the layers do")
        self.sampling = sampling
        self._each = max(1, sampling.positions // sum(len(batch) for batch in self.batches))
        self.activations: dict[str, Activations] = {}
        self._order: list[str] = []
        self._batch_norms = {
            name
            for name, module in self.dense.named_modules()
            if isinstance(module, BatchNorm) and module.running_mean is not None
        }
        layers = {
            name: layer for name, layer in self.dense.named_modules() if name in names and isinstance(layer, Dense)
        }
        everything = [name for name, module in self.dense.named_modules() if isinstance(module, (*MAPPED, BatchNorm))]
        for number, batch in enumerate(self.batches):
            handles = [
                self.dense.get_submodule(name).register_forward_hook(
                    self._recorder(name, layers.get(name), number), with_kwargs=True
                )
                for name in everything
            ]
            run_hooked(self.dense, batch, handles)
        for name, activations in self.activations.items():
            activations.power /= activations.images
            if not bool(activations.power.isfinite().all()):
                raise ConversionError(f"layer {name} is given NaN or infinite values, which nothing can be fitted to")
        self._norms = {layer: norm for norm, layer in neighbours(self.dense, layers, self.batches[0][:2]).items()}
        self._follows = norms
        self._followed: set[str] = set()
        self._changed = False

    @property
    def last(self) -> str:
        """Name of the last layer."""
        layers = (name for name in reversed(self._order) if name not in self._batch_norms)
        return next(layers, "")

    def _recorder(self, name: str, layer: Dense | None, number: int) -> Callable[..., None]:
        """Make a hook that notes that a layer ran and, for one to reconstruct, what it was given and what it gave."""

        def record(_: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], y: Tensor) -> None:
            if name not in self._order:
                self._order.append(name)
            if layer is not None:
                self._record(name, layer, number, args[0] if args else kwargs["input"], y)

        return record

    def _record(self, name: str, layer: Dense, number: int, x: Tensor, y: Tensor) -> None:
        activations = self.activations.setdefault(name, Activations(x.dim()))
        activations.images += len(x)
        if x.dim() != layer.weight.dim():
            return
        activations.power = activations.power.to(x.device) + x.transpose(0, 1).flatten(1).double().square().mean(
            1
        ) * len(x)
        activations.outputs += [[] for _ in range(number + 1 - len(activations.outputs))]
        calls = activations.outputs[number]
        at = self._sampled_positions(y, (number, len(calls)))
        picked = y.flatten(2).transpose(1, 2)[_images(at), at].flatten(0, 1) if y.dim() > 2 else y
        calls.append(picked.clone() if layer.bias is None else picked - layer.bias)

    def _sampled_positions(self, y: Tensor, call: tuple[int, int]) -> Tensor:
        """Positions to look at in one call of a layer on one batch, (images, so many); the same whenever asked."""
        positions = math.prod(y.shape[2:])
        if positions <= self._each:
            return torch.arange(positions, device=y.device).expand(len(y), -1)
        rng = torch.Generator().manual_seed(seeds.of_call(self.sampling.seed, *call))
        return torch.rand(len(y), positions, generator=rng).argsort(1)[:, : self._each].to(y.device)

    def layer(self, name: str) -> Dense:
        """The dense layer, which stands in both networks until it is replaced."""
        layer = self.model.get_submodule(name)
        assert isinstance(layer, Dense)
        return layer

    def samples(self, name: str) -> Iterator[Sample]:
        """Yield what the rewritten network gives a layer, and what the dense one made of it there, call by call."""
        self._let_follow(until=name)
        layer = self.layer(name)
        for number, wanted in enumerate(self.activations[name].outputs):
            vectors: list[Tensor] = []

            def take(
                _: nn.Module,
                args: tuple[Tensor, ...],
                kwargs: dict[str, Tensor],
                vectors: list[Tensor] = vectors,
                last: tuple[int, int] = (number, len(wanted) - 1),
            ) -> None:
                call = (last[0], len(vectors))
                vectors.append(self._vectors(layer, args[0] if args else kwargs["input"], call))
                if call == last:
                    raise Enough

            with contextlib.suppress(Enough):
                handle = layer.register_forward_pre_hook(take, with_kwargs=True)
                run_hooked(self.model, self.batches[number], [handle])
            if len(vectors) != len(wanted):
                raise ConversionError(
                    f"layer {name} ran {len(vectors)} times on a batch, and {len(wanted)} times before others were "
                    "rewritten; which layers run must not depend on the data"
                )
            yield from map(Sample, vectors, wanted)

    def _vectors(self, layer: Dense, x: Tensor, call: tuple[int, int]) -> Tensor:
        """Input vectors at the sampled positions, (vectors, in_channels, kernel positions)."""
        if isinstance(layer, nn.Linear):
            return x.unsqueeze(-1).clone()
        view = input_view(layer, x)
        at = self._sampled_positions(view[..., 0, 0, 0, 0].unsqueeze(1), call)
        picked = view[_images(at), at // view.shape[2], at % view.shape[2]]
        return picked.reshape(-1, layer.in_channels, math.prod(layer.kernel_size))

    def factors(self, name: str) -> Tensor:
        """What the batch norm after a layer multiplies each output by, in magnitude; ones where there is none."""
        layer, norm = self.layer(name), self.norm(name)
        if norm is None or norm.running_var is None:
            return torch.ones(layer.weight.shape[0], dtype=torch.float64, device=layer.weight.device)
        factor = torch.rsqrt(norm.running_var.double() + norm.eps)
        return factor * norm.weight.detach().double().abs() if norm.affine else factor

    def norm(self, name: str) -> BatchNorm | None:
        """The batch norm of the rewritten network that sees the result of a layer, and of no other."""
        norm = self.model.get_submodule(self._norms[name]) if name in self._norms else None
        return norm if isinstance(norm, BatchNorm) else None

    def offset_is_free(self, name: str) -> bool:
        """Whether a constant that a layer adds can be made good: by its bias, or by a batch norm that follows it."""
        return biased(self.layer(name)) or self.follows(name)

    def follows(self, name: str) -> bool:
        """Whether a batch norm follows what becomes of a layer."""
        return self._follows and name in self._norms

    def put(self, name: str, block: Block, dense: Statistics, now: Statistics, *, refit: bool) -> None:
        """Replace a layer, give the block its bias, and let the batch norm behind it follow.

        Args:
            name: of the layer.
            block: with its weights.
            dense: of the dense layer's outputs without its bias.
            now: of the block's outputs without a bias.
            refit: whether the bias makes good the mean.
        """
        old, last, norm = self.layer(name), block.get_submodule(block.last), self.norm(name)
        self.model = replace(self.model, name, block)
        if not self._changed:
            before_any = self._order[: self._order.index(name)]
            self._followed.update(norm for norm in before_any if norm in self._batch_norms)
            self._changed = True
        if old.bias is not None:
            made_good = dense.mean - now.mean if refit else torch.zeros_like(now.mean)
            bias = old.bias.detach() + made_good.to(old.bias)
            last.bias = nn.Parameter(
                bias if block.order is None else bias[block.order.argsort()], old.bias.requires_grad
            )
            now = Statistics(now.mean + made_good, now.variance)
        if norm is not None and self._follows:
            follow(norm, dense, now)
            self._followed.add(self._norms[name])

    def finish(self) -> nn.Module:
        """Let the last batch norms follow, and return the rewritten network."""
        self._let_follow(until=None)
        return self.model

    def _let_follow(self, *, until: str | None) -> None:
        """Let the batch norms in front of a layer follow what has changed, where none has done so yet."""
        if self._follows and self._changed:
            reached = self._order if until is None else self._order[: self._order.index(until)]
            waiting = [name for name in reached if name in self._batch_norms and name not in self._followed]
            recalibrate(self.model, self.dense, waiting, self.batches, until=until)
            self._followed.update(waiting)


def _images(at: Tensor) -> Tensor:
    """Index of the image beside each of its positions."""
    return torch.arange(len(at), device=at.device).unsqueeze(1)
