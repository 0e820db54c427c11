"""A study of partial sums as one HTML file that opens anywhere, without a network."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitline.evaluation.record import Data
from bitline.files import write_text
from bitline.report import page, sentences, study_figures, study_tables, text

Study = Mapping[str, Any]


def write(study: Study, path: Path) -> Path:
    """Write the page of one study; the file is whole or absent.

    Args:
        study: what `bitline.study.partial_sums` returns and writes; lessons that are missing leave their section out.
        path: file to write; its folder is created.

    Returns:
        The path of the page.
    """
    write_text(path, render(study))
    return path


def render(study: Study) -> str:
    """Return the page as text; see `write`."""
    figures = {
        "tiles": study_figures.tiles(study),
        "sqnr": study_figures.sqnr(study),
        "alone": study_figures.alone(study),
        "grid": study_figures.grid(study),
        "heights": study_figures.heights(study),
        "energy": study_figures.energy(study),
        "training": study_figures.training(study),
    }
    sheets = {
        "layers": study_tables.layers(study),
        "tiles": study_tables.tiles(study),
        "grid": study_tables.grid(study),
        "heights": study_tables.heights(study),
        "training": study_tables.training(study),
    }
    return page.render(
        "study.html",
        figures,
        title=f"Partial sums: {study.get('model', 'network')} on {_chip_name(study)}",
        about=_about(study),
        lead=[],
        findings=_findings(study),
        sheets={key: sheet if sheet.rows else None for key, sheet in sheets.items()},
        not_measured=list(study.get("not_measured") or []),
        settings=_settings(study),
        download=page.download(study),
    )


def _about(study: Study) -> list[str]:
    chips = len(study.get("seeds") or [])
    commits = [str(commit)[:12] for commit in study.get("commits") or [] if commit]
    items = [
        sentences.images(Data.model_validate(study["data"])) if "data" in study else "",
        f"{chips} programmed chip{'s' if chips != 1 else ''}" if chips else "no chip programmed",
        f"commit {', '.join(commits)}" if commits else "",
        f"bitline {study['bitline']}" if study.get("bitline") else "",
        "" if study.get("finished") else "unfinished",
    ]
    return [item for item in items if item]


def _findings(study: Study) -> dict[int, list[str]]:
    """Group the sentences by lesson."""
    lessons: dict[int, list[str]] = {}
    for finding in study.get("findings") or []:
        lessons.setdefault(int(finding["lesson"]), []).append(str(finding["text"]))
    return lessons


def _settings(study: Study) -> list[tuple[str, str]]:
    settings = {key: value for key, value in (study.get("settings") or {}).items() if key not in ("chip", "data")}
    items = [("chip", _chip_name(study)), ("adc", text.plain((study.get("chip") or {}).get("adc")))]
    items += [(text.label(key), text.plain(value)) for key, value in settings.items()]
    return [(name, value) for name, value in items if value not in ("", text.ABSENT)]


def _chip_name(study: Study) -> str:
    return str((study.get("chip") or {}).get("name", "unnamed chip"))
