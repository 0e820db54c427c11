"""What recipes are told that train on the chip."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from bitline.errors import DataError
from bitline.recipes.records.base import Count, Rate, Recipe, Whole

Aware = Literal["none", "quantization", "psum"]
Granularity = Literal["layer", "slice", "slice_digit", "column"]


class OnChip(Recipe):
    """Training with the chip in the forward path."""

    heading: ClassVar = "Training on the chip"

    aware: Aware = "psum"
    """what training on the chip sees: nothing (there is none), quantization alone, or partial sums too"""
    chip_epochs: Whole = 2
    """of training on the chip"""
    chip_lr: Rate = 5e-5
    """largest learning rate of weights on the chip, under Adam"""
    reprogram_every: Whole = 1
    """steps from one programmed chip to the next while training on it; 0: ideal cells"""
    test_images: Count = 500
    """test images after each epoch on the chip"""

    @property
    def epochs_on_chip(self) -> int:
        """Epochs of training on the chip."""
        return 0 if self.aware == "none" else self.chip_epochs


class RangeTraining(OnChip):
    """Training on the chip that learns the steps of ADCs."""

    heading: ClassVar = OnChip.heading

    granularity: Granularity | None = None
    """what has an ADC range of its own, which is trained; default: as the chip has it"""
    range_lr: Rate = 3e-3
    """largest learning rate of the logarithm of ADC steps"""
    tiles_a_step: Count | None = None
    """row tiles of each layer that a step of training converts, drawn anew for each; the others are plain products, and
    the answer is right on average. Default: all"""
    simulation: Literal["exact", "surrogate"] = "exact"
    """of the chip in training: exact converts every sum; surrogate multiplies once and adds noise like that of the
    conversions and cells, which does not train ADC steps, but for the last exact_epochs. Evaluations are exact"""
    exact_epochs: Whole | None = None
    """of those on the chip, the last: simulated exactly all the same, with simulation = surrogate. Default: 2, or 1
    where chip_epochs is 2"""

    @property
    def epochs_exact(self) -> int:
        """Epochs on the chip that are simulated exactly."""
        if self.simulation == "exact":
            return self.epochs_on_chip
        return max(1, min(2, self.epochs_on_chip - 1)) if self.exact_epochs is None else self.exact_epochs

    @model_validator(mode="after")
    def _epochs_for_the_surrogate(self) -> Self:
        if self.simulation == "surrogate" and self.epochs_on_chip and self.epochs_exact >= self.epochs_on_chip:
            how = (
                "raise chip_epochs" if self.epochs_on_chip < 2 else "raise chip_epochs, or set exact_epochs to at most "
            )
            raise DataError(
                f"exact_epochs is {self.epochs_exact} of {self.epochs_on_chip} chip_epochs, which leaves none for "
                f"simulation = 'surrogate': {how}{self.epochs_on_chip - 1 if self.epochs_on_chip > 1 else ''}"
            )
        return self
