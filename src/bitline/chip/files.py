"""Chips as TOML files: presets that ship with bitline, files of the user, overrides on top."""

import logging
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, cast

from bitline.chip.description import Chip, check
from bitline.chip.leak import leak_remark
from bitline.chip.plausible import bare, remarks
from bitline.chip.system import default_clock
from bitline.errors import ChipError, nearest, shown

log = logging.getLogger(__name__)

MOST_BYTES = 2**18
"""of a chip file, which is a page of text"""


def presets() -> list[str]:
    """Names of the chips that ship with bitline."""
    folder = resources.files("bitline.chip") / "presets"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load(name_or_file: str | Path, overrides: Iterable[str] = ()) -> Chip:
    """Read a preset by name, or a chip file by path; what is unusual about it is logged, a line for each key.

    Args:
        name_or_file: ``"rram-22nm"`` or ``"my/chip.toml"``.
        overrides: ``"adc.bits=6"`` and the like, applied in order; a quantity has its unit, ``"node=22 nm"``.

    Raises:
        ChipError: no such preset or file, not TOML, a quantity without its unit, or no possible chip.
    """
    text, where = _read(str(name_or_file))
    data = _toml(text, where)
    for override in _kinds_first(overrides):
        _apply(data, override)
    _check_units(data, where)
    chip = check(data, where)
    _remark(where, chip)
    return chip


def replace(chip: Chip, *overrides: str) -> Chip:
    """Return a chip that differs in the given keys: ``replace(chip, "adc.bits=6", "cell.g_max=50 uS")``."""
    data = chip.model_dump(mode="json", exclude_none=True)
    if chip.crossbar.active_rows == chip.crossbar.rows:
        # All rows at once: so it stays for another number of rows.
        del data["crossbar"]["active_rows"]
    if chip.timing.clock == default_clock(chip.node):
        # That of the node: so it stays for another node.
        del data["timing"]["clock"]
    where = f"chip {chip.name}"
    for override in _kinds_first(overrides):
        _check_units(_apply(data, override), where)
    new = check(data, where)
    _remark(where, new, chip)
    return new


def source(name_or_file: str | Path) -> str:
    """Return the text of a chip file, comments included."""
    return _read(str(name_or_file))[0]


def _read(name: str) -> tuple[str, str]:
    if name in presets():
        return (resources.files("bitline.chip") / "presets" / f"{name}.toml").read_text("utf-8"), f"chip {name}"
    path = Path(name)
    try:
        if not path.is_file():
            known = f"{nearest(name, presets())}; presets: {', '.join(presets())}"
            raise ChipError(f"no chip {shown(name, 200)}: neither a file nor a preset{known}")
        if path.stat().st_size > MOST_BYTES:
            raise ChipError(f"{path} has {path.stat().st_size} bytes; a chip file has {MOST_BYTES} at most")
        return path.read_text("utf-8-sig"), str(path)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ChipError(f"cannot read {name[:200]}: {reason}") from None


def _toml(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ChipError(f"{where} is nested too deeply for a chip file") from None
    except ValueError as error:  # TOML errors, and integers of thousands of digits
        raise ChipError(f"{where} is not TOML: {error}") from None


def _apply(data: dict[str, Any], override: str) -> dict[str, Any]:
    """Put an override into the data of a chip; return data of it alone, with the kinds of the records around it."""
    key, equals, text = override.partition("=")
    path = [part.strip() for part in key.split(".")]
    if not equals or not all(path):
        raise ChipError(f"override {shown(override)} is not KEY=VALUE, for example adc.bits=6")
    text = text.strip()
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        value = text
    own = alone = dict[str, Any]()
    for part in path[:-1]:
        below: object = data.setdefault(part, {})
        if isinstance(below, str):
            below = data[part] = {"kind": below}
        if not isinstance(below, dict):
            raise ChipError(f"override {shown(override)}: {part} is a value, not a section")
        data = cast("dict[str, Any]", below)
        deeper: dict[str, Any] = {"kind": data["kind"]} if "kind" in data else {}
        alone[part] = deeper
        alone = deeper
    if path[-1] == "kind" and value != data.get("kind"):
        data.clear()  # the keys of another kind may mean something else
    data[path[-1]] = value
    alone[path[-1]] = value
    return own


def _kinds_first(overrides: Iterable[str]) -> list[str]:
    """Put a kind before the keys beside it, whose meaning it decides."""
    ordered: list[str] = []
    for override in overrides:
        path = override.partition("=")[0].strip()
        beside = path.removesuffix("kind") if path.endswith(".kind") else None
        first = next((i for i, one in enumerate(ordered) if beside and one.strip().startswith(beside)), len(ordered))
        ordered.insert(first, override)
    return ordered


def _check_units(data: dict[str, Any], where: str) -> None:
    """Refuse quantities that are written without a unit, as only Python's own records may have them."""
    lines = [f"{where}: {line}" for line in bare(data, Chip)]
    if lines:
        raise ChipError("\n".join(lines))


def _remark(where: str, chip: Chip, before: Chip | None = None) -> None:
    lines = [*remarks(chip, before)]
    if (leak := leak_remark(chip)) and (before is None or leak != leak_remark(before)):
        lines.append(leak)
    for line in lines:
        log.warning("%s: %s", where, line)
