"""One evaluation as one HTML file that opens anywhere, without a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitline.chip.description import Chip
from bitline.differences import flat
from bitline.evaluation.environment import Environment
from bitline.evaluation.record import Cost, Evaluation, Variant
from bitline.files import write_text
from bitline.report import cost_figures, figures, histograms, page, sentences, tables, text
from bitline.report.page import script_json
from bitline.report.quantities import quantities

__all__ = ["OPEN_HISTOGRAMS", "chip_unit", "render", "script_json", "write"]

OPEN_HISTOGRAMS = 24
"""more layers than this are folded away, so that a deep network's page stays readable"""


def write(
    evaluation: Evaluation, path: Path, *, title: str | None = None, sweep: Sequence[Variant] | None = None
) -> Path:
    """Write the page of one evaluation; the file is whole or absent.

    Args:
        evaluation: to show; the page says what it does not hold.
        path: file to write; its folder is created.
        title: heading of the page; model and chip where absent.
        sweep: other chips tried.

    Returns:
        The path of the page.
    """
    write_text(path, render(evaluation, title=title, sweep=sweep))
    return path


def render(evaluation: Evaluation, *, title: str | None = None, sweep: Sequence[Variant] | None = None) -> str:
    """Return the page as text; see `write`."""
    drawings = {
        "loss": figures.loss(evaluation),
        "chips": figures.chips(evaluation),
        "parts": cost_figures.parts(evaluation.cost),
        "layer_cost": cost_figures.layer_cost(evaluation),
        "layer_error": figures.layer_error(evaluation),
        "sweep": figures.sweep(sweep or []),
    }
    pictures = histograms.pictures(evaluation)
    chip = evaluation.chip
    return page.render(
        "report.html",
        drawings,
        title=title or evaluation.title,
        about=_about(evaluation),
        lead=sentences.lead(evaluation),
        accuracy=evaluation.accuracy,
        quantities=quantities(evaluation.cost),
        cost=_more_cost(evaluation.cost),
        sheets=_sheets(evaluation, sweep or []),
        many_ranges=any(layer.sums is not None and layer.sums.ranges > 1 for layer in evaluation.layers),
        pictures=pictures[:OPEN_HISTOGRAMS],
        more_pictures=pictures[OPEN_HISTOGRAMS:],
        size=(histograms.WIDTH, histograms.HEIGHT),
        chip=chip,
        records=_chip(chip),
        doi=_doi(chip.doi),
        notes=evaluation.cost.notes,
        folds=evaluation.folded,
        provenance=_provenance(evaluation),
        absent=sentences.absent(evaluation),
    )


def _sheets(evaluation: Evaluation, sweep: Sequence[Variant]) -> dict[str, tables.Sheet | None]:
    every = {
        "causes": tables.causes(evaluation),
        "chips": tables.chips(evaluation),
        "parts": tables.parts(evaluation.cost),
        "adc_models": tables.adc_models(evaluation.cost),
        "layers": tables.layers(evaluation),
        "digital": tables.digital(evaluation),
        "sweep": tables.sweep(sweep),
    }
    return {key: sheet if sheet.rows else None for key, sheet in every.items()}


def _about(evaluation: Evaluation) -> list[str]:
    chips = len(evaluation.accuracy.chips)
    return [
        sentences.images(evaluation.data),
        f"{chips} programmed chip{'s' if chips > 1 else ''}" if chips else "no chip programmed",
        *([f"commit {evaluation.commit[:12]}"] if evaluation.commit else []),
        f"bitline {evaluation.bitline}",
    ]


def _more_cost(cost: Cost) -> list[tuple[str, str]]:
    every = (
        ("crossbars", cost.crossbars, text.number(cost.crossbars)),
        ("conversions per input", cost.conversions, text.number(cost.conversions)),
        ("MACs per input", cost.macs, text.number(cost.macs)),
        ("throughput", cost.tops, f"{text.number(cost.tops)} TOPS"),
        ("leakage", cost.leakage_W, text.quantity(cost.leakage_W, "W")),
        ("crossbars built without a layer", cost.unused_area_m2, text.quantity(cost.unused_area_m2, "m2")),
    )
    return [(name, words) for name, value, words in every if value]


def _doi(doi: object) -> str | None:
    """Return the link of a DOI; anything else is shown as text only."""
    name = str(doi or "")
    registrant, _, suffix = name.partition("/")
    sound = registrant.startswith("10.") and registrant[3:].isdigit() and suffix and not set(suffix) & set(" <>\"'")
    return f"https://doi.org/{name}" if sound else None


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


def _chip(chip: Chip) -> list[tables.Sheet]:
    """Return one table for each record of the chip, and a first one for the keys outside any."""
    apart = {"name", "about", "doi", "deviations"}  # told in words above the tables
    lines: dict[str, list[list[tables.Cell]]] = {}
    keys = flat(chip.model_dump(mode="json", exclude=apart))
    for key, value in keys.items():
        record, _, name = key.rpartition(".") if key.count(".") == 0 else key.partition(".")
        unit = chip_unit(key, keys)
        words = text.quantity(value, unit) if unit and text.finite(value) is not None else text.plain(value)
        lines.setdefault(record, []).append([tables.Cell(name), tables.Cell(words)])
    heads = [tables.Head("key", numeric=False), tables.Head("value", numeric=False)]
    return [tables.Sheet(record or "the whole chip", heads, rows) for record, rows in lines.items()]


def _provenance(evaluation: Evaluation) -> list[tuple[str, str]]:
    items = [
        ("model", evaluation.model),
        ("data", sentences.images(evaluation.data)),
        ("seeds", text.plain(evaluation.seeds)),
        ("commit", text.plain(evaluation.commit)),
        ("bitline", evaluation.bitline),
        *_environment(evaluation.environment),
        ("calibration", text.quantity(evaluation.timing.calibration_s, "s")),
        ("accuracy", text.quantity(evaluation.timing.accuracy_s, "s")),
        ("evaluation", text.quantity(evaluation.timing.evaluation_s, "s")),
    ]
    return [(name, value) for name, value in items if value not in ("", text.ABSENT)]


def _environment(place: Environment | None) -> list[tuple[str, str]]:
    if place is None:
        return []
    return [
        ("path of products", place.path),
        ("processor", place.processor),
        ("instruction sets", ", ".join(place.cpu_flags)),
        ("threads", text.plain(place.threads)),
        ("GPU", text.plain(place.gpu)),
        ("versions", ", ".join(f"{name} {number}" for name, number in place.versions.items())),
    ]
