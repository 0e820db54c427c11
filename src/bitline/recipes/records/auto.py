"""Recipe ``auto``."""

from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator

from bitline.errors import DataError, nearest
from bitline.recipes.records.base import Count, Flag, Whole
from bitline.recipes.records.structure import ChannelAssignment

Objective = Literal["accuracy", "energy", "area", "latency"]
Variable = Literal["structure", "height", "adc_bits", "columns_per_adc", "encoding", "input_bits", "weight_bits"]


class Auto(ChannelAssignment):
    """A search for structures and chips; points of its front are trained as mixed or psum-aware."""

    recipe: Literal["auto"] = "auto"
    objectives: Annotated[tuple[Objective, ...], Flag("--objective")] = ("accuracy", "energy", "area")
    """of the search; repeatable"""
    vary: Annotated[tuple[Variable, ...], Field(min_length=1), Flag(value="VARIABLE")] = (
        "structure",
        "height",
        "adc_bits",
        "columns_per_adc",
        "encoding",
    )
    """what trials choose: structure (of each layer that needs partial sums), height (of crossbars), adc_bits,
    columns_per_adc, encoding (how cells hold a weight), input_bits, weight_bits; repeatable"""
    trials: Count = 40
    """of the search"""
    front: Count = 4
    """trials of the front that are trained"""
    proxy_steps: Whole = 30
    """steps of distillation before a trial is measured"""
    proxy_images: Count = 256
    """training images that a trial is measured on"""

    @field_validator("vary", mode="before")
    @classmethod
    def _each_once(cls, values: Any) -> Any:
        allowed = get_args(Variable)
        for value in values:
            if value not in allowed:
                raise DataError(f"vary is {value!r}; allowed: {', '.join(allowed)}{nearest(str(value), allowed)}")
        return tuple(key for key in allowed if key in values)
