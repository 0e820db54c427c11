"""Input and ADC ranges from data."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.mapping.quantize import RangeHistogram
from bitline.nn.convert import crossbar_layers
from bitline.nn.grid import grids
from bitline.nn.layers import IDEAL, Mode

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
    layers = crossbar_layers(model)
    training = {module: module.training for module in model.modules()}
    modes: dict[str, Mode] = {name: layer.mode for name, layer in layers.items()}
    stored = grids(model).values()
    model.eval()
    try:
        for layer in layers.values():
            layer.inputs, layer.sums = RangeHistogram(), None
        for grid in stored:
            grid.seen = RangeHistogram()
        _run(model, batches, "observe_inputs", "input ranges", progress)
        for name, layer in layers.items():
            histogram, settings = layer.inputs, layer.chip.inputs
            assert histogram is not None
            if float(histogram.counts.sum()) == 0 and histogram.top == 0:
                raise ConversionError(f"layer {name} saw no data but zeros; its input range is unknown")
            scale = histogram.scale(
                settings.bits, settings.calibration, settings.percentile, settings.scale, settings.rounding
            )
            layer.input_scale.fill_(scale)
            layer.input_signed.fill_(histogram.negative)
        for grid in stored:
            grid.fit()
        _run(model, batches, "observe_sums", "partial sums", progress)
        for layer in layers.values():
            layer.fit()
        if in_turn:
            _fit_in_turn(model, batches, progress)
    finally:
        for name, layer in layers.items():
            layer.mode, layer.inputs = modes[name], None
        for grid in stored:
            grid.mode, grid.seen = "chip", None
        for module, mode in training.items():
            module.training = mode


def _fit_in_turn(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], progress: bool) -> None:
    """Fit the ADC ranges of each layer to the sums that inputs from the chip make."""
    layers = {name: layer for name, layer in crossbar_layers(model).items() if layer.chip.adc.keeps_ranges}
    seeds = {name: int(layer.chip_seed) for name, layer in layers.items()}

    def count(layer: Any, args: tuple[Tensor, ...]) -> None:
        layer.count_sums(args[0])

    for layer in layers.values():
        layer.program(IDEAL)
    for name, layer in layers.items():
        layer.sums = None
        handle = layer.register_forward_pre_hook(count)
        try:
            _run(model, batches, "chip", f"ranges of {name}", progress)
        finally:
            handle.remove()
        if layer.sums is not None:
            layer.sums.outliers = _OUTLIERS
        layer.fit()
    for name, layer in layers.items():
        layer.program(seeds[name])


def _run(model: nn.Module, batches: Iterable[Tensor | Sequence[Tensor]], mode: Mode, what: str, progress: bool) -> None:
    layers = crossbar_layers(model).values()
    for layer in (*layers, *grids(model).values()):
        layer.mode = mode
    device = next(iter(layers)).weight.device
    if progress:
        from rich.progress import track

        batches = track(batches, description=f"calibrating {what}", transient=True)
    for batch in batches:
        model((batch if isinstance(batch, Tensor) else batch[0]).to(device))
