"""How real weights and activations become integers, and weights cells."""

from typing import Annotated, ClassVar, Literal, Self, TypeVar

from pydantic import Field, model_validator

from bitline.chip.plausible import Plausible
from bitline.chip.records import Record, by_name


class Offset(Record):
    """Unsigned columns: u = q_w + Z; Z sum(x) is subtracted by a digital sum or by one more column."""

    kind: Literal["offset"] = "offset"
    sum: Literal["digital", "column"] = "digital"
    zero_point: Annotated[int, Field(strict=True, ge=0)] | None = None
    """Z; 2**(bits - 1) where absent"""
    CORRECTION_BITS: ClassVar[int] = 4
    """fraction bits of a correction, weight units"""
    correction: Annotated[Literal["none", "expected", "measured"], Field(repr=False)] = "none"
    """what the digital sum subtracts beside Z sum(x): nothing; the mean error of the layer's cells by the programming
    model and the fault rates; or that of every column and row tile, as a read with all wordlines driven shows it"""

    @model_validator(mode="after")
    def _a_correction_is_digital(self) -> Self:
        if self.correction != "none" and self.sum != "digital":
            raise ValueError(
                f'correction = "{self.correction}" with sum = "{self.sum}": the digital sum makes it, sum = "digital"'
            )
        return self


class Pair(Record):
    """max(q_w, 0) and max(-q_w, 0) on two columns, subtracted before (analog) or after (digital) conversion."""

    kind: Literal["pair"]
    subtract: Literal["analog", "digital"] = "analog"


class TwosComplement(Record):
    """The sign bit in a cell of its own, weighing -2**(bits - 1)."""

    kind: Literal["twos_complement"]


Encoding = Annotated[Offset | Pair | TwosComplement, Field(discriminator="kind")]


Scaled = TypeVar("Scaled", "Weights", "Inputs")


def _rounding_has_a_use(record: Scaled) -> Scaled:
    if record.rounding != "up" and record.scale != "power_of_two":
        raise ValueError(f'rounding = "{record.rounding}" needs scale = "power_of_two"; it is "{record.scale}"')
    return record


class Weights(Record):
    """How a real weight becomes cells."""

    newer: ClassVar[frozenset[str]] = frozenset({"rounding", "bias_bits"})

    bits: Annotated[int, Field(strict=True, ge=2, le=16)] = 8
    encoding: Annotated[Encoding, by_name] = Offset()
    slices: Annotated[int, Plausible(1, 32, "weights have 16 bits at most; assumed")] | None = None
    """cells per weight on one side; the fewest that hold the weight where absent"""
    granularity: Literal["tensor", "channel"] = "channel"
    scale: Literal["any", "power_of_two"] = "any"
    rounding: Literal["up", "nearest"] = "up"
    """of a scale to a power of two: up, so that nothing clips, or to the nearest exponent (CRIMP, ACM TECS 2023)"""
    bias_bits: Annotated[int, Field(strict=True, ge=2, le=32)] | None = None
    """bits of a bias, which is then a multiple of a power of two; a real number where absent"""

    @model_validator(mode="after")
    def _something_is_rounded(self) -> Self:
        return _rounding_has_a_use(self)

    @property
    def zero_point(self) -> int:
        """Z of the offset encoding; 0 for the others."""
        if not isinstance(self.encoding, Offset):
            return 0
        return 2 ** (self.bits - 1) if self.encoding.zero_point is None else self.encoding.zero_point


class Inputs(Record):
    """How a real activation becomes an integer."""

    newer: ClassVar[frozenset[str]] = frozenset({"rounding", "zero_point"})

    bits: Annotated[int, Field(strict=True, ge=1, le=16)] = 8
    zero_point: bool = False
    """whether an integer between the lowest and the highest stands for 0, chosen for each layer, so that values below
    zero take no sign and no more of the range than they need; else integers are unsigned, or signed about 0"""
    calibration: Literal["mse", "percentile", "max"] = "mse"
    percentile: Annotated[float, Field(strict=True, gt=50, le=100)] = 99.99
    scale: Literal["any", "power_of_two"] = "any"
    rounding: Literal["up", "nearest"] = "up"
    """of a scale to a power of two, as `Weights.rounding`"""

    @model_validator(mode="after")
    def _something_is_rounded(self) -> Self:
        return _rounding_has_a_use(self)
