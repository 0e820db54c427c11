"""Recipe ``psum-aware``."""

from typing import Literal

from bitline.recipes.records.on_chip import RangeTraining


class PsumAware(RangeTraining):
    """Training on the chip: tiles, ADCs and programmed cells in the forward pass, ADC steps learnt."""

    recipe: Literal["psum-aware"] = "psum-aware"
