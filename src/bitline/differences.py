"""Where two records differ: what a resume is refused for."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast


class Difference(NamedTuple):
    """One value that two records do not share.

    Args:
        key: of the value, keys of nested records joined by dots.
        asked: what the first record says; None where it lacks the key.
        was: what the second says.
    """

    key: str
    asked: Any
    was: Any

    def __str__(self) -> str:
        return f"{self.key} {_short(self.asked)} (was {_short(self.was)})"


def differences(asked: object, was: object, *, free: Collection[str] = ()) -> list[Difference]:
    """Return every value that differs between two records of plain data, in the order of the first.

    Args:
        asked: what is wanted now; nested mappings, sequences and plain values.
        was: what it is compared with.
        free: dotted keys that may differ, with all below them.
    """
    a, b = flat(_plain(asked)), flat(_plain(was))
    known = [key for key in dict.fromkeys([*a, *b]) if not any(f"{key}.".startswith(f"{name}.") for name in free)]
    return [Difference(key, a.get(key), b.get(key)) for key in known if a.get(key) != b.get(key)]


def flat(tree: object, prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings: ``{"adc": {"bits": 5}}`` to ``{"adc.bits": 5}``."""
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    values: dict[str, Any] = {}
    for key, value in cast("Mapping[str, object]", tree).items():
        values |= flat(value, f"{prefix}.{key}" if prefix else key)
    return values


def _plain(tree: object) -> object:
    """Return what comes back from a JSON file: tuples are lists, paths are text."""
    return json.loads(json.dumps(tree, default=str))


def _short(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(str(item) for item in cast("Sequence[object]", value)) + "]"
    return repr(value) if isinstance(value, str) else str(value)
