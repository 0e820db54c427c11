"""Several runs on one page: accuracy, energy, area, and layer by layer."""

from collections.abc import Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from bitline.evaluation.record import Layer
from bitline.files import write_text
from bitline.report import bars, chip_sheets, figures, page, plot, quantities, runs, sentences, text
from bitline.report.cost_figures import Slices, lying
from bitline.report.measure import ACCURACY, Measure
from bitline.report.plot import PARTS, Figure, Key, Mark, Panel
from bitline.report.runs import Entry
from bitline.report.tables import Cell, Columns, Head, Sheet, of


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
    compared, measure = comparison(entries), _measure(entries)
    rows = compared["runs"]
    drawings = {
        "accuracy": bars.accuracies(
            "accuracy",
            [row["run"] for row in rows],
            rows,
            f"{measure.title} of each run, from float to programmed chips; whiskers are one standard deviation over "
            "the chips.",
            measure,
        ),
        "energy": _energy(entries),
        "scatter": _scatter(entries, measure),
        "layers": _layers(entries),
    }
    sheets = {"runs": summary(compared, measure), "recipes": recipes(compared, measure), "layers": layers(entries)}
    sheets["chips"] = chip_differences(entries)
    return page.render(
        "compare.html",
        drawings,
        title=title(entries),
        about=_about(entries),
        lead=lead(compared, measure),
        conditions=runs.conditions(entries),
        one_network=runs.same_network(entries),
        first=compared["first"],
        sheets={key: sheet if sheet.rows else None for key, sheet in sheets.items()},
        provenance=[(entry.name, _provenance(entry)) for entry in entries],
        download=page.download(compared),
    )


def title(entries: Sequence[Entry]) -> str:
    """Say what is compared: chips where one network was evaluated on several, else runs."""
    first = entries[0].evaluation
    return f"{first.model} on {len(entries)} chips" if runs.same_network(entries) else f"{len(entries)} runs compared"


def _about(entries: Sequence[Entry]) -> list[str]:
    names = dict.fromkeys(entry.evaluation.chip.name for entry in entries)
    return [sentences.images(entries[0].evaluation.data), f"on {', '.join(names)}"]


def chip_differences(entries: Sequence[Entry]) -> Sheet:
    """The keys in which the chips of the runs differ."""
    return chip_sheets.difference_sheet([e.name for e in entries], [e.evaluation.chip for e in entries])


def lead(compared: Mapping[str, Any], measure: Measure = ACCURACY) -> list[str]:
    """Say which run is the best on the chip and which takes the least energy for an inference; of equals, the best."""
    rows = [row for row in compared["runs"] if row["mean"] is not None]
    if len(rows) < 2:
        return []

    def good(row: Mapping[str, Any]) -> float:
        return -measure.metric.lost(0.0, row["mean"])

    def figure(row: Mapping[str, Any]) -> str:
        return measure.spread(row["mean"], row["std"]) + measure.unit

    best = max(rows, key=good)
    most = "Most accurate" if measure.metric.is_accuracy else f"Best {measure.metric.name}"
    lines = [f"{most} on the chip: {best['run']}, {figure(best)}."]
    efficient = [row for row in rows if row["work_efficiency"] is not None]
    if efficient:
        least = max(round(row["work_efficiency"], 2) for row in efficient)  # as it is written: equals are equal
        cheap = max((row for row in efficient if round(row["work_efficiency"], 2) == least), key=good)
        if least > 1:
            energy = text.quantity(cheap["energy_J"], "J")
            times = f"{text.decimal(least)} times less than {compared['first']}"
            lines.append(f"Least energy for an inference: {cheap['run']}, {energy}, {times}, at {figure(cheap)}.")
        else:
            lines.append(f"No run takes less energy for an inference than {compared['first']}.")
    return lines


def _measure(entries: Sequence[Entry]) -> Measure:
    return Measure(entries[0].evaluation.metric)


def summary(compared: Mapping[str, Any], measure: Measure = ACCURACY) -> Sheet:
    """One line a run."""
    unit, group = measure.metric.unit, "" if measure.metric.is_accuracy else measure.metric.name
    records = compared["runs"]
    table = Columns()
    table.words(Head("run", numeric=False), of(records, "run"))
    table.words(Head("recipe", numeric=False, rank=2), of(records, "recipe"))
    table.figures(Head("float", unit, group, rank=1), of(records, "float"), measure.number)
    cells = [Cell(measure.spread(record["mean"], record["std"]), record["mean"]) for record in records]
    table.add(Head("on the chip", unit, group, "mean ± standard deviation over the programmed chips"), cells)
    table.figures(Head("worst", unit, group, rank=3), of(records, "worst"), measure.number)
    meaning = "most row tiles of a convolution: partial sums per output, input digit and slice"
    table.figures(Head("row tiles", meaning=meaning, rank=4), of(records, "row_tiles"), text.number)
    table.figures(Head("conversions", rank=5, meaning="per inference"), of(records, "conversions"), text.number)
    table.physical(Head("energy", meaning="per inference"), of(records, "energy_J"), "J")
    meaning = "per operation performed: a run that performs fewer is not the better for it"
    table.ratio(Head("efficiency", "TOPS/W", meaning=meaning, rank=3), of(records, "tops_per_watt"))
    meaning = f"energy for an inference of {compared['first']}, over that of the run"
    cells = [Cell(_times(value), value) for value in of(records, "work_efficiency")]
    table.add(Head("at equal work", "×", meaning=meaning, rank=1), cells)
    table.physical(Head("area", rank=6), of(records, "area_m2"), "m2")
    table.physical(Head("latency", rank=7), of(records, "latency_s"), "s")
    return table.sheet(f"Runs; equal work: energy for an inference of {compared['first']}, over that of the run")


