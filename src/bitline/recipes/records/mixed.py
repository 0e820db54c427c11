"""Recipe ``mixed``."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from bitline.errors import DataError
from bitline.recipes.records.base import Flag, texts
from bitline.recipes.records.structure import ChannelAssignment

CHOICES = ("dense", "separable:1", "separable:2", "group:1", "group:2", "group:1+mix")
"""of one layer; the number is that of maps for each output channel, or of the row tiles a group may need"""


def _structures(given: list[str]) -> dict[str, str]:
    pairs = [text.rpartition("=") for text in given]
    for text, (name, equals, _) in zip(given, pairs, strict=True):
        if not (name and equals):
            raise DataError(f"layer {text!r} is not LAYER=STRUCTURE, for example features.conv6.0=group:2")
    return {name: structure for name, _, structure in pairs}


class Mixed(ChannelAssignment):
    """The structure that each layer is given, then training in floating point and on the chip."""

    recipe: Literal["mixed"] = "mixed"
    layers: Annotated[dict[str, str], texts(_structures), Flag("--layer", "LAYER=STRUCTURE")] = Field(
        default_factory=dict[str, str]
    )
    """dense, separable:1, separable:2, group:1, group:2 or group:1+mix for a layer; repeatable"""

    @model_validator(mode="after")
    def _some_layers(self) -> Self:
        if not self.layers:
            raise DataError("recipe mixed needs layers, for example features.conv6.0=group:2")
        return self
