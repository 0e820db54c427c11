"""Input and ADC ranges from data."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from bitline.chip.variants import ideal
from bitline.errors import ConversionError
from bitline.mapping.quantize import RangeHistogram
from bitline.network.copy import evaluating
from bitline.nn.grid import Grid, grids
from bitline.nn.layer import CrossbarLayer
from bitline.nn.observe import in_mode, watching
from bitline.nn.on import crossbar_layers, on

_OUTLIERS = 0.01
"""share of input vectors that has no say in ranges fitted in turn"""


@torch.no_grad()
def calibrate(
    model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], *, in_turn: bool = False, progress: bool = False
) -> None:
    """Set the input and ADC ranges of a converted network from data, keeping histograms and a bounded sample.

    Every batch passes twice: first through the plain network to find input ranges, then through ideal crossbars to
    count partial sums. Both are kept as histograms, with some input vectors of each layer, so the memory does not grow
    with the data.

    Args:
        model: from `to_crossbar`.
        batches: tensors, or (inputs, labels) as data loaders give; it is walked twice.
        in_turn: then fit the ADC ranges of one layer after the other again, on what the layers before it now answer
            on the chip with ideal cells. Where ADCs are coarse, their errors move the sums of the layers behind them.
            It walks the batches once for every layer. A hundredth of the input vectors, those that err most, have no
            say: errors of the layers before blow up a few images.
        progress: show a bar.

    Raises:
        ConversionError: no layer on crossbars, no data, or `batches` can be walked once only.
    """
    if isinstance(batches, Iterator):
        raise ConversionError("calibrate walks the batches twice; give a list or a data loader, not an iterator")
    if isinstance(batches, Tensor):
        raise ConversionError("calibrate takes an iterable of batches; put a single tensor in a list: [images]")
    layers, stored = crossbar_layers(model), grids(model)
    with evaluating(model):
        _input_ranges(model, layers, stored, _batches(model, batches, "input ranges", progress))
        _partial_sums(model, layers, _batches(model, batches, "partial sums", progress))
        for layer in layers.values():
            layer.fit()
        if in_turn:
            _fit_in_turn(model, batches, progress)


def _input_ranges(
    model: nn.Module, layers: Mapping[str, CrossbarLayer], stored: Mapping[str, Grid], batches: Iterable[Tensor]
) -> None:
    """Set the input range of every layer, and every grid, from what the plain network makes of the batches."""
    inputs = {layer: RangeHistogram() for layer in layers.values()}
    values = {grid: RangeHistogram() for grid in stored.values()}

    def see_input(layer: CrossbarLayer, x: Tensor) -> None:
        layer.check(x)
        inputs[layer].add(x)

    def see_value(grid: Grid, x: Tensor) -> None:
        values[grid].add(x)

    with in_mode("float", *inputs, *values), watching(inputs, see_input), watching(values, see_value):
        for x in batches:
            model(x)
    for name, layer in layers.items():
        histogram, settings = inputs[layer], layer.chip.inputs
        if float(histogram.counts.sum()) == 0 and histogram.top == 0:
            raise ConversionError(f"layer {name} saw no data but zeros; its input range is unknown")
        scale = histogram.scale(
            settings.bits, settings.calibration, settings.percentile, settings.scale, settings.rounding
        )
        layer.ranges.input_scale.fill_(scale)
        layer.ranges.input_signed.fill_(histogram.negative)
        layer.ranges.sums = None
    for grid, histogram in values.items():
        grid.fit(histogram)


def _partial_sums(model: nn.Module, layers: Mapping[str, CrossbarLayer], batches: Iterable[Tensor]) -> None:
    """Count the partial sums of every layer while exact integer products answer."""
    chips = {layer: layer.chip for layer in layers.values()}

    def see(layer: CrossbarLayer, x: Tensor) -> None:
        layer.count_sums(x, chips[layer])

    with in_mode("chip", *chips, *grids(model).values()), ExitStack() as stack:
        for layer, chip in chips.items():
            stack.enter_context(on(layer, ideal(chip)))
        stack.enter_context(watching(chips, see))
        for x in batches:
            model(x)


def _fit_in_turn(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], progress: bool) -> None:
    """Fit the ADC ranges of each layer to the sums that inputs from the chip make."""
    layers = {name: layer for name, layer in crossbar_layers(model).items() if layer.chip.adc.keeps_ranges}

    def see(layer: CrossbarLayer, x: Tensor) -> None:
        layer.count_sums(x)

    with in_mode("chip", *crossbar_layers(model).values(), *grids(model).values()), ExitStack() as stack:
        for layer in layers.values():
            stack.enter_context(on(layer))
        for name, layer in layers.items():
            layer.ranges.sums = None
            with watching([layer], see):
                for x in _batches(model, batches, f"ranges of {name}", progress):
                    model(x)
            if layer.ranges.sums is not None:
                layer.ranges.sums.outliers = _OUTLIERS
            layer.fit()


def _batches(
    model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], what: str, progress: bool
) -> Iterator[Tensor]:
    """Yield the images of every batch on the torch device of the network."""
    device = next(iter(crossbar_layers(model).values())).weight.device
    if progress:
        from rich.progress import track

        batches = track(batches, description=f"calibrating {what}", transient=True)
    for batch in batches:
        yield (batch if isinstance(batch, Tensor) else batch[0]).to(device)
