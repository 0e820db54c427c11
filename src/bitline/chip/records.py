"""What records are made of: quantities with units, and a base that is frozen and refuses what it does not know."""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bitline import units


def quantity(unit: str) -> BeforeValidator:
    """Accept text with a unit, such as ``"10 uS"``, beside plain SI numbers."""

    def read(value: object) -> object:
        return units.parse(value, unit) if isinstance(value, str) else value

    return BeforeValidator(read)


def _by_name(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


by_name = BeforeValidator(_by_name)
"""a record chosen by its kind may be given as that kind alone"""

Count = Annotated[int, Field(strict=True, ge=1)]
Bits = Annotated[int, Field(strict=True, ge=1, le=16)]
Fraction = Annotated[float, Field(strict=True, ge=0, le=1)]
Sigma = Annotated[float, Field(strict=True, ge=0, le=10)]
Siemens = Annotated[float, quantity("S"), Field(strict=True, ge=0)]
Volt = Annotated[float, quantity("V"), Field(strict=True, gt=0)]
Second = Annotated[float, quantity("s"), Field(strict=True, gt=0)]
Hertz = Annotated[float, quantity("Hz"), Field(strict=True, gt=0)]
Metre = Annotated[float, quantity("m"), Field(strict=True, gt=0)]
Switch = Annotated[bool, Field(strict=True)]
Ampere = Annotated[float, quantity("A"), Field(strict=True)]


class Record(BaseModel):
    """A frozen record; an unknown key, NaN or infinity is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    newer: ClassVar[frozenset[str]] = frozenset()
    """keys that came after files and seeds were made from the text of the record; left out while they say nothing"""

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for key, value in super().__repr_args__():
            if key not in self.newer or value != type(self).model_fields[key].default:
                yield key, value
