"""Recipe ``group``."""

from typing import Literal

from bitline.recipes.records.base import Count
from bitline.recipes.records.structure import ChannelAssignment


class Group(ChannelAssignment):
    """Group convolutions that need no partial sum, then training in floating point and on the chip."""

    recipe: Literal["group"] = "group"
    row_tiles: Count = 1
    """partial sums that a group may need"""
    mix: bool = False
    """a 1x1 convolution behind each group convolution"""
    split_linear: bool = False
    """split the inputs of hidden linear layers too"""
