"""What records are made of: plausible numbers, and a base that is frozen and refuses what it does not know."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from bitline.chip.plausible import Plausible
from bitline.units import GHz, MHz, Mohm, mS, ms, mV, nm, nS, ns, ps, um, us


def _by_name(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


by_name = BeforeValidator(_by_name)
"""a record chosen by its kind may be given as that kind alone"""

Switch = Annotated[bool, Field(strict=True)]
Bits = Annotated[int, Field(strict=True, ge=1, le=16)]
Fraction = Annotated[float, Plausible(0, 1, "a share of all cells")]
Stuck = Annotated[float, Plausible(0, 1, "a share of all cells", usual=(0, 0.3))]
Count = Annotated[int, Plausible(1, 2**20, "more than any chip has; assumed")]
Lines = Annotated[int, Plausible(1, 2**14, "wires of a longer line drop the read voltage; assumed", usual=(1, 4096))]
Columns = Annotated[
    int,
    Plausible(1, 2**18, "a page of 3D NAND has 2**17 cells, and the longest wordlines twice as many", usual=(1, 4096)),
]
Sigma = Annotated[
    float, Plausible(0, 2, "published cells have up to 0.5, and at 2 a level says nothing; assumed", usual=(0, 0.5))
]
_CELLS = "100 ohm, below a metallic filament or magnetic junction, to 1 Tohm, a ferroelectric tunnel junction; assumed"
Siemens = Annotated[float, Plausible(0, 10 * mS, _CELLS, usual=(0, mS), unit="S")]
LargestSiemens = Annotated[float, Plausible(1e-3 * nS, 10 * mS, _CELLS, usual=(10 * nS, mS), unit="S")]
ReadVolt = Annotated[
    float, Plausible(mV, 5, "less is noise, more writes the cell; assumed", usual=(20 * mV, 1.5), unit="V")
]
Volt = Annotated[
    float, Plausible(0.1, 5, "supply of logic, from below threshold to 5 V TTL; assumed", usual=(0.4, 3.5), unit="V")
]
Second = Annotated[
    float,
    Plausible(10 * ps, ms, "from a gate's delay to a slow sensor's; assumed", usual=(0.5 * ns, 10 * us), unit="s"),
]
Clock = Annotated[
    float,
    Plausible(1e3, 20 * GHz, "always-on chips to the fastest logic; assumed", usual=(10 * MHz, 5 * GHz), unit="Hz"),
]
SampleRate = Annotated[
    float,
    Plausible(1e3, 200 * GHz, "converters of the ADC survey (Murmann) lie within", usual=(MHz, 20 * GHz), unit="Hz"),
]
Metre = Annotated[
    float,
    Plausible(
        0.5 * nm, um, "below any node on a roadmap, to those of the 1980s; assumed", usual=(2 * nm, 350 * nm), unit="m"
    ),
]
Ampere = Annotated[float, Plausible(-0.1, 0.1, "a bitline melts; assumed", usual=(-20e-3, 20e-3), unit="A")]
Ohm = Annotated[float, Plausible(0, 100 * Mohm, "a transistor that is on; assumed", usual=(0, Mohm), unit="ohm")]


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
