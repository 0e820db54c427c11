"""Which values a quantity of a chip can have, which are usual, and why; a forgotten unit is found by that.

A `Plausible` stands in the annotation of a field. Outside of it a value is refused wherever it comes from. Inside but
unusual it is remarked on where a chip is read.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from bitline import units
from bitline.errors import shown

IMPLAUSIBLE = "implausible"
"""kind of the error, for `messages`"""


@dataclass(frozen=True)
class Plausible:
    """The values that a number may have, and whether it is written with a unit.

    Args:
        low: least value, SI.
        high: highest value, SI.
        why: reason or source of both.
        usual: least and highest value that cause no remark; None: all do not.
        unit: without prefix; empty for a plain number.
    """

    low: float
    high: float
    why: str
    usual: tuple[float, float] | None = None
    unit: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Text with a unit becomes SI; numbers are strict, finite and within the range."""
        if source is int:
            return core_schema.no_info_after_validator_function(
                self._check, core_schema.int_schema(strict=True, ge=int(self.low))
            )
        number = core_schema.float_schema(strict=True, allow_inf_nan=False)
        schema = core_schema.no_info_after_validator_function(self._check, number)
        return core_schema.no_info_before_validator_function(self._read, schema) if self.unit else schema

    def _read(self, value: object) -> object:
        return units.parse(value, self.unit) if isinstance(value, str) else value

    def _check(self, value: float) -> float:
        slack = 1e-9 * abs(value)  # ends are products of decimals, such as 10 ps
        if not self.low - slack <= value <= self.high + slack:
            hint = self.suggestion(value)
            raise PydanticCustomError(
                IMPLAUSIBLE,
                "{value} is outside {low} to {high} ({why}){hint}",
                {
                    "value": self.text(value),
                    "low": self.text(self.low),
                    "high": self.text(self.high),
                    "why": self.why,
                    "hint": f"; did you mean {hint}?" if hint else "",
                },
            )
        return value

    def text(self, value: float) -> str:
        """Write a value with its unit."""
        if self.unit:
            return units.pretty(value, self.unit)
        return shown(value) if isinstance(value, int) or abs(value) < 1e6 else f"{value:g}"

    def suggestion(self, value: float) -> str:
        """What a bare number probably stands for: the plausible quantity nearest to the usual ones, or nothing."""
        if not self.unit or value == 0 or not math.isfinite(value):
            return ""
        if self.low <= value <= self.high:
            return self.text(value)
        low, high = self.usual or (self.low, self.high)
        middle = math.log(max(low, high * 1e-4) * high) / 2
        scaled = (value * factor for prefix, factor in units.PREFIXES.items() if prefix)
        fits = [each for each in scaled if self.low <= each <= self.high]
        return self.text(min(fits, key=lambda each: abs(math.log(abs(each)) - middle))) if fits else ""

    def remark(self, value: float) -> str:
        """Say that a value is unusual, or nothing."""
        if self.usual is None or self.usual[0] <= value <= self.usual[1]:
            return ""
        low, high = map(self.text, self.usual)
        return f"{self.text(value)} is unusual: mostly {low} to {high} ({self.why})"


def plausible(field: FieldInfo) -> Plausible | None:
    """Return what a field says of its numbers; of a tuple, what it says of each of them."""
    return _within((*field.metadata, field.annotation))


def _within(parts: Sequence[Any]) -> Plausible | None:
    for part in parts:
        if isinstance(part, Plausible):
            return part
        if not (isinstance(part, type) and issubclass(part, BaseModel)) and (found := _within(get_args(part))):
            return found
    return None


def remarks(record: BaseModel, before: BaseModel | None = None, where: str = "") -> Iterator[str]:
    """Say what is unusual about a record, a line for each key.

    Args:
        record: with the records below it.
        before: keys that are the same in this one cause no remark.
        where: dotted key of the record, with a point at its end.
    """
    for key, field in type(record).model_fields.items():
        value, old = getattr(record, key), getattr(before, key, None)
        if isinstance(value, BaseModel):
            yield from remarks(value, old if isinstance(old, BaseModel) else None, f"{where}{key}.")
        elif value != old and (limits := plausible(field)):
            each = cast("Sequence[float]", value) if isinstance(value, tuple) else (value,)
            for text in (limits.remark(one) for one in each if one is not None):
                if text:
                    yield f"{where}{key} = {text}"


def bare(data: Mapping[str, Any], model: type[BaseModel]) -> Iterator[str]:
    """Say which numbers of a chip file lack their unit, a line for each; 0 needs none.

    Args:
        data: nested keys as in a chip file.
        model: the record that they are to become.
    """
    yield from _bare(data, [model], "")


def _bare(data: Mapping[str, Any], models: Sequence[type[BaseModel]], where: str) -> Iterator[str]:
    # Of the records that may stand here, those of the kind that is said.
    models = [m for m in models if "kind" not in m.model_fields or data.get("kind") in kinds_of(m)]
    for key, value in data.items():
        for field in (model.model_fields[key] for model in models if key in model.model_fields):
            if isinstance(value, dict):
                yield from _bare(cast("dict[str, Any]", value), records_of(field.annotation), f"{where}{key}.")
                break
            limits = plausible(field)
            each = cast("list[Any]", value) if isinstance(value, list) else [value]
            if limits is not None and limits.unit:
                for number in (one for one in each if type(one) in (int, float) and one != 0):
                    yield f"{where}{key} = {shown(number)} has no unit{_with_unit(limits, number)}"
                break


def _with_unit(limits: Plausible, number: float) -> str:
    try:
        text = limits.suggestion(float(number))
    except OverflowError:
        text = ""
    return f'; write "{text}"' if text else f'; write a number and {limits.unit}, such as "{limits.text(limits.high)}"'


def records_of(annotation: Any) -> list[type[BaseModel]]:
    """Return the records that may stand where an annotation does."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [record for part in get_args(annotation) for record in records_of(part)]


def kinds_of(record: type[BaseModel]) -> tuple[str, ...]:
    """Return the words by which a record of a union is chosen; none for another."""
    return get_args(record.model_fields["kind"].annotation) if "kind" in record.model_fields else ()
