"""Chip descriptions."""

from bitline.chip.description import Chip
from bitline.chip.files import load, presets, replace

__all__ = ["Chip", "load", "presets", "replace"]
