"""Biases set again for one programmed chip, as batch norms set their means.

Errors of cells do not average out: over a layer's inputs, which are not negative, they move the mean of every output
channel. A bias is digital and can move it back. Our reconstruction of "self-compensation" (CRIMP, ACM TECS 2023, of
which this part is not public).
"""

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.network.copy import evaluating
from bitline.network.inputs import call, inputs_of, mapped
from bitline.nn.cells import IDEAL
from bitline.nn.layer import CrossbarLayer
from bitline.nn.on import crossbar_layers, on


class BiasCorrection:
    """What the biases of a network were before they were set for one chip.

    Args:
        biases: by layer; None where there was none.
    """

    def __init__(self, biases: dict[CrossbarLayer, Tensor | None]) -> None:
        self._biases = biases

    @torch.no_grad()
    def restore(self) -> None:
        """Give every layer its former bias."""
        for layer, bias in self._biases.items():
            if bias is None:
                layer.bias = None
            elif layer.bias is not None:
                layer.bias.copy_(bias)


class BatchBiasCorrection:
    """Output channels that keep a mean while a network trains on programmed chips, as after `correct_biases`.

    The mean is taken over each batch, with its gradient, as a batch norm does. Ideal cells are left as they are.

    Args:
        targets: what gives the mean that each layer's outputs are to have, (channels,).
    """

    def __init__(self, targets: Mapping[CrossbarLayer, Callable[[], Tensor]]) -> None:
        self.targets = dict(targets)
        for layer in self.targets:
            layer.register_forward_hook(self._move)

    def _move(self, layer: nn.Module, _: object, y: Tensor) -> Tensor | None:
        assert isinstance(layer, CrossbarLayer)
        if int(layer.chip_seed) == IDEAL or layer.mode == "float":
            return None
        channel = y.dim() - 1 if isinstance(layer, nn.Linear) else 1
        mean = y.mean([axis for axis in range(y.dim()) if axis != channel], keepdim=True)
        return y - mean + _along(layer, self.targets[layer](), y).to(y.dtype)


@torch.no_grad()
def correct_biases(model: nn.Module, batches: Iterable[Any]) -> BiasCorrection:
    """Let the bias of every layer take the difference of channel means between ideal cells and this chip.

    The batches pass twice, through ideal cells and through the chip. On the second way the output of every layer is
    moved to the means of the first before the next layer reads it, so that one pass serves all layers; a bias takes the
    mean of what its layer was moved by.

    Args:
        model: converted, calibrated and programmed.
        batches: inputs, or (inputs, targets) as data loaders give; no targets are used.

    Returns:
        What restores the biases.

    Raises:
        ConversionError: no layer on crossbars, or no data.
    """
    layers = list(crossbar_layers(model).values())
    ideal = dict.fromkeys(layers, IDEAL)
    programmed = {layer: int(layer.chip_seed) for layer in layers}
    moved: dict[CrossbarLayer, list[tuple[Tensor, int]]] = {layer: [] for layer in layers}
    means: dict[CrossbarLayer, list[Tensor]] = {layer: [] for layer in layers}

    def look(layer: CrossbarLayer, y: Tensor) -> None:
        means[layer].append(_mean(layer, y))

    def move(layer: CrossbarLayer, y: Tensor) -> Tensor:
        by = means[layer].pop(0) - _mean(layer, y)
        moved[layer].append((by, len(y)))
        return y + _along(layer, by.to(y.dtype), y)

    device = layers[0].weight.device
    inputs = [mapped(inputs_of(batch), lambda x: x.to(device)) for batch in batches]
    with evaluating(model):
        for see, seeds in ((look, ideal), (move, programmed)):
            with ExitStack() as stack:
                for layer, seed in seeds.items():
                    stack.enter_context(on(layer, seed=seed))
                stack.enter_context(_outputs(layers, see))
                for x in inputs:
                    call(model, x)
    if not any(moved.values()):
        raise ConversionError("correct_biases has no data: no batch passed any layer on crossbars")
    return _take(moved)


def _take(moved: dict[CrossbarLayer, list[tuple[Tensor, int]]]) -> BiasCorrection:
    """Add to each bias the mean of what its layer was moved by."""
    before: dict[CrossbarLayer, Tensor | None] = {}
    for layer, shifts in moved.items():
        if not shifts:
            continue
        bias = layer.bias
        before[layer] = None if bias is None else bias.detach().clone()
        shift = sum((by * count for by, count in shifts), torch.zeros(())) / sum(count for _, count in shifts)
        if bias is None:
            layer.bias = nn.Parameter(shift.to(layer.weight), requires_grad=False)
        else:
            bias.add_(shift.to(bias))
    return BiasCorrection(before)


@contextmanager
def _outputs(layers: Iterable[CrossbarLayer], see: Callable[[CrossbarLayer, Tensor], Tensor | None]) -> Generator[None]:
    """Call `see` with every layer and its output; what it returns takes the output's place."""

    def hook(module: nn.Module, _: object, y: Tensor) -> Tensor | None:
        assert isinstance(module, CrossbarLayer)
        return see(module, y)

    handles = [layer.register_forward_hook(hook) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _mean(layer: CrossbarLayer, y: Tensor) -> Tensor:
    """Mean of each output channel over images and positions, float64."""
    channel = y.dim() - 1 if isinstance(layer, nn.Linear) else 1
    return y.detach().double().mean([axis for axis in range(y.dim()) if axis != channel])


def _along(layer: CrossbarLayer, channels: Tensor, y: Tensor) -> Tensor:
    return channels if isinstance(layer, nn.Linear) else channels.view(-1, *[1] * (y.dim() - 2))
