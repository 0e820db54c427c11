"""Whole co-optimizations: a trained network in, a network that suits its crossbars out."""

from bitline.recipes.config import Aware, RecipeConfig, RecipeName, Structure, checked

__all__ = ["Aware", "RecipeConfig", "RecipeName", "Structure", "checked"]
