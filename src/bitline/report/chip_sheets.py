"""A chip as tables: every key in units of its own, and what was changed of the preset that it comes from."""

import tomllib
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from bitline.chip.description import Chip, check
from bitline.chip.files import presets, source
from bitline.differences import flat
from bitline.report import text
from bitline.report.tables import Cell, Head, Sheet

WORDS = {"name", "about", "doi", "deviations"}
"""of a chip, which say nothing about how it computes"""

_UNITS = {
    "node": "m",
    "vdd": "V",
    "cell.g_min": "S",
    "cell.g_max": "S",
    "cell.read_voltage": "V",
    "cell.access_resistance": "ohm",
    "adc.sample_rate": "Hz",
    "adc.range.low": "A",
    "adc.range.high": "A",
    "timing.read": "s",
    "timing.pulse": "s",
    "timing.clock": "Hz",
}


def chip_unit(key: str, chip: Mapping[str, Any]) -> str | None:
    """Return the unit of a chip key such as ``cell.g_min``, given all keys, flattened; None for a pure number."""
    if key.endswith(".sigma") and "absolute" in str(chip.get(f"{key.removesuffix('sigma')}kind")):
        return "S"
    return _UNITS.get(key)


def keys(chip: Chip) -> dict[str, Any]:
    """Return every key that says what a chip is, with its value."""
    return flat(chip.model_dump(mode="json", exclude=WORDS))


def written(key: str, every: Mapping[str, Any]) -> str:
    """Write the value of a key with its unit; a dash where the chip has no such key."""
    value, unit = every.get(key), chip_unit(key, every)
    return text.quantity(value, unit) if unit and text.finite(value) is not None else text.plain(value)


@cache
def _preset(name: str) -> Chip:
    return check(tomllib.loads(source(name)), f"chip {name}")


def origin(chip: Chip) -> Chip | None:
    """Return the preset that a chip comes from: that of its name, or else the one that it describes itself like."""
    if chip.name in presets():
        return _preset(chip.name)
    return next((_preset(name) for name in presets() if chip.about and _preset(name).about == chip.about), None)


def changes(chip: Chip) -> dict[str, tuple[str, str]]:
    """Return what a chip has otherwise than the preset that it comes from: written there, written here."""
    preset = origin(chip)
    return {} if preset is None else {key: (old, new) for key, (old, new) in differences([preset, chip]).items()}


def differences(chips: Sequence[Chip]) -> dict[str, tuple[str, ...]]:
    """Return the keys in which chips differ, as written for each."""
    every = [keys(chip) for chip in chips]
    told: dict[str, tuple[str, ...]] = {}
    for key in dict.fromkeys(key for one in every for key in one):
        if any(one.get(key) != every[0].get(key) for one in every):
            told[key] = tuple(written(key, one) for one in every)
    return told


def changed_words(chip: Chip) -> str:
    """Say in a line what was changed of a preset; empty where nothing was, or there is none."""
    told = ", ".join(f"{key} {new} ({old})" for key, (old, new) in changes(chip).items())
    preset = origin(chip)
    return f"changed of the preset {preset.name}, whose value is in brackets: {told}" if preset and told else ""


def change_sheet(chip: Chip) -> Sheet:
    """The keys that were changed of a preset."""
    preset = origin(chip)
    heads = [
        Head("key", numeric=False),
        Head(f"preset {preset.name if preset else ''}", numeric=False),
        Head("this chip", numeric=False),
    ]
    rows = [[Cell(key), Cell(old), Cell(new)] for key, (old, new) in changes(chip).items()]
    return Sheet("Changed of the preset", heads, rows)


def difference_sheet(names: Sequence[str], chips: Sequence[Chip]) -> Sheet:
    """The keys in which chips differ, one column a chip."""
    heads = [Head("key", numeric=False), *(Head(name, numeric=False) for name in names)]
    rows = [[Cell(key), *map(Cell, values)] for key, values in differences(chips).items()]
    return Sheet("Where the chips differ", heads, rows)


def sheets(chip: Chip) -> list[Sheet]:
    """Return one table for each record of the chip, and a first one for the keys outside any."""
    lines: dict[str, list[list[Cell]]] = {}
    every, told = keys(chip), changes(chip)
    for key in every:
        record, _, name = key.rpartition(".") if key.count(".") == 0 else key.partition(".")
        value = written(key, every) + (" *" if key in told else "")
        lines.setdefault(record, []).append([Cell(name), Cell(value)])
    heads = [Head("key", numeric=False), Head("value", numeric=False)]
    return [Sheet(record or "the whole chip", heads, rows) for record, rows in lines.items()]
