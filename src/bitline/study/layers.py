"""Lesson 1, layer by layer: what ADCs and cells take from each layer's output, and what that costs the network."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bitline.chip.description import Chip
from bitline.chip.variants import ideal, lossless, with_cells
from bitline.nn import IDEAL, crossbar_layers
from bitline.nn.layer import CrossbarLayer
from bitline.study.subject import Subject, programs, spread

MOST_CONVERSIONS = 2**26
"""a layer of more conversions looks at fewer images"""


def measure(subject: Subject, name: str) -> dict[str, Any]:
    """Measure one layer alone, with exact inputs, under ADC quantization, programming error and both.

    ``sqnr_dB`` is the power of the layer's exact integer output over that of the error: ``adc`` has ideal cells,
    ``programming`` an ADC that rounds to whole levels and never clips, ``both`` the chip's own; means of the power over
    the chips. None stands for no error, or for cells that cannot err. ``alone`` is the accuracy, %, with this layer
    on the chip and all others exact: ``adc`` with ideal cells, and the chips.

    Args:
        subject: the network.
        name: of the layer.
    """
    chip, seeds = subject.chip, subject.seeds
    layer = crossbar_layers(subject.on(chip).model)[name]
    placed = layer.placement
    x = _bounded(layer, subject.inputs()[name])
    powers = _powers(layer, x, chip, seeds if programs(chip) else [])
    quantized, programmed = with_cells(chip), with_cells(chip, programming=True)
    alone = {"adc": subject.alone(name, quantized, IDEAL)}
    chips = [subject.alone(name, programmed, seed) for seed in seeds] if programs(chip) else []
    return {
        "kind": placed.matmul.kind,
        "rows": placed.matmul.rows,
        "cols": placed.matmul.cols,
        "groups": placed.matmul.groups,
        "row_tiles": placed.row_tiles,
        "conversions": placed.conversions,
        "sqnr_dB": {cause: _dB(powers["signal"], power) for cause, power in powers.items() if cause != "signal"},
        "alone": alone | spread(chips),
    }


@torch.no_grad()
def _powers(layer: CrossbarLayer, x: Tensor, chip: Chip, seeds: Sequence[int]) -> dict[str, float]:
    """Power of the layer's exact output and of each error, real units."""
    q = layer.integers(x)

    def answer(on: Chip, seed: int) -> Tensor:
        return layer.real_product(layer.multiply(q, layer.read(q, on, seed)), x).double()

    exact = answer(ideal(chip), IDEAL)

    def error(on: Chip, among: Sequence[int]) -> float:
        return statistics.fmean(float((answer(on, seed) - exact).square().mean()) for seed in among)

    powers = {"signal": float(exact.square().mean()), "adc": error(with_cells(chip), [IDEAL])}
    if seeds:
        programmed = with_cells(chip, programming=True)
        powers |= {"programming": error(lossless(programmed), seeds), "both": error(programmed, seeds)}
    return powers


def _dB(signal: float, error: float) -> float | None:  # noqa: N802
    return 10 * math.log10(signal / error) if signal > 0 and error > 0 else None


def _bounded(layer: CrossbarLayer, x: Tensor) -> Tensor:
    """The first images of a batch, at least one and as many as the bound on conversions lets through."""
    return x[: max(1, MOST_CONVERSIONS // max(1, layer.placement.conversions))]
