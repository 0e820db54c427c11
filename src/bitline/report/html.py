"""One evaluation as one HTML file that opens anywhere, without a network."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitline.files import write_text
from bitline.report import cost_figures, facts, figures, histograms, page, sheets, text
from bitline.report.facts import Evaluation
from bitline.report.page import script_json

__all__ = ["OPEN_HISTOGRAMS", "chip_unit", "render", "script_json", "write"]

OPEN_HISTOGRAMS = 24
"""more layers than this are folded away, so that a deep network's page stays readable"""


def write(
    evaluation: Evaluation, path: Path, *, title: str | None = None, sweep: Sequence[Mapping[str, Any]] | None = None
) -> Path:
    """Write the page of one evaluation; the file is whole or absent.

    Args:
        evaluation: what `bitline evaluate --json` writes; keys that are missing leave their section out, and the page
            says which.
        path: file to write; its folder is created.
        title: heading of the page; model and chip where absent.
        sweep: other chips tried, ``{"label", "chip overrides", "mean", "std", "energy_J", ...}`` each.

    Returns:
        The path written.
    """
    write_text(path, render(evaluation, title=title, sweep=sweep))
    return path


def render(
    evaluation: Evaluation, *, title: str | None = None, sweep: Sequence[Mapping[str, Any]] | None = None
) -> str:
    """Return the page as text; see `write`."""
    made = {
        "loss": figures.loss(evaluation),
        "chips": figures.chips(evaluation),
        "parts": cost_figures.parts(evaluation),
        "layer_cost": cost_figures.layer_cost(evaluation),
        "layer_error": figures.layer_error(evaluation),
        "sweep": figures.sweep(sweep or []),
    }
    pictures = histograms.pictures(evaluation)
    return page.render(
        "report.html",
        made,
        title=title or facts.title(evaluation),
        about=_about(evaluation),
        lead=facts.lead(evaluation),
        accuracy=facts.accuracy(evaluation),
        programmed=facts.chips(evaluation),
        quantities=facts.quantities(evaluation),
        cost=_more_cost(evaluation),
        sheets=_sheets(evaluation, sweep or []),
        many_ranges=any(
            (facts.part(r, "partial_sums").get("ranges") or 1) > 1 for r in facts.rows(evaluation, "layers")
        ),
        pictures=pictures[:OPEN_HISTOGRAMS],
        folded=pictures[OPEN_HISTOGRAMS:],
        size=(histograms.WIDTH, histograms.HEIGHT),
        chip=facts.part(evaluation, "chip"),
        records=_chip(evaluation),
        doi=_doi(facts.part(evaluation, "chip").get("doi")),
        notes=facts.part(evaluation, "cost").get("notes") or [],
        merged=facts.part(evaluation, "folded"),
        facts=_provenance(evaluation),
        absent=facts.absent(evaluation),
    )


def _sheets(evaluation: Evaluation, sweep: Sequence[Mapping[str, Any]]) -> dict[str, sheets.Sheet | None]:
    made = {
        "causes": sheets.causes(evaluation),
        "chips": sheets.chips(evaluation),
        "parts": sheets.parts(evaluation),
        "adc_models": sheets.adc_models(evaluation),
        "layers": sheets.layers(evaluation),
        "digital": sheets.digital(evaluation),
        "sweep": sheets.sweep(sweep),
    }
    return {key: sheet if sheet.rows else None for key, sheet in made.items()}


def _about(evaluation: Evaluation) -> list[str]:
    programmed = len(facts.chips(evaluation))
    said = [
        facts.data(evaluation),
        f"{programmed} programmed chip{'s' if programmed > 1 else ''}" if programmed else "no chip programmed",
        f"commit {str(evaluation['commit'])[:12]}" if evaluation.get("commit") else "",
        f"bitline {evaluation['bitline']}" if evaluation.get("bitline") else "",
    ]
    return [item for item in said if item]


def _more_cost(evaluation: Evaluation) -> list[tuple[str, str]]:
    cost = facts.part(evaluation, "cost")
    known = (
        ("crossbars", "crossbars", ""),
        ("conversions per input", "conversions", ""),
        ("MACs per input", "macs", ""),
        ("throughput", "tops", "TOPS"),
        ("leakage", "leakage_W", "W"),
        ("crossbars built without a layer", "unused_area_m2", "m2"),
    )
    found: list[tuple[str, str]] = []
    for name, key, unit in known:
        if text.finite(cost.get(key)):
            written = (
                text.quantity(cost[key], unit) if unit in {"W", "m2"} else f"{text.number(cost[key])} {unit}".strip()
            )
            found.append((name, written))
    return found


def _doi(doi: object) -> str | None:
    """Return the link of a DOI; anything else is shown as text only."""
    written = str(doi or "")
    registrant, _, suffix = written.partition("/")
    sound = registrant.startswith("10.") and registrant[3:].isdigit() and suffix and not set(suffix) & set(" <>\"'")
    return f"https://doi.org/{written}" if sound else None


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


def _chip(evaluation: Evaluation) -> list[sheets.Sheet]:
    """Return one table for each record of the chip, and a first one for the keys outside any."""
    chip = facts.part(evaluation, "chip")
    apart = {"name", "about", "doi", "deviations"}  # told in words above the tables
    lines: dict[str, list[list[sheets.Cell]]] = {}
    flat = facts.settings({key: chip[key] for key in chip if key not in apart})
    for key, value in flat:
        record, _, name = key.rpartition(".") if key.count(".") == 0 else key.partition(".")
        unit = chip_unit(key, dict(flat))
        written = text.quantity(value, unit) if unit and text.finite(value) is not None else text.plain(value)
        lines.setdefault(record, []).append([sheets.Cell(name), sheets.Cell(written)])
    heads = [sheets.Head("key", numeric=False), sheets.Head("value", numeric=False)]
    return [sheets.Sheet(record or "the whole chip", heads, rows) for record, rows in lines.items()]


def _provenance(evaluation: Evaluation) -> list[tuple[str, str]]:
    said = [
        ("model", text.plain(evaluation.get("model"))),
        ("data", facts.data(evaluation)),
        ("seeds", text.plain(evaluation.get("seeds"))),
        ("commit", text.plain(evaluation.get("commit"))),
        ("bitline", text.plain(evaluation.get("bitline"))),
    ]
    said += [(text.stem(key), text.by_suffix(key, value)) for key, value in facts.part(evaluation, "timing").items()]
    return [(name, value) for name, value in said if value not in ("", text.ABSENT)]
