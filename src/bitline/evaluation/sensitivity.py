"""Which layers lose most on a chip: each alone on its crossbars, all others in floating point."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bitline.chip.description import Chip
from bitline.chip.files import load as load_chip
from bitline.errors import ConversionError
from bitline.network.copy import evaluating
from bitline.network.inputs import Inputs, call, inputs_of, mapped
from bitline.nn import calibrate, crossbar_layers, program, to_crossbar
from bitline.nn.layer import CrossbarLayer
from bitline.nn.observe import in_mode


@torch.no_grad()
def sensitivity(
    model: nn.Module, chip: Chip | str, batches: Iterable[Any], *, chips: int = 1, seed: int = 0, progress: bool = False
) -> dict[str, float]:
    """Measure how much each layer alone moves what the network answers, when it is on crossbars and no other is.

    Layers that move it most are those to leave digital, or to give more bits:
    ``to_crossbar(model, chip, keep_digital=[n for n, error in sensitivity(...).items() if error > 0.01])``.

    Args:
        model: trained; it is not changed.
        chip: to put it on; a chip, the name of a preset, or a file.
        batches: inputs, or (inputs, targets); they set the ranges too.
        chips: programmed chips over which the squared error is averaged.
        seed: of the first chip.
        progress: show a bar.

    Returns:
        Layer name -> squared error of all answers over their squared size, largest first.

    Raises:
        ConversionError: the network cannot be put on the chip or does not take the batches, or there are none.
    """
    described = load_chip(chip) if isinstance(chip, str) else chip
    inputs = [inputs_of(batch) for batch in batches]
    if not inputs:
        raise ConversionError("sensitivity has no data: `batches` gives none")
    converted, _ = to_crossbar(model, described, example=mapped(inputs[0], lambda x: x[:1]))
    calibrate(converted, [(each,) for each in inputs], progress=progress)
    layers = crossbar_layers(converted)
    errors: dict[str, float] = {}
    with evaluating(converted), in_mode("float", *layers.values()):
        exact = [_answers(converted, each) for each in inputs]
        size = sum(float(y.square().sum()) for y in exact)
        for name, layer in _shown(layers, progress):
            total = 0.0
            for number in range(seed, seed + chips):
                program(converted, number)
                with in_mode("chip", layer):
                    wrong = (
                        (_answers(converted, each) - y).square().sum() for each, y in zip(inputs, exact, strict=True)
                    )
                    total += sum(map(float, wrong))
            errors[name] = total / chips / size if size else 0.0
    return dict(sorted(errors.items(), key=lambda item: -item[1]))


def _answers(model: nn.Module, inputs: Inputs) -> Tensor:
    """All numbers of a network's answer to a copy of its inputs, float64."""
    parts = [
        part.flatten().double()
        for part in tree_leaves(call(model, mapped(inputs, torch.clone)))
        if isinstance(part, Tensor)
    ]
    return torch.cat([part for part in parts if part.numel()] or [torch.zeros(0, dtype=torch.float64)])


def _shown(layers: dict[str, CrossbarLayer], progress: bool) -> Iterable[tuple[str, CrossbarLayer]]:
    if not progress:
        return layers.items()
    from rich.progress import track

    return track(layers.items(), "layers", transient=True)
