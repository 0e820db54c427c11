"""Measuring the statistics of a surrogate: the exact simulation of a few images, beside the plain product."""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.mvm.effective import effective_weights
from bitline.network.copy import evaluating
from bitline.network.inputs import Inputs, call, count, mapped
from bitline.nn import IDEAL, CrossbarLayer, crossbar_layers, on
from bitline.nn.observe import in_mode
from bitline.surrogate.answer import answering
from bitline.surrogate.statistics import FEWEST_MAPS, MOST_NUMBERS, CellErrors, Seen, Surrogate, of_layers

_AT_ONCE = 16
"""images whose products are made beside their answers"""
_DRAWS = 4
"""passes by the surrogate, each with noise of its own, when it is tried"""


@torch.no_grad()
def measure(model: nn.Module, batches: Sequence[Inputs], *, seed: int | Sequence[int] = IDEAL) -> Surrogate:
    """Run some images through a network on its chip, exactly, and note what each layer adds to its plain product.

    Inputs of every layer are those that the chip's layers before it give, so that statistics belong to the network as
    it runs. Then the network answers the same images without conversions and, with the noise of others, by the
    surrogate: how many images conversions move to another class, and how many the surrogate does.

    Args:
        model: converted and calibrated; it is left as it was.
        batches: images, normalized.
        seed: of the programmed chip that answers; -1: ideal cells. Of several, each answers one batch after the other.

    Raises:
        ConversionError: nothing is on crossbars, it is not calibrated, or there are no images.
    """
    layers = crossbar_layers(model)
    apart = tuple(name for name, layer in layers.items() if layer.whole_placement.together > 1)
    names = {layer: name for name, layer in layers.items() if name not in apart}
    seen: dict[str, Seen] = {}  # in the order that layers run
    total = sum(map(count, batches))

    def see(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], y: Tensor) -> None:
        assert isinstance(layer, CrossbarLayer)
        x = args[0] if args else kwargs["input"]
        share = max(FEWEST_MAPS, MOST_NUMBERS // max(1, y[:1].numel())) / max(1, total)
        for some, answer in zip(x.split(_AT_ONCE), y.split(_AT_ONCE), strict=True):
            product = layer.linear_answer(some, layer.fake_input(some))
            kept = math.ceil(share * len(some))
            seen.setdefault(names[layer], Seen()).add(product, answer - product, _axis(layer), keep=kept)

    chips = [seed] if isinstance(seed, int) else [*seed]
    cells: dict[str, CellErrors | None] = {}
    device = next(iter(layers.values())).weight.device
    exact: list[object] = []
    with evaluating(model), in_mode("chip", *layers.values()), ExitStack() as stack:
        for layer in names:
            stack.callback(layer.register_forward_hook(see, with_kwargs=True).remove)
        for number, chip in enumerate(chips):
            with on(model, seed=chip):
                own = [mapped(images, lambda x: x.to(device)) for images in batches[number :: len(chips)]]
                exact += [call(model, images) for images in own]
                cells = {name: cell_errors(layer) for layer, name in names.items()}  # of the last chip
    if (not seen and names) or not total:
        raise ConversionError("a surrogate is measured on images; there are none, or no layer runs")
    axes = {name: _axis(layer) for layer, name in names.items()}
    statistics = of_layers([(each, axes[name]) for name, each in seen.items()], [cells[name] for name in seen])
    surrogate = Surrogate(
        layers=dict(zip(seen, statistics, strict=True)),
        exact=apart,
        images=total,
        chip=next(iter(layers.values())).chip,
        seeds=tuple(chips),
    )
    return surrogate if len(chips) > 1 else _tried(model, surrogate, batches, exact)


def _tried(model: nn.Module, surrogate: Surrogate, batches: Sequence[Inputs], exact: Sequence[object]) -> Surrogate:
    """Return the surrogate with what it makes of its own images, where outputs are scores of classes."""
    if not all(isinstance(y, Tensor) and y.dim() == 2 for y in exact):
        return surrogate
    layers = crossbar_layers(model)
    device = next(iter(layers.values())).weight.device

    def classes() -> Tensor:
        return torch.cat([call(model, mapped(images, lambda x: x.to(device))).argmax(1) for images in batches])

    with evaluating(model), on(model, seed=surrogate.seeds[0]):
        with in_mode("linear", *(layers[name] for name in surrogate.layers)):
            linear = classes()
        with answering(model, surrogate):
            ours = torch.stack([classes() != linear for _ in range(_DRAWS)]).double().mean(0)
    chip = (torch.cat([cast("Tensor", y).argmax(1) for y in exact]) != linear).double()
    difference = ours - chip
    spread = float(difference.std(correction=0)) / math.sqrt(len(difference))
    unlike = float(difference.mean()) / spread if spread else 0.0
    return replace(surrogate, changed=float(chip.mean()), unlike=unlike)


def cell_errors(layer: CrossbarLayer) -> CellErrors | None:
    """Return mean and spread of the errors of a layer's weights as it is programmed, by integer; None for ideal cells.

    Integers that few weights have share in what all weights err by.
    """
    if int(layer.chip_seed) == IDEAL or not layer.converts:
        return None
    whole = layer.integer_weights()
    errors = effective_weights(layer.crossbars(layer.chip, int(layer.chip_seed))) - whole
    low = int(whole.min())
    index = (whole - low).long().flatten()
    errors = errors.flatten().double()
    count = torch.bincount(index).double()
    first, second = (torch.bincount(index, errors**power) for power in (1, 2))
    few = 4.0
    count, first = count + few, first + few * errors.mean()
    mean = first / count
    std = ((second + few * errors.square().mean()) / count - mean.square()).clamp(min=0).sqrt()
    return None if not bool((errors != 0).any()) else CellErrors(low, mean.float(), std.float())


def _axis(layer: nn.Module) -> int:
    """That of the channels of a layer's output."""
    return -1 if isinstance(layer, nn.Linear) else 1
