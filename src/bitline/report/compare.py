"""Several runs on one page: accuracy, energy, area, and layer by layer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bitline.evaluation.record import Layer
from bitline.files import write_text
from bitline.report import bars, figures, page, plot, quantities, runs, sentences, text
from bitline.report.plot import Figure, Json
from bitline.report.runs import Entry
from bitline.report.tables import Cell, Columns, Head, Sheet, of

_COLORS = 14  # of parts in the style sheet
_SMALL = 0.02  # components below this share in every run are drawn as one


def comparison(entries: Sequence[Entry]) -> dict[str, Any]:
    """Return the comparison as plain data.

    Args:
        entries: from `bitline.report.runs.read`; the first is what equal useful work is measured by.

    Returns:
        ``runs`` (a record each), ``recipes`` (what each changed of the network it began with) and ``differences``
        (what else than the network differs between the evaluations).
    """
    return {
        "first": entries[0].name,
        "runs": [runs.row(entry, entries[0]) for entry in entries],
        "recipes": runs.gains(entries),
        "differences": runs.differences(entries),
    }


def write(entries: Sequence[Entry], path: Path) -> Path:
    """Write the page of a comparison; the file is whole or absent.

    Args:
        entries: from `bitline.report.runs.read`.
        path: file to write; its folder is created.

    Returns:
        The path of the page.
    """
    write_text(path, render(entries))
    return path


def render(entries: Sequence[Entry]) -> str:
    """Return the page as text; see `write`."""
    compared = comparison(entries)
    rows = compared["runs"]
    drawings = {
        "accuracy": bars.accuracies(
            "accuracy",
            [row["run"] for row in rows],
            rows,
            "Accuracy of each run, from float to programmed chips; whiskers are one standard deviation over the chips.",
        ),
        "energy": _energy(entries),
        "scatter": _scatter(entries),
        "layers": _layers(entries),
    }
    sheets = {"runs": summary(compared), "recipes": recipes(compared), "layers": layers(entries)}
    first = entries[0].evaluation
    return page.render(
        "compare.html",
        drawings,
        title=f"{len(entries)} runs compared",
        about=[sentences.images(first.data), f"on {first.chip.name}"],
        lead=lead(compared),
        differences=compared["differences"],
        first=compared["first"],
        sheets={key: sheet if sheet.rows else None for key, sheet in sheets.items()},
        provenance=[(entry.name, _provenance(entry)) for entry in entries],
    )


def lead(compared: Mapping[str, Any]) -> list[str]:
    """Say which run is the most accurate and which does the same work for least energy."""
    rows = [row for row in compared["runs"] if row["mean"] is not None]
    if len(rows) < 2:
        return []
    best = max(rows, key=lambda row: row["mean"])
    lines = [f"Most accurate on the chip: {best['run']}, {text.spread(best['mean'], best['std'])} %."]
    efficient = [row for row in rows if row["work_efficiency"] is not None]
    if efficient:
        cheap = max(efficient, key=lambda row: row["work_efficiency"])
        if cheap["work_efficiency"] > 1:
            ratio = text.decimal(cheap["work_efficiency"])
            lines.append(
                f"Most images per joule: {cheap['run']}, {ratio} times those of {compared['first']}, at "
                f"{text.spread(cheap['mean'], cheap['std'])} %."
            )
        else:
            lines.append(f"No run does more images per joule than {compared['first']}.")
    return lines


def summary(compared: Mapping[str, Any]) -> Sheet:
    """One line a run."""
    records = compared["runs"]
    table = Columns()
    table.words(Head("run", numeric=False), of(records, "run"))
    table.words(Head("recipe", numeric=False, rank=2), of(records, "recipe"))
    table.figures(Head("float", "%", rank=1), of(records, "float"), text.decimal)
    cells = [Cell(text.spread(record["mean"], record["std"]), record["mean"]) for record in records]
    table.add(Head("on the chip", "%", meaning="mean ± standard deviation over the programmed chips"), cells)
    table.figures(Head("worst", "%", rank=3), of(records, "worst"), text.decimal)
    meaning = "most row tiles of a convolution: partial sums per output, input digit and slice"
    table.figures(Head("row tiles", meaning=meaning, rank=4), of(records, "row_tiles"), text.number)
    table.figures(Head("conversions", rank=5, meaning="per image"), of(records, "conversions"), text.number)
    table.physical(Head("energy", meaning="per image"), of(records, "energy_J"), "J")
    meaning = "per operation performed: a run that performs fewer is not the better for it"
    table.ratio(Head("efficiency", "TOPS/W", meaning=meaning, rank=3), of(records, "tops_per_watt"))
    meaning = f"images per joule over those of {compared['first']}"
    cells = [Cell(_times(value), value) for value in of(records, "work_efficiency")]
    table.add(Head("at equal work", "×", meaning=meaning, rank=1), cells)
    table.physical(Head("area", rank=6), of(records, "area_m2"), "m2")
    table.physical(Head("latency", rank=7), of(records, "latency_s"), "s")
    return table.sheet(f"Runs; equal work: images per joule over those of {compared['first']}")


def recipes(compared: Mapping[str, Any]) -> Sheet:
    """What each recipe changed of the network that it began with."""
    records = compared["recipes"]
    table = Columns()
    table.words(Head("run", numeric=False), of(records, "run"))
    table.words(Head("recipe", numeric=False, rank=1), of(records, "recipe"))
    table.figures(Head("before", "%", "on the chip"), of(records, "before"), text.decimal)
    table.figures(Head("after", "%", "on the chip"), of(records, "after"), text.decimal)
    signed = [Cell(text.decimal(value, sign=True), value) for value in of(records, "points")]
    table.add(Head("gain", "points", "on the chip"), signed)
    group = "after / before"
    for key, name in (
        ("conversions", "conversions"),
        ("energy", "energy"),
        ("work_efficiency", "images per joule"),
        ("tops_per_watt", "TOPS/W"),
    ):
        table.add(Head(name, "×", group), [Cell(_times(value), value) for value in of(records, key)])
    return table.sheet("Each recipe against the network it began with")


def layers(entries: Sequence[Entry]) -> Sheet:
    """Every layer of every run, side by side."""
    names, by_name = _by_layer(entries)
    table = Columns()
    table.words(Head("layer", numeric=False), names)
    for entry, own in zip(entries, by_name, strict=True):
        every = [own.get(name) for name in names]
        tiles = [None if layer is None else layer.row_tiles for layer in every]
        conversions = [None if layer is None else layer.conversions for layer in every]
        for name, counts in (("row tiles", tiles), ("conversions", conversions)):
            table.add(Head(name, group=entry.name), [Cell(text.number(count), count) for count in counts])
        energies = [None if layer is None else layer.energy_J for layer in every]
        column = text.column(energies, "J")
        cells = [Cell(figure, value) for figure, value in zip(column.texts, energies, strict=True)]
        table.add(Head("energy", column.unit, entry.name), cells)
    return table.sheet("Layers of each run; a dash: the run has no such layer")


def _times(value: float | None) -> str:
    return text.ABSENT if value is None else text.number(value, 3)


def _by_layer(entries: Sequence[Entry]) -> tuple[list[str], list[dict[str, Layer]]]:
    """Names of the layers of all runs in the order of the network, and the layers of each run by name."""
    by_name = [{layer.name: layer for layer in entry.evaluation.layers} for entry in entries]
    names: list[str] = []
    for own in by_name:
        place = 0
        for name in own:
            if name in names:
                place = names.index(name) + 1
            else:
                names.insert(place, name)
                place += 1
    return names, by_name


def _energy(entries: Sequence[Entry]) -> Figure | None:
    """Draw the energy of an image by component, one bar a run."""
    parts = [quantities.parts(entry.evaluation.cost)["energy"] for entry in entries]
    totals = [part.total for part in parts]
    if not any(totals):
        return None
    shares = [part.shares for part in parts]
    keys = list(dict.fromkeys(key for share in shares for key, value in share.items() if value))
    small = [key for key in keys if max(share.get(key, 0.0) for share in shares) < _SMALL]
    components = [
        (text.label(key), f"--part-{i % _COLORS}", [key]) for i, key in enumerate(k for k in keys if k not in small)
    ]
    if small:
        components.append((f"{len(small)} smaller", "--other", small))
    names = [plot.safe(entry.name) for entry in entries]
    column = text.column(totals, "J")
    data: list[Json] = []
    for name, color, members in components:
        values = [sum(part.values.get(key, 0.0) for key in members) for part in parts]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": plot.safe(name),
                "y": names,
                "x": [value / column.factor for value in values],
                "customdata": [text.quantity(value, "J") for value in values],
                "marker": {"color": color, "line": {"color": "--paper", "width": 1}},
                "hovertemplate": f"%{{y}}: %{{customdata}}<extra>{plot.safe(name)}</extra>",
            }
        )
    ticks = [f"<b>{name}</b><br>{text.quantity(total, 'J')}" for name, total in zip(names, totals, strict=True)]
    layout = plot.layout(
        120 + 56 * len(names) + 24 * (len(data) // 6),
        barmode="stack",
        bargap=0.3,
        showlegend=True,
        xaxis=plot.axis(f"energy per image [{column.unit}]", rangemode="tozero"),
        yaxis=plot.axis(
            tickvals=names,
            ticktext=ticks,
            categoryorder="array",
            categoryarray=names,
            autorange="reversed",
            showgrid=False,
            fixedrange=True,
        ),
    )
    caption = "Energy of one image by component."
    if small:
        caption += f" Components below {100 * _SMALL:.0f} % in every run are drawn as one."
    return Figure("energy", caption, data, layout)


def _scatter(entries: Sequence[Entry]) -> Figure | None:
    """Draw accuracy against energy."""
    points: list[figures.Point] = []
    for entry in entries:
        accuracy, energy = entry.evaluation.accuracy, entry.evaluation.cost.energy_J
        points.append(figures.Point(entry.name, entry.name, energy, accuracy.mean, accuracy.std or 0.0))
    caption = (
        "Accuracy against energy; whiskers are one standard deviation over the programmed chips. The line joins the "
        "runs that no other beats in both."
    )
    return figures.scatter("scatter", points, caption)


def _layers(entries: Sequence[Entry]) -> Figure:
    """Draw row tiles and energy of each layer, one colour a run."""
    names, by_name = _by_layer(entries)
    every = [[own.get(name) for name in names] for own in by_name]
    panels = [
        ("row tiles", "", [[None if layer is None else float(layer.row_tiles) for layer in run] for run in every]),
        ("energy", "J", [[None if layer is None else layer.energy_J for layer in run] for run in every]),
    ]
    data: list[Json] = []
    axes: Json = {}
    safe = [plot.safe(name) for name in names]
    for i, (title, unit, figures_of) in enumerate(panels):
        suffix, top = str(i + 1) if i else "", 1 - i / len(panels)
        column = text.column([value for values in figures_of for value in values], unit) if unit else None
        factor = column.factor if column else 1.0
        most = max((value for values in figures_of for value in values if value is not None), default=1.0)
        whole = {} if unit else {"dtick": max(1, round(most / 4))}
        axes[f"yaxis{suffix}"] = plot.axis(
            f"{title} [{column.unit}]" if column else title,
            domain=[max(0.0, top - 1 / len(panels) + (0.07 if i == 0 else 0)), top],
            rangemode="tozero",
            nticks=5,
            fixedrange=True,
            **whole,
        )
        for j, (entry, values) in enumerate(zip(entries, figures_of, strict=True)):
            data.append(
                {
                    "type": "bar",
                    "name": plot.safe(entry.name),
                    "x": safe,
                    "yaxis": f"y{suffix}",
                    "y": [None if value is None else value / factor for value in values],
                    "showlegend": i == 0,
                    "offsetgroup": str(j),
                    "legendgroup": str(j),
                    "marker": {"color": f"--part-{j % _COLORS}"},
                    "customdata": [text.quantity(v, unit) if unit else text.number(v) for v in values],
                    "hovertemplate": f"%{{x}}: %{{customdata}}<extra>{plot.safe(entry.name)}</extra>",
                }
            )
    anchor = f"y{len(panels)}"
    layout = plot.layout(
        140 + 150 * len(panels),
        showlegend=True,
        barmode="group",
        bargap=0.25,
        xaxis=plot.layer_axis(safe, anchor=anchor),
        **axes,
    )
    caption = "Row tiles and energy of each layer, one colour a run; a layer that a run does not have has no bar."
    return Figure("layers", caption, data, layout)


def _provenance(entry: Entry) -> str:
    evaluation = entry.evaluation
    items = [
        entry.recipe,
        evaluation.model,
        sentences.images(evaluation.data),
        f"{len(evaluation.accuracy.chips)} programmed chips",
        *([f"commit {evaluation.commit[:12]}"] if evaluation.commit else []),
    ]
    return ", ".join(items)
