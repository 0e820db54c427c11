"""Recipe ``separable``."""

from typing import Literal

from bitline.recipes.records.base import Count
from bitline.recipes.records.structure import NewStructure


class Separable(NewStructure):
    """Pointwise and depthwise convolutions, then training in floating point and on the chip."""

    recipe: Literal["separable"] = "separable"
    multiplier: Count = 1
    """maps for each output channel"""
