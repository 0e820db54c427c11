"""Input and ADC ranges from data: the same for the same images, in whatever order and batches they come."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import cast

import torch
from torch import Tensor, nn

from bitline.chip.variants import ideal
from bitline.errors import ConversionError
from bitline.mapping.histogram import RangeHistogram
from bitline.mapping.lower import Lowerable, check_batch
from bitline.network.copy import evaluating
from bitline.network.images import Batches, Images
from bitline.network.inputs import Inputs, call, count, described, leaves
from bitline.nn.grid import Grid, grids
from bitline.nn.layer import CrossbarLayer
from bitline.nn.observe import in_mode, watching
from bitline.nn.on import crossbar_layers, on

log = logging.getLogger(__name__)

_OUTLIERS = 0.01
"""share of input vectors that has no say in ranges fitted in turn"""
_ACTIVATION_BYTES, _ALIVE = 2**30, 4
"""of images that pass together; how many times the largest layer's input and output are assumed to be held at once"""


@torch.no_grad()
def calibrate(model: nn.Module, batches: Batches, *, in_turn: bool = False, progress: bool = False) -> None:
    """Set the input and ADC ranges of a converted network from data.

    All images pass twice: first through the plain network to find input ranges, then with the integers that inputs and
    weights become, to draw a sample of each layer's input vectors, whose partial sums decide the ranges of its ADCs.
    The order of the batches and how they are cut changes no bit of the ranges, see `bitline.network.images`.

    Args:
        model: from `to_crossbar`.
        batches: inputs, or (inputs, targets) as data loaders give; inputs are a tensor, or for a network of several
            inputs a tuple or dict of them. Of batches of more than two parts the last is the targets.
            Inputs are held in memory, up to 1 GiB; where there are more, the batches are walked several times.
            All of them count: give some of every class, not the first of data in order of class.
        in_turn: then fit the ADC ranges of one layer after the other again, on what the layers before it now answer
            on the chip with ideal cells. Where ADCs are coarse, their errors move the sums of the layers behind them.
            Images of one shape pass once more, together, as many as 1 GiB of activations holds; those of several
            shapes pass once more for every layer. A hundredth of the input vectors, those that err most, have no say:
            errors of the layers before blow up a few images.
        progress: show a bar.

    Raises:
        ConversionError: no layer on crossbars, no data, or `batches` can be walked once only.
    """
    if isinstance(batches, Iterator):
        raise ConversionError("calibrate walks the batches twice; give a list or a data loader, not an iterator")
    if isinstance(batches, Tensor):
        raise ConversionError("calibrate takes an iterable of batches; put a single tensor in a list: [images]")
    layers, stored = crossbar_layers(model), grids(model)
    images = Images(batches)
    if not images.count:
        raise ConversionError("calibrate has no data: `batches` gives none")
    walk = _Walk(model, images, progress)
    with evaluating(model):
        vectors = _input_ranges(layers, stored, walk)
        _partial_sums(model, layers, vectors, walk)
        if in_turn:
            _fit_in_turn(model, vectors, walk)


class _Walk:
    """Passes of all images through a network."""

    def __init__(self, model: nn.Module, images: Images, progress: bool) -> None:
        self.model, self.images, self.progress = model, images, progress
        self.weight = next(iter(crossbar_layers(model).values())).weight
        self.largest = 1.0
        """input and output of a layer, bytes an image"""
        self._passing = 1
        self.shapes: set[torch.Size] = set()
        """of what passes now"""

    def __call__(self, what: str, together: Inputs | None = None) -> None:
        runs = self.images.runs(self.weight.device) if together is None else iter([together])
        for x in self._shown(runs, what):
            for part in leaves(x):
                numbers = part.is_floating_point() or part.is_complex()
                if numbers and part.dtype != self.weight.dtype and not torch.is_autocast_enabled(part.device.type):
                    raise ConversionError(
                        f"calibrating: images of {part.dtype}; expected {self.weight.dtype}, as the weights"
                    )
            self._passing, self.shapes = count(x), {part.shape for part in leaves(x)}
            self._run(x)

    def _run(self, x: Inputs) -> None:
        try:
            call(self.model, x)
        except TypeError as error:  # another number of arguments than the network takes
            raise ConversionError(
                f"calibrating: the network does not take inputs of shape {described(x)}: {error}; a batch of two "
                "parts is (inputs, targets), where several inputs are a tuple: ((a, b), targets)"
            ) from error

    def measure(self, layer: CrossbarLayer, x: Tensor, vectors: int) -> None:
        """Note how large the activations of a layer are that see some vectors of an input."""
        outputs = vectors * layer.matmul.groups * layer.matmul.cols
        self.largest = max(self.largest, (x.numel() + outputs) * x.itemsize / self._passing)

    def together(self) -> Inputs | None:
        """As many images as may pass at once; None where they have several shapes."""
        return self.images.together(max(1, int(_ACTIVATION_BYTES / (_ALIVE * self.largest))), self.weight.device)

    def _shown(self, runs: Iterator[Inputs], what: str) -> Iterator[Inputs]:
        if not self.progress:
            yield from runs
            return
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task(f"calibrating {what}", total=self.images.count)
            for x in runs:
                yield x
                bar.advance(task, count(x))


