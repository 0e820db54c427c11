"""Which columns of a table hold images and labels, and what the labels are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitline.data.division import spread
from bitline.errors import DataError, nearest

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Rows:
    """Encoded images of one split, and their labels.

    Args:
        images: ``bytes`` or ``path`` of each; gone through twice.
        labels: class numbers, whole floats or texts; None where one is missing.
        classes: names of the class numbers; None: they have none.
    """

    images: Sequence[Mapping[str, Any]]
    labels: Sequence[Any]
    classes: tuple[str, ...] | None


@dataclass(frozen=True)
class Columns:
    """Names of two columns; None: the only one that may be it.

    Args:
        image: of encoded images.
        label: of labels.
    """

    image: str | None = None
    label: str | None = None


def rows(table: Dataset, asked: Columns, where: str) -> Rows:
    """Read the labels of a table, and leave the images encoded.

    Args:
        table: with a column of images and one of labels.
        asked: which these are.
        where: data and split, for errors.

    Raises:
        DataError: no such column, none or several that may be it, or one of another kind.
    """
    from datasets import ClassLabel
    from datasets import Image as Encoded

    kinds: dict[str, Any] = dict(table.features)
    image = _image(kinds, asked.image, where)
    label = _label({key: kind for key, kind in kinds.items() if key != image}, asked.label, where)
    names = kinds[label].names if isinstance(kinds[label], ClassLabel) else None
    labels: list[Any] = table[label][:]
    order = spread(labels)
    if order != list(range(len(labels))):
        table, labels = table.select(order), [labels[number] for number in order]
    encoded: Any = table.cast_column(image, Encoded(decode=False))[image]
    return Rows(encoded, labels, None if names is None else tuple(str(name) for name in names))


def _image(kinds: Mapping[str, Any], asked: str | None, where: str) -> str:
    from datasets import Image, Value

    def holds(kind: Any) -> bool:
        return isinstance(kind, Image) or (isinstance(kind, dict) and set(kind) == {"bytes", "path"})  # pyright: ignore[reportUnknownArgumentType]

    def is_bytes(kind: Any) -> bool:
        return isinstance(kind, Value) and kind.dtype in ("binary", "large_binary")

    if asked is not None:
        _check(kinds, asked, "image", where)
        if not holds(kinds[asked]) and not is_bytes(kinds[asked]):
            raise DataError(
                f"{where}: column {asked!r} holds {_kind(kinds[asked])}; allowed: encoded images; {_told(kinds)}"
            )
        return asked
    found = [key for key, kind in kinds.items() if holds(kind)] or [k for k, kind in kinds.items() if is_bytes(kind)]
    return _only(found, kinds, "image", where)


def _label(kinds: Mapping[str, Any], asked: str | None, where: str) -> str:
    from datasets import ClassLabel, Value

    def may_be(kind: Any) -> bool:
        return isinstance(kind, ClassLabel) or (
            isinstance(kind, Value) and str(kind.dtype).startswith(("int", "uint", "float", "string", "large_string"))
        )

    if asked is not None:
        _check(kinds, asked, "label", where)
        found = [asked]
    else:
        found = [key for key, kind in kinds.items() if isinstance(kind, ClassLabel)]
        found = found or [key for key in ("label", "labels") if isinstance(kinds.get(key), Value)]
        found = found or [key for key, kind in kinds.items() if may_be(kind)]
    label = _only(found, kinds, "label", where)
    if not may_be(kinds[label]):
        raise DataError(
            f"{where}: column {label!r} holds {_kind(kinds[label])}; allowed: whole numbers, texts or ClassLabel"
        )
    return label


def _check(kinds: Mapping[str, Any], asked: str, what: str, where: str) -> None:
    if asked not in kinds:
        raise DataError(f"{where}: {what}_column is {asked!r}{nearest(asked, kinds)}; {_told(kinds)}")


def _only(found: Sequence[str], kinds: Mapping[str, Any], what: str, where: str) -> str:
    if len(found) != 1:
        several = f"{len(found)} columns may be the {what}s" if found else f"no column of {what}s"
        raise DataError(f"{where}: {several}; name it with --{what}-column ({what}_column in Python); {_told(kinds)}")
    return found[0]


def _told(kinds: Mapping[str, Any]) -> str:
    return "there are: " + (", ".join(f"{key} ({_kind(kind)})" for key, kind in kinds.items()) or "none")


def _kind(kind: Any) -> str:
    """Name what a column holds in a word or two."""
    from datasets import ClassLabel, Image, Value

    if isinstance(kind, ClassLabel):
        return f"{len(kind.names)} classes"
    if isinstance(kind, Image) or (isinstance(kind, dict) and set(kind) == {"bytes", "path"}):  # pyright: ignore[reportUnknownArgumentType]
        return "images"
    if isinstance(kind, Value):
        return str(kind.dtype)
    return f"{type(kind).__name__.lower()}s" if not isinstance(kind, dict) else "a record"
