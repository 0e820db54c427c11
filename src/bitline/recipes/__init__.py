"""Whole co-optimizations: a trained network in, a network that suits its crossbars out."""

from bitline.recipes.records.base import Recipe
from bitline.recipes.records.union import RECORDS, AnyRecipe, checked

__all__ = ["RECORDS", "AnyRecipe", "Recipe", "checked"]
