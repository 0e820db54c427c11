"""What recipes are told that give layers another structure."""

from typing import ClassVar, Literal

from bitline.recipes.records.base import Count, Whole
from bitline.recipes.records.on_chip import RangeTraining


class NewStructure(RangeTraining):
    """Another structure, then training in floating point and on the chip."""

    heading: ClassVar = "Structure"

    epochs: Whole = 10
    """of training in floating point, where layers have a new structure"""
    structure_images: Count = 512
    """training images that new structures are fitted on"""
    refit: bool = True
    """start from weights fitted to what the dense layers answer"""


class ChannelAssignment(NewStructure):
    """A structure in which channels are assigned to groups."""

    heading: ClassVar = NewStructure.heading

    assignment: Literal["best", "diagonal", "shuffle"] = "best"
    """of channels to groups"""
