"""What records are made of: quantities with units, and a base that is frozen and refuses what it does not know."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

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


FINGERPRINT_VERSION = 1
"""to be raised where the same record shall have another fingerprint"""


class Record(BaseModel):
    """A frozen record; an unknown key, NaN or infinity is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    newer: ClassVar[frozenset[str]] = frozenset()
    """keys that came after files and fingerprints were made of the record; left out of them at their default"""

    def fingerprint(self) -> str:
        """Return what tells this record from every other, see `fingerprint`."""
        return fingerprint(self)

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        for key, value in super().__repr_args__():
            if key not in self.newer or value != type(self).model_fields[key].default:
                yield key, value


def fingerprint(*parts: object) -> str:
    """Return a short text that is the same for the same content only: ``"1-"``, the version, and 16 hexadecimal digits.

    It is made of keys and SI values alone; how a record prints, the order of its keys and its class have no influence.
    Give parts of a chip where only these matter: ``fingerprint({"adc": chip.adc, "cell.bits": chip.cell.bits})``.
    ``seeds.derive(fingerprint(...))`` makes a number of it.

    Args:
        parts: records, mappings, sequences, text, numbers and None.

    Raises:
        TypeError: a part of another kind.
        ValueError: NaN or infinity.
    """
    content = [FINGERPRINT_VERSION, *(canonical(part) for part in parts)]
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return f"{FINGERPRINT_VERSION}-{hashlib.blake2b(text.encode(), digest_size=8).hexdigest()}"


def canonical(value: object) -> object:
    """Return plain data, which says the same for the same content only; equal numbers are one, whole or floating."""
    match value:
        case Record():
            fields = type(value).model_fields
            values = {key: getattr(value, key) for key in fields}
            return {
                key: canonical(each)
                for key, each in values.items()
                if key not in value.newer or each != fields[key].default
            }
        case Mapping():
            return {str(key): canonical(each) for key, each in cast("Mapping[object, object]", value).items()}
        case None | str() | int():
            return value
        case float():
            return int(value) if value.is_integer() else value
        case Sequence():
            return [canonical(each) for each in cast("Sequence[object]", value)]
        case _:
            allowed = "records, mappings, sequences, text, numbers, None"
            raise TypeError(f"a {type(value).__name__} has no fingerprint; allowed: {allowed}")
