"""Results as `to_html` writes them, and as notebooks show them: tables without scripts within another page."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from bitline.evaluation.grid import Sweep
from bitline.evaluation.record import Evaluation
from bitline.files import write_text
from bitline.report import figures, html, sentences, tables
from bitline.report import page as pages
from bitline.report.measure import Measure
from bitline.report.tables import Sheet


def page(result: Evaluation | Sweep, path: Path) -> Path:
    """Write the page of a result; the file is whole or absent.

    Returns:
        Its path.
    """
    if isinstance(result, Evaluation):
        return html.write(result, path)
    write_text(path, render(result))
    return path


def render(sweep: Sweep) -> str:
    """Return the page of a sweep as text."""
    measure, chips = Measure(sweep.metric), len(sweep.seeds)
    return pages.render(
        "sweep.html",
        {"sweep": figures.sweep(sweep.variants, measure)},
        title=f"{sweep.model} on variants of {sweep.chip.name}",
        about=[
            sentences.images(sweep.data),
            f"{chips} programmed chip{'s' if chips > 1 else ''} at each point",
            f"ranges from {sweep.calibration}",
            f"bitline {sweep.bitline}",
        ],
        lead=_lead(sweep),
        sheet=tables.sweep(sweep.variants, measure),
        download=pages.download(sweep.to_json()),
    )


def _lead(sweep: Sweep) -> list[str]:
    measure = Measure(sweep.metric)
    told = [f"{measure.title} of the network without a chip: {measure.figure(sweep.float)}."]
    if sweep.best:
        top = sweep.best[-1]
        told.append(f"Best: {top.label}, {measure.spread(top.mean, top.std)}{measure.unit}.")
    if sweep.simulation != "exact":
        told.append("A surrogate answered for the chips.")
    return told


def fragment(result: Evaluation | Sweep) -> str:
    """Return what a notebook shows of a result."""
    if isinstance(result, Sweep):
        return _head(str(result).splitlines()[:2]) + _table(tables.sweep(result.variants, Measure(result.metric)))
    sheets = (tables.causes(result), tables.layers(result), tables.digital(result))
    return _head([result.title, sentences.images(result.data), *sentences.lead(result)]) + "".join(map(_table, sheets))


def _head(lines: Sequence[str]) -> str:
    first, *rest = map(escape, lines)
    return f"<p><b>{first}</b><br>{'<br>'.join(rest)}</p>"


def _table(sheet: Sheet) -> str:
    if not sheet.rows:
        return ""
    heads = "".join(f"<th>{escape(h.name)}{f' [{escape(h.unit)}]' if h.unit else ''}</th>" for h in sheet.heads)
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell.text)}</td>" for cell in row) + "</tr>" for row in sheet.rows)
    caption = f"<caption>{escape(sheet.caption)}</caption>"
    return f"<table>{caption}<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>"
