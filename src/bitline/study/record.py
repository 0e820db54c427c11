"""A result that grows point by point in one file, so that a killed study goes on where it was."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bitline.differences import differences
from bitline.errors import DataError
from bitline.files import read_json, remove_parts, write_json


class Record:
    """The JSON file of a study; whole after every point, whatever kills the process.

    Args:
        path: of the file; its folder is created when the first point is written.
        content: everything known so far.
    """

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        self.path = path
        self.content = content

    @classmethod
    def open(cls, path: Path, head: Mapping[str, Any], *, resume: bool) -> "Record":
        """Begin a record, or go on with one that was made with the same settings.

        Args:
            path: of the file, which may be absent.
            head: what the record begins with; everything in its ``settings`` decides results.
            resume: go on with a record that exists.

        Raises:
            DataError: a record exists and is not to be resumed, is of another kind, or was made with other settings.
        """
        remove_parts(path.parent, [path.name])
        if not path.exists():
            return cls(path, dict(head))
        content = read_json(path)
        if content.get("study") != head["study"]:
            raise DataError(f"{path} is no study of {head['study']}; choose another --out")
        if not resume:
            state = "a finished" if content.get("finished") else "an unfinished"
            raise DataError(f"{path} holds {state} study; add --resume to go on with it, or choose another --out")
        other = differences(head["settings"], content.get("settings", {}))
        if other:
            listed = "; ".join(map(str, other))
            raise DataError(f"cannot resume {path} with other settings: {listed}; choose another --out")
        return cls(path, content)

    def points(self, lesson: str) -> list[dict[str, Any]]:
        """Return the points of a lesson measured so far."""
        return cast("list[dict[str, Any]]", self.content.setdefault(lesson, []))

    def has(self, lesson: str, key: Mapping[str, Any]) -> bool:
        """Tell whether the point with these keys is measured."""
        return any(all(point.get(name) == value for name, value in key.items()) for point in self.points(lesson))

    def add(self, lesson: str, point: Mapping[str, Any]) -> None:
        """Append a point, and write."""
        self.points(lesson).append(dict(point))
        self.write()

    def write(self) -> None:
        """Write the file whole or not at all.

        Raises:
            ExportError: it cannot be written.
        """
        write_json(self.path, self.content)
