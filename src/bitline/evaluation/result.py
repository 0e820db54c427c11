"""What every result can do: be plain data, a file, a page, a table in a notebook; and be checked when it is read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from bitline.chip.records import Record
from bitline.errors import DataError, nearest
from bitline.evaluation import shown
from bitline.files import write_json

T = TypeVar("T", bound=BaseModel)


class Result(Record):
    """A record that a command or a call ends with."""

    def to_json(self, path: Path | str | None = None) -> dict[str, Any]:
        """Return plain data, the content of the file, and write it where a path is given.

        Raises:
            ExportError: the file cannot be written.
        """
        content = self.model_dump(mode="json", exclude=self._left_out())
        if path is not None:
            write_json(Path(path), content)
        return content

    def to_html(self, path: Path | str) -> Path:
        """Write all of it as one page.

        Raises:
            ExportError: the file cannot be written.
        """
        return shown.page(self, Path(path))

    def _repr_html_(self) -> str:
        return shown.fragment(self)

    def _left_out(self) -> set[str]:
        """Name the keys that a file has only where they say something."""
        return set()


def validated(kind: type[T], content: Mapping[str, Any], where: str) -> T:
    """Build a record of plain data.

    Args:
        kind: the record.
        content: as in the file.
        where: named in errors, for example the file.

    Raises:
        DataError: a key is missing, unknown or of another kind, or a number is not finite.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{where}: {first([_line(kind, problem) for problem in error.errors()])}") from None


def first(lines: list[str]) -> str:
    """Return the first problem, and how many follow."""
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def _line(kind: type[BaseModel], problem: Any) -> str:
    """Say in a line what is wrong with a key."""
    kinds, place = [kind], list[str]()
    for part in problem["loc"]:
        if part in {each.__name__ for each in kinds}:
            continue  # which record of several it was tried as; no key
        place.append(str(part))
        below = [each.model_fields[part] for each in kinds if part in each.model_fields]
        kinds = [one for field in below for one in _records(field.annotation)] or kinds
    key = ".".join(place)
    match problem["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            return f"unknown key {key}{nearest(place[-1], [name for each in kinds for name in each.model_fields])}"
        case "value_error":
            return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
        case _:
            return f"{key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"


def _records(annotation: Any) -> Iterator[type[BaseModel]]:
    """Find the records that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _records(part)
