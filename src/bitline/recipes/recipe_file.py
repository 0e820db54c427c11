"""``recipe.json``: what the recipe of a run directory was told.

Version 1, which has no version, was one record of all options of all recipes.
"""

from pathlib import Path
from typing import Any, cast

from bitline import manifest
from bitline.errors import DataError
from bitline.files import RECIPE, read_json, write_json
from bitline.recipes.records.base import Recipe
from bitline.recipes.records.union import RECORDS, checked, record_of

VERSION = 2
_RENAMED = {"compensate": "error_compensation"}
_REMOVED = {"proxy_batch": 64}
"""what no recipe has any more, and the only value it could have"""
_IDLE = ("granularity", "range_lr", "chip_epochs", "chip_lr", "reprogram_every", "test_images", "structure_images")
"""what recipes of version 1 took though some did nothing with it"""


def write(folder: Path, config: Recipe) -> None:
    """Write the file of a run directory."""
    settings = config.model_dump(mode="json", exclude={"recipe"})
    content = {"version": VERSION, "recipe": config.name(), **manifest.MARK, "settings": settings}
    write_json(folder / RECIPE, content)


def read(folder: Path) -> Recipe:
    """Read the file of a run directory, of this or an earlier version.

    Raises:
        DataError: a damaged file, a later version, or options that the recipe does not have.
    """
    path = folder / RECIPE
    content: dict[str, Any] = read_json(path)
    version = content.get("version", 1)
    settings = content.get("settings")
    if version not in (1, VERSION):
        raise DataError(f"{path} has version {version!r}; allowed: 1, {VERSION}")
    if not isinstance(settings, dict):
        raise DataError(f"{path} has settings {settings!r}; allowed: the options of a recipe")
    given: dict[str, Any] = {**cast("dict[str, Any]", settings), "recipe": content.get("recipe")}
    try:
        return checked(**(_from_first(given) if version == 1 else given))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _from_first(given: dict[str, Any]) -> dict[str, Any]:
    """Drop what the recipe does not have where it says nothing; None was the recipe's own value."""
    record = record_of(given["recipe"])
    if given["recipe"] == "conventional" and given.get("aware") not in (None, "none"):
        raise DataError(
            f"aware is {given['aware']!r}: recipe conventional trained on the chip in version 1; "
            "now recipes quantization-aware and psum-aware do"
        )
    named = {_RENAMED.get(key, key): value for key, value in given.items() if value is not None}
    if given["recipe"] != "crimp":
        named.pop("simulation", None)  # it was of that recipe alone
    return {key: value for key, value in named.items() if key in record.model_fields or not _idle(key, value)}


def _idle(key: str, value: Any) -> bool:
    if key in _IDLE or (key in _REMOVED and value == _REMOVED[key]):
        return True
    fields = [record.model_fields[key] for record in RECORDS.values() if key in record.model_fields]
    defaults = [field.get_default(call_default_factory=True) for field in fields]
    return any(value == (list(default) if isinstance(default, tuple) else default) for default in defaults)
