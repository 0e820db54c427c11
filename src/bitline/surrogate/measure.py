"""Measuring the statistics of a surrogate: the exact simulation of a few images, beside the plain product."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.mvm.effective import effective_weights
from bitline.network.copy import evaluating
from bitline.network.inputs import Inputs, call, count, mapped
from bitline.nn import IDEAL, CrossbarLayer, crossbar_layers, on
from bitline.nn.observe import in_mode
from bitline.surrogate.statistics import CellErrors, Moments, Surrogate, of_layers

_AT_ONCE = 16


@torch.no_grad()
def measure(model: nn.Module, batches: Sequence[Inputs], *, seed: int | Sequence[int] = IDEAL) -> Surrogate:
    """Run some images through a network on its chip, exactly, and note what each layer adds to its plain product.

    Inputs of every layer are those that the chip's layers before it give, so that statistics belong to the network as
    it runs. One pass of a few images: 64 positions of an image tell more than the outputs of a whole one.

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
    moments: dict[str, Moments] = {}  # in the order that layers run

    def see(layer: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], y: Tensor) -> None:
        assert isinstance(layer, CrossbarLayer)
        x = args[0] if args else kwargs["input"]
        for some, answer in zip(x.split(_AT_ONCE), y.split(_AT_ONCE), strict=True):
            product = layer.linear_answer(some, layer.fake_input(some))
            seen = moments.setdefault(names[layer], Moments())
            seen.add(_vectors(layer, product), _vectors(layer, answer - product))

    device = next(iter(layers.values())).weight.device
    chips = [seed] if isinstance(seed, int) else seed
    cells: dict[str, CellErrors | None] = {}
    with evaluating(model), in_mode("chip", *layers.values()), ExitStack() as stack:
        for layer in names:
            handle = layer.register_forward_hook(see, with_kwargs=True)
            stack.callback(handle.remove)
        for number, chip in enumerate(chips):
            with on(model, seed=chip):
                for images in batches[number :: len(chips)]:
                    call(model, mapped(images, lambda x: x.to(device)))
                cells = {name: cell_errors(layer) for layer, name in names.items()}  # of the last chip
    if (not moments and names) or not sum(map(count, batches)):
        raise ConversionError("a surrogate is measured on images; there are none, or no layer runs")
    statistics = of_layers(list(moments.values()), [cells[name] for name in moments])
    measured = dict(zip(moments, statistics, strict=True))
    return Surrogate(measured, apart, sum(map(count, batches)))


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


def _vectors(layer: CrossbarLayer, y: Tensor) -> Tensor:
    """Outputs as (images, positions, outputs)."""
    return y.unsqueeze(1).flatten(1, -2) if isinstance(layer, nn.Linear) else y.flatten(2).transpose(1, 2)
