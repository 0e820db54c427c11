"""One evaluation as one HTML file that opens anywhere, without a network."""

from collections.abc import Sequence
from pathlib import Path

from bitline.evaluation.environment import Environment
from bitline.evaluation.record import Cost, Evaluation, Variant
from bitline.files import write_text
from bitline.report import chip_sheets, cost_figures, figures, floorplan, histograms, page, sentences, tables, text
from bitline.report.measure import Measure
from bitline.report.quantities import quantities

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
        measure=Measure(evaluation.metric),
        quantities=quantities(evaluation.cost),
        cost=_more_cost(evaluation.cost),
        sheets=_sheets(evaluation, sweep or []),
        many_ranges=any(layer.sums is not None and layer.sums.ranges > 1 for layer in evaluation.layers),
        plan=floorplan.plan(evaluation),
        pictures=pictures[:OPEN_HISTOGRAMS],
        more_pictures=pictures[OPEN_HISTOGRAMS:],
        size=(histograms.WIDTH, histograms.HEIGHT),
        chip=chip,
        origin=chip_sheets.origin(chip),
        records=chip_sheets.sheets(chip),
        doi=_doi(chip.doi),
        notes=evaluation.cost.notes,
        folds=evaluation.folded,
        provenance=_provenance(evaluation),
        absent=sentences.absent(evaluation),
        download=page.download(evaluation.to_json()),
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
        "changes": chip_sheets.change_sheet(evaluation.chip),
    }
    return {key: sheet if sheet.rows else None for key, sheet in every.items()}


def _about(evaluation: Evaluation) -> list[str]:
    chips = len(evaluation.accuracy.chips)
    changed = len(chip_sheets.changes(evaluation.chip))
    return [
        sentences.images(evaluation.data),
        f"{chips} programmed chip{'s' if chips > 1 else ''}" if chips else "no chip programmed",
        *([f"{changed} key{'s' if changed > 1 else ''} of the chip changed"] if changed else []),
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


def _provenance(evaluation: Evaluation) -> list[tuple[str, str]]:
    items = [
        ("model", evaluation.model),
        ("data", sentences.images(evaluation.data)),
        ("seeds", text.plain(evaluation.seeds)),
        ("commit", text.plain(evaluation.commit)),
        ("bitline", evaluation.bitline),
        *_environment(evaluation.environment),
        ("calibration", text.quantity(evaluation.timing.calibration_s, "s")),
        ("ranges from", text.plain(evaluation.calibration or evaluation.ranges)),
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
