"""One read of a layer: everything that a forward pass asks for, asked for once."""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from bitline.chip.description import Chip
from bitline.mvm import native
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.nn.cells import CellWeights
from bitline.physics.noise import ReadNoise

Mode = Literal["chip", "linear", "float"]
"""what answers: crossbars; crossbars whose conversions neither round nor clip; the plain layer"""


class Pass:
    """Passes of a whole network, one after the other: they number the calls of a layer that runs several times in one.

    Attributes:
        running: whether one is.
        number: of the pass.
    """

    def __init__(self) -> None:
        self.running = False
        self.number = 0

    def begin(self, *_: object) -> None:
        """A hook for before the network runs."""
        if not torch.compiler.is_compiling():
            self.running, self.number = True, self.number + 1

    def end(self, *_: object) -> None:
        """A hook for after it has run, or failed."""
        if not torch.compiler.is_compiling():
            self.running = False


@dataclass(frozen=True)
class Read:
    """What answers an input, and how.

    Args:
        chip: the layer's chip, or a variant of it.
        weights: that the cells hold.
        crossbars: the cells as they are programmed.
        scale: ranges of their ADCs.
        plan: what computes the product natively; None where tensors do.
        noise: of these reads; None where there is none.
    """

    chip: Chip
    weights: CellWeights
    crossbars: Crossbars
    scale: AdcScale
    plan: native.Plan | None
    noise: ReadNoise | None

    def noise_from(self, image: int) -> ReadNoise | None:
        """The noise of the reads of an image of the batch and those that follow it."""
        return None if self.noise is None else replace(self.noise, first_image=self.noise.first_image + image)

    def factor(self, input_scale: float) -> Tensor:
        """Real value of a product of 1, float64, (groups, cols); 0 for an output whose weights are all zero."""
        return self.weights.factor(input_scale, self.chip.weights)
