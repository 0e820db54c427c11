"""Evaluations from files: checked, and brought up to the present format where they are older."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from bitline.chip.description import Chip, check
from bitline.errors import ChipError, DataError, nearest
from bitline.evaluation.record import FORMAT, Accuracy, Cost, Data, Evaluation, Layer, NoSums, PartialSums, Times
from bitline.files import read_json

_TELLING = ("accuracy", "cost", "layers")  # a file without all of them is something else
_UNIONS = {record.__name__ for record in (PartialSums, NoSums)}
_PARTS = {"accuracy": Accuracy, "cost": Cost, "data": Data, "layers": Layer, "timing": Times}


def load(path: Path | str) -> Evaluation:
    """Read an evaluation that `bitline evaluate --json` or a recipe wrote, now or earlier.

    Args:
        path: the file; it is not changed.

    Raises:
        DataError: absent, damaged, no evaluation, or of a later format; the file and the key are named.
    """
    return parse(read_json(Path(path)), str(path))


def parse(content: Mapping[str, Any], where: str) -> Evaluation:
    """Check plain data, and bring what an earlier version wrote up to the present format.

    Args:
        content: as in the file.
        where: named in errors, for example the file.

    Raises:
        DataError: as of `load`.
    """
    absent = [key for key in _TELLING if key not in content]
    if absent:
        raise DataError(f"{where} is no evaluation: it has no {', '.join(absent)}")
    if "format" in content and content["format"] != FORMAT:
        raise DataError(
            f"{where} has format {content['format']!r}; allowed: {FORMAT}, or none as the earliest have; "
            "evaluate again, or read it with the version that wrote it"
        )
    if "chip" not in content:
        raise DataError(f"{where}: chip is missing")
    chip = _chip(content["chip"], where)
    present = content if "format" in content else _upgraded(content, chip)
    return validated({**present, "chip": chip}, where)


def validated(content: Mapping[str, Any], where: str) -> Evaluation:
    """Build the record of the present format.

    Args:
        content: as in the file.
        where: named in errors.

    Raises:
        DataError: a key is missing, unknown or of another kind, or a number is not finite.
    """
    try:
        return Evaluation.model_validate(content)
    except ValidationError as error:
        raise DataError(f"{where}: {_first([_line(problem) for problem in error.errors()])}") from None


def _chip(chip: Any, where: str) -> Chip:
    if not isinstance(chip, Mapping):
        raise DataError(f"{where}: chip = {chip!r}: expected an object")
    try:
        return check(dict(cast("Mapping[str, Any]", chip)), f"{where}: chip")
    except ChipError as error:
        raise DataError(_first(str(error).splitlines())) from None


def _upgraded(content: Mapping[str, Any], chip: Chip) -> dict[str, Any]:
    """Bring format 1 up: name what was renamed, and say what could not be otherwise before there was a key for it."""
    new = {"format": FORMAT, "ranges": None, "bias_correction": content.get("recentred", False), **content}
    new.pop("recentred", None)
    layers: Any = new["layers"]
    if isinstance(layers, list):
        new["layers"] = [_upgraded_layer(layer, chip) for layer in cast("list[Any]", layers)]
    return new


def _upgraded_layer(layer: Any, chip: Chip) -> Any:
    if not isinstance(layer, Mapping) or not isinstance(layer.get("row_tiles"), int):
        return layer
    steps = min(layer["row_tiles"], chip.crossbar.row_tiles)
    return {"strategy": "dense", "crossbars_removed": 0, "steps": steps, **layer}


def _first(lines: list[str]) -> str:
    """Return the first problem, and how many follow."""
    return lines[0] + (f" (and {len(lines) - 1} more)" if len(lines) > 1 else "")


def _line(problem: Any) -> str:
    """Say in a line what is wrong with a key."""
    place = [str(part) for part in problem["loc"] if part not in _UNIONS]
    key = ".".join(place)
    match problem["type"]:
        case "missing":
            return f"{key} is missing"
        case "extra_forbidden":
            known = (_PARTS.get(place[0], Evaluation) if place[1:] else Evaluation).model_fields
            return f"unknown key {key}{nearest(place[-1], known)}"
        case "value_error":
            return f"{key}: {problem['ctx']['error']}" if key else str(problem["ctx"]["error"])
        case _:
            return f"{key} = {problem['input']!r}: {problem['msg'][0].lower()}{problem['msg'][1:]}"
