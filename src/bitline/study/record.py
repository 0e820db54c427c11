"""A result that grows point by point in one file, so that a killed study goes on where it was."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from bitline.errors import DataError
from bitline.files import read_json, write_json


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
            listed = "; ".join(f"{key} {_short(asked)} (was {_short(was)})" for key, asked, was in other)
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


def flat(tree: object, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: ``{"adc": {"bits": 5}}`` to ``{"adc.bits": 5}``."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    found: dict[str, Any] = {}
    for key, value in cast("Mapping[str, object]", tree).items():
        found |= flat(value, f"{prefix}.{key}" if prefix else key)
    return found


def differences(asked: object, was: object) -> list[tuple[str, Any, Any]]:
    """Return (key, asked, was) for every value that differs, keys of nested mappings joined by dots."""
    a, b = flat(_plain(asked)), flat(_plain(was))
    return [(key, a.get(key), b.get(key)) for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]


def _plain(tree: object) -> object:
    """Return what JSON makes of it: tuples are lists."""
    return json.loads(json.dumps(tree))


def _short(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(str(item) for item in cast("Sequence[object]", value)) + "]"
    return repr(value) if isinstance(value, str) else str(value)
