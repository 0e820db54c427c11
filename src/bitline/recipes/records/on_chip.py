"""What recipes are told that train on the chip."""

from typing import ClassVar, Literal

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
