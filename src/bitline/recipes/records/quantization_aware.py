"""Recipe ``quantization-aware``."""

from typing import Literal

from bitline.recipes.records.on_chip import Aware, RangeTraining


class QuantizationAware(RangeTraining):
    """Training on the chip with ideal cells and a lossless ADC: integers, but no partial sums."""

    recipe: Literal["quantization-aware"] = "quantization-aware"
    aware: Aware = "quantization"
    """what training on the chip sees: nothing (there is none), quantization alone, or partial sums too"""
