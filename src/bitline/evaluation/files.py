"""Evaluations from files: checked, and brought up to the present format where they are older."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from bitline.chip.description import Chip, check
from bitline.errors import ChipError, DataError
from bitline.evaluation.record import FORMAT, Evaluation
from bitline.evaluation.result import first, validated
from bitline.files import read_json

_TELLING = ("accuracy", "cost", "layers")  # a file without all of them is something else


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
    return validated(Evaluation, {**present, "chip": chip}, where)


def _chip(chip: Any, where: str) -> Chip:
    if not isinstance(chip, Mapping):
        raise DataError(f"{where}: chip = {chip!r}: expected an object")
    try:
        return check(dict(cast("Mapping[str, Any]", chip)), f"{where}: chip")
    except ChipError as error:
        raise DataError(first(str(error).splitlines())) from None


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