def recipes(compared: Mapping[str, Any], measure: Measure = ACCURACY) -> Sheet:
    """What each recipe changed of the network that it began with."""
    unit = measure.metric.unit
    where = "on the chip" if measure.metric.is_accuracy else f"{measure.metric.name} on the chip"
    records = compared["recipes"]
    table = Columns()
    table.words(Head("run", numeric=False), of(records, "run"))
    table.words(Head("recipe", numeric=False, rank=1), of(records, "recipe"))
    table.figures(Head("before", unit, where), of(records, "before"), measure.number)
    table.figures(Head("after", unit, where), of(records, "after"), measure.number)
    signed = [Cell(measure.number(value, sign=True), value) for value in of(records, "points")]
    table.add(Head("gain", measure.points, where), signed)
    group = "after / before"
    for key, name in (
        ("conversions", "conversions"),
        ("energy", "energy for an inference"),
        ("tops_per_watt", "TOPS/W"),
    ):
        table.add(Head(name, "×", group), [Cell(_times(value), value) for value in of(records, key)])
    return table.sheet("Each recipe against the network it began with")


def layers(entries: Sequence[Entry]) -> Sheet:
    """Every layer of every run, side by side."""
    names, by_name = by_layer(entries)
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


def by_layer(entries: Sequence[Entry]) -> tuple[list[str], list[dict[str, Layer]]]:
    """Names of the layers of all runs in the order of the network, and the layers of each run by name.

    A layer that only some runs have stands beside that of the others which it took the place of, by its name.
    """
    own = [{layer.name: layer for layer in entry.evaluation.layers} for entry in entries]
    names: list[str] = []
    for layers_of_one in own:
        before = ""
        for name in layers_of_one:
            if name not in names:
                nearest = max((_shared(name, other) for other in names), default=0)
                if nearest > _shared(name, before):
                    before = next(other for other in reversed(names) if _shared(name, other) == nearest)
                names.insert(names.index(before) + 1 if before else 0, name)
            before = name
    return names, own


def _shared(name: str, other: str) -> int:
    """How many parts two names begin with alike."""
    pairs = zip(name.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _energy(entries: Sequence[Entry]) -> Figure | None:
    """Draw the energy of an inference by component, one bar a run."""
    parts = [quantities.parts(entry.evaluation.cost)["energy"] for entry in entries]
    totals = [part.total for part in parts]
    if not any(totals):
        return None
    slices = Slices.among([part.shares for part in parts])
    column = text.column(totals, "J")
    marks: list[Mark] = []
    for i, (entry, part) in enumerate(zip(entries, parts, strict=True)):
        marks += lying(slices.of(part.values), i, entry.name, "J", column.factor)
    names = [f"{entry.name}\n{text.quantity(total, 'J')}" for entry, total in zip(entries, totals, strict=True)]
    x = plot.scale(f"energy per inference [{column.unit}]", [total / column.factor for total in totals], zero=True)
    panel = Panel(x, plot.categories(names, downwards=True), marks, 50 * len(names))
    return Figure("energy", f"Energy of one inference by component.{slices.remark}", [panel], slices.legend)


def _scatter(entries: Sequence[Entry], measure: Measure) -> Figure | None:
    """Draw accuracy, or what else was measured, against energy."""
    points: list[figures.Point] = []
    for entry in entries:
        accuracy, energy = entry.evaluation.accuracy, entry.evaluation.cost.energy_J
        points.append(figures.Point(entry.name, entry.name, energy, accuracy.mean, accuracy.std or 0.0))
    caption = (
        f"{measure.title} against energy; whiskers are one standard deviation over the programmed chips. The line "
        "joins the runs that no other beats in both."
    )
    return figures.scatter("scatter", points, caption, measure=measure)


def _layers(entries: Sequence[Entry]) -> Figure:
    """Draw row tiles and energy of each layer, one colour a run."""
    names, own = by_layer(entries)
    every = [[layers_of_one.get(name) for name in names] for layers_of_one in own]
    tiles = [[None if layer is None else float(layer.row_tiles) for layer in run] for run in every]
    energies = [[None if layer is None else layer.energy_J for layer in run] for run in every]
    column = text.column([value for run in energies for value in run], "J")
    panels: list[Panel] = []
    legend: list[Key] = []
    for title, runs_, unit, factor in (
        ("row tiles", tiles, "", 1.0),
        (f"energy [{column.unit}]", energies, "J", column.factor),
    ):
        series = [
            bars.Series(
                entry.name,
                f"--part-{j % PARTS}",
                [None if value is None else value / factor for value in values],
                [text.quantity(value, unit) if unit else text.number(value) for value in values],
            )
            for j, (entry, values) in enumerate(zip(entries, runs_, strict=True))
        ]
        y = plot.scale(title, [value for one in series for value in one.values], zero=True)
        panels.append(bars.grouped(names, series, y, 130))
        legend = bars.legend(series)
    caption = "Row tiles and energy of each layer, one colour a run; a layer that a run does not have has no bar."
    return Figure("layers", caption, plot.stacked(panels), legend)


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
