"""Chips as TOML files: presets that ship with bitline, files of the user, overrides on top."""

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, cast

from bitline.chip.description import Chip, check
from bitline.errors import ChipError, nearest


def presets() -> list[str]:
    """Names of the chips that ship with bitline."""
    folder = resources.files("bitline.chip") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(name_or_file: str | Path, overrides: Iterable[str] = ()) -> Chip:
    """Read a preset by name, or a chip file by path.

    Args:
        name_or_file: ``"rram-22nm"`` or ``"my/chip.toml"``.
        overrides: ``"adc.bits=6"`` and the like, applied in order.

    Raises:
        ChipError: no such preset or file, not TOML, or no possible chip.
    """
    text, where = _read(str(name_or_file))
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ChipError(f"{where} is not TOML: {error}") from None
    for override in overrides:
        _apply(data, override)
    return check(data, where)


def replace(chip: Chip, *overrides: str) -> Chip:
    """Return a chip that differs in the given keys: ``replace(chip, "adc.bits=6")``."""
    data = chip.model_dump(mode="json", exclude_none=True)
    if chip.crossbar.active_rows == chip.crossbar.rows:
        # All rows at once: so it stays for another number of rows.
        del data["crossbar"]["active_rows"]
    for override in overrides:
        _apply(data, override)
    return check(data, f"chip {chip.name}")


def source(name_or_file: str | Path) -> str:
    """Return the text of a chip file, comments included."""
    return _read(str(name_or_file))[0]


def _read(name: str) -> tuple[str, str]:
    if name in presets():
        return (resources.files("bitline.chip") / "presets" / f"{name}.toml").read_text("utf-8"), f"chip {name}"
    path = Path(name)
    if not path.is_file():
        raise ChipError(
            f"no chip {name!r}: neither a file nor a preset{nearest(name, presets())}; presets: {', '.join(presets())}"
        )
    try:
        return path.read_text("utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ChipError(f"cannot read {path}: {error}") from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ChipError(f"override {override!r} is not KEY=VALUE, for example adc.bits=6")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    for part in path[:-1]:
        below: object = data.setdefault(part, {})
        if isinstance(below, str):
            below = data[part] = {"kind": below}
        if not isinstance(below, dict):
            raise ChipError(f"override {override!r}: {part} is a value, not a section")
        data = cast("dict[str, Any]", below)
    data[path[-1]] = value
