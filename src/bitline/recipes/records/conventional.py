"""Recipe ``conventional``."""

from typing import Literal

from bitline.recipes.records.base import Recipe, Whole


class Conventional(Recipe):
    """Training in floating point alone, which knows nothing of the chip."""

    recipe: Literal["conventional"] = "conventional"
    epochs: Whole = 10
    """of training in floating point"""