def _input_ranges(
    layers: Mapping[str, CrossbarLayer], stored: Mapping[str, Grid], walk: _Walk
) -> dict[CrossbarLayer, int]:
    """Set the input range of every layer, and every grid, from what the plain network makes of the images.

    Returns:
        How many input vectors each layer has.
    """
    inputs = {layer: RangeHistogram() for layer in layers.values()}
    values = {grid: RangeHistogram() for grid in stored.values()}
    vectors, ran = dict.fromkeys(layers.values(), 0), list[CrossbarLayer]()

    def see_input(layer: CrossbarLayer, x: Tensor) -> None:
        for shape in (x.shape, *({x.shape[1:]} & walk.shapes)):  # the second: images whose first axis is no batch
            check_batch(cast("Lowerable", layer), layer.cells.matmul.name, shape)
        layer.check(x)
        inputs[layer].add(x)
        count = layer.vectors(x)
        if not vectors[layer]:
            ran.append(layer)
        vectors[layer] += count
        walk.measure(layer, x, count)

    def see_value(grid: Grid, x: Tensor) -> None:
        values[grid].add(x)

    with in_mode("float", *inputs, *values), watching(inputs, see_input), watching(values, see_value):
        walk("input ranges")
    silent: list[str] = []
    for name, layer in layers.items():
        histogram = inputs[layer]
        if not vectors[layer]:
            raise ConversionError(f"layer {name} never ran on the data; its input range is unknown")
        if histogram.peak == 0:
            if layer is ran[0]:
                raise ConversionError(f"layer {name} saw no data but zeros; its input range is unknown")
            silent.append(name)
            histogram.add(torch.ones(1))
        layer.ranges.fit_inputs(histogram, layer.chip.inputs)
        layer.ranges.sums = None
    if silent:
        log.warning(
            "%s saw no data but zeros: behind neurons that never fire, or too few images; ranges are set for inputs up "
            "to 1",
            f"layer {silent[0]}" if len(silent) == 1 else f"layers {', '.join(silent)}",
        )
    for grid, histogram in values.items():
        grid.fit(histogram)
    return vectors


def _partial_sums(
    model: nn.Module, layers: Mapping[str, CrossbarLayer], vectors: Mapping[CrossbarLayer, int], walk: _Walk
) -> None:
    """Fit the ADC ranges of every layer to the sums that it makes while exact integer products answer."""
    with in_mode("linear", *layers.values()), in_mode("chip", *grids(model).values()), ExitStack() as stack:
        for layer in layers.values():
            stack.enter_context(on(layer, ideal(layer.chip)))
        drawn = _draw([layer for layer in layers.values() if layer.converts], vectors, walk, "partial sums")
    for layer in layers.values():
        layer.fit(drawn.get(layer))


def _fit_in_turn(model: nn.Module, vectors: Mapping[CrossbarLayer, int], walk: _Walk) -> None:
    """Fit the ADC ranges of each layer to the sums that inputs from the chip make."""
    layers = {n: x for n, x in crossbar_layers(model).items() if x.converts and x.chip.adc.keeps_ranges}
    together = walk.together()
    with in_mode("chip", *crossbar_layers(model).values(), *grids(model).values()), ExitStack() as stack:
        for layer in layers.values():
            stack.enter_context(on(layer))
        if together is not None:
            _fit_before_it_answers(list(layers.values()), vectors, walk, together)
            return
        for name, layer in layers.items():
            layer.fit(_draw([layer], vectors, walk, f"ranges of {name}")[layer], outliers=_OUTLIERS)


def _fit_before_it_answers(
    layers: list[CrossbarLayer], vectors: Mapping[CrossbarLayer, int], walk: _Walk, images: Inputs
) -> None:
    """Fit each layer when the images reach it, so that what it then answers reaches the next one."""
    share = count(images) / walk.images.count
    samples = {layer: layer.sample(round(vectors[layer] * share), count(images)) for layer in layers}
    drawn: dict[CrossbarLayer, list[Tensor]] = {layer: [] for layer in layers}

    def see(layer: CrossbarLayer, x: Tensor) -> None:
        drawn[layer].append(layer.sampled(x, samples[layer]))
        if len(drawn[layer][-1]):
            layer.fit(torch.cat(drawn[layer]), outliers=_OUTLIERS)

    with watching(layers, see):
        walk("ranges in turn", images)


def _draw(
    layers: list[CrossbarLayer], vectors: Mapping[CrossbarLayer, int], walk: _Walk, what: str
) -> dict[CrossbarLayer, Tensor]:
    """Draw a sample of the input vectors that reach layers, as integers."""
    samples = {layer: layer.sample(vectors[layer], walk.images.count) for layer in layers}
    drawn: dict[CrossbarLayer, list[Tensor]] = {layer: [] for layer in layers}

    def see(layer: CrossbarLayer, x: Tensor) -> None:
        drawn[layer].append(layer.sampled(x, samples[layer]))

    with watching(layers, see):
        walk(what)
    return {layer: torch.cat(found) for layer, found in drawn.items()}
