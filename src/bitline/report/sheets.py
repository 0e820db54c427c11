"""Tables as data: the page and the terminal draw the same ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bitline.report import facts, text
from bitline.report.facts import Evaluation


@dataclass(frozen=True)
class Head:
    """A column's header."""

    name: str
    unit: str = ""
    group: str = ""
    meaning: str = ""
    numeric: bool = True
    rank: int = 0
    """a narrow terminal drops the highest ranks first; 0 always stays"""
    prose: bool = False
    """may run over several lines"""


@dataclass(frozen=True)
class Cell:
    """One entry: what is read, what it sorts by, and the length of its bar (0 to 1)."""

    text: str
    sort: float | str | None = None
    bar: float | None = None


@dataclass(frozen=True)
class Sheet:
    """A table; the last row may be a total."""

    caption: str
    heads: Sequence[Head]
    rows: Sequence[Sequence[Cell]]
    total: Sequence[Cell] | None = None

    @property
    def groups(self) -> list[tuple[str, int]]:
        """Group headers and how many columns each spans; empty where no column has a group."""
        spans: list[tuple[str, int]] = []
        for head in self.heads:
            if spans and spans[-1][0] == head.group:
                spans[-1] = (head.group, spans[-1][1] + 1)
            else:
                spans.append((head.group, 1))
        return spans if any(name for name, _ in spans) else []


@dataclass
class Columns:
    """A sheet being filled one column after the other."""

    records: Sequence[Mapping[str, Any]]
    heads: list[Head]
    cells: list[list[Cell]]
    totals: list[Cell]

    def add(self, head: Head, cells: Sequence[Cell], total: str = "") -> None:
        """Add a column of these cells."""
        self.heads.append(head)
        self.cells.append(list(cells))
        self.totals.append(Cell(total))

    def words(self, head: Head, key: str, total: str = "") -> None:
        """Add the values of a key as words."""
        self.add(head, [Cell(text.plain(r.get(key)), text.plain(r.get(key))) for r in self.records], total)

    def figures(self, head: Head, key: str, write: Callable[[object], str], *, summed: bool = False) -> None:
        """Add the values of a key as figures, unless there are none."""
        values = self.values(key)
        known = [value for value in values if value is not None]
        if not known and not any(record.get(key) is not None for record in self.records):
            return
        cells = [Cell(write(r.get(key)), value) for r, value in zip(self.records, values, strict=True)]
        self.add(head, cells, write(sum(known)) if summed and known else "")

    def ratio(self, head: Head, key: str) -> None:
        """Add the values of a key that have a unit without prefixes, unless there are none."""
        values = self.values(key)
        if any(value is not None for value in values):
            written = text.aligned(values)
            self.add(head, [Cell(one, value) for one, value in zip(written, values, strict=True)])

    def physical(self, head: Head, key: str, unit: str, *, summed: bool = False) -> None:
        """Add SI values under one prefix, with a bar each, unless there are none."""
        values = self.values(key)
        known = [value for value in values if value is not None]
        if not known:
            return
        column = text.column([*values, sum(known)] if summed else values, unit)
        largest = max(map(abs, known)) or 1.0
        cells = [
            Cell(written, value, None if value is None else abs(value) / largest)
            for written, value in zip(column.texts, values, strict=False)
        ]
        self.add(_with_unit(head, column.unit), cells, column.texts[-1] if summed else "")

    def values(self, key: str) -> list[float | None]:
        """Return the values of a key; None for what is no number."""
        return [text.finite(record.get(key)) for record in self.records]

    def sheet(self, caption: str, *, total: bool = False) -> Sheet:
        """Return the filled table."""
        lines = [list(row) for row in zip(*self.cells, strict=True)]
        return Sheet(caption, self.heads, lines, self.totals if total and len(lines) > 1 else None)


def _with_unit(head: Head, unit: str) -> Head:
    return replace(head, unit=unit)


def columns(records: Sequence[Mapping[str, Any]]) -> Columns:
    """Begin a table of these records."""
    return Columns(records, [], [], [])


def layers(evaluation: Evaluation) -> Sheet:
    """Every layer on crossbars: shape, crossbars, conversions, errors, cost."""
    records = facts.rows(evaluation, "layers")
    table = columns(records)
    matrix, crossbars, adc, noise, cost = "matrix", "crossbars", "ADC", "noise / signal power", "for one input"
    table.words(Head("layer", numeric=False), "name", "total")
    table.words(Head("kind", numeric=False, rank=6), "kind")
    shapes = [
        Cell(f"{text.number(r.get('rows'))} × {text.number(r.get('cols'))}", _product(r.get("rows"), r.get("cols")))
        for r in records
    ]
    table.add(Head("rows × cols", group=matrix, rank=2, meaning="weights of one group: inputs × outputs"), shapes)
    rank = 4 if any((text.finite(r.get("groups")) or 1) > 1 for r in records) else 10
    table.figures(Head("groups", group=matrix, rank=rank), "groups", text.number)
    table.figures(
        Head("row tiles", group=crossbars, rank=3, meaning="partial sums per output"), "row_tiles", text.number
    )
    table.figures(Head("crossbars", group=crossbars, rank=4), "crossbars", text.number, summed=True)
    _utilization(table, Head("used", "%", crossbars, "cells that hold a weight", rank=5))
    table.figures(Head("conversions", group=adc, rank=3, meaning="per input"), "conversions", text.number, summed=True)
    meaning = "conversions outside the ADC range"
    table.figures(Head("clipped", "%", adc, meaning, rank=1), "adc_clip_fraction", _percent)
    meaning = "partial sums: signal over conversion error"
    if any("partial_sum_sqnr_dB" in record for record in records):
        cells = [Cell(sqnr(record), text.finite(record.get("partial_sum_sqnr_dB"))) for record in records]
        table.add(Head("SQNR", "dB", adc, meaning, rank=1), cells)
    for key in facts.causes_of_error(evaluation):
        values = [text.finite(facts.part(record, "error_parts").get(key)) for record in records]
        head = Head(text.cause(key), "10⁻³", noise, text.cause_meaning(key), rank=9)
        written = text.aligned([None if value is None else 1e3 * value for value in values], 3)
        table.add(head, [Cell(one, value) for one, value in zip(written, values, strict=True)])
    table.physical(Head("energy", group=cost, rank=1), "energy_J", "J", summed=True)
    table.physical(Head("area", group=cost, rank=7), "area_m2", "m2", summed=True)
    table.physical(Head("latency", group=cost, rank=8), "latency_s", "s", summed=False)
    return table.sheet("Layers on crossbars", total=True)


def sqnr(layer: Mapping[str, Any]) -> str:
    """Write the partial-sum SQNR, dB; it has no value where every conversion is exact."""
    found = layer.get("partial_sum_sqnr_dB")
    return "exact" if "partial_sum_sqnr_dB" in layer and found is None else text.decimal(found, 1)


def _utilization(table: Columns, head: Head) -> None:
    values = table.values("utilization")
    if any(value is not None for value in values):
        table.add(head, [Cell(_percent(value, 1), value, value) for value in values])


def _order(value: object) -> float | str:
    known = text.finite(value)
    return text.plain(value) if known is None else known


def _product(rows: object, cols: object) -> float | None:
    a, b = text.finite(rows), text.finite(cols)
    return None if a is None or b is None else a * b


def _percent(fraction: object, places: int = 2) -> str:
    known = text.finite(fraction)
    if known is not None and 0 < known < 0.5 * 10 ** -(places + 2):
        return f"<{10**-places:.{places}f}"
    return text.ABSENT if known is None else text.decimal(100 * known, places)


def causes(evaluation: Evaluation) -> Sheet:
    """Accuracy lost to each cause, in the order applied."""
    heads = [
        Head("cause", numeric=False),
        Head("loss", "points"),
        Head("std over chips", "points", rank=1),
        Head("accuracy after", "%"),
        Head("what it does", numeric=False, rank=2, prose=True),
    ]
    accuracy = facts.accuracy(evaluation)
    lines: list[list[Cell]] = []
    if accuracy.get("float") is not None and facts.rows(evaluation, "causes"):
        start = text.decimal(accuracy["float"])
        lines.append([Cell("float network"), Cell(text.ABSENT), Cell(text.ABSENT), Cell(start), Cell("")])
    for step in facts.steps(evaluation):
        spread = text.decimal(step.std) if step.std else text.ABSENT
        figures = [Cell(text.decimal(step.points)), Cell(spread), Cell(text.decimal(step.after))]
        lines.append([Cell(step.name), *figures, Cell(text.cause_meaning(step.key))])
    return Sheet("Accuracy lost to each cause, in the order applied", heads, lines)


def chips(evaluation: Evaluation) -> Sheet:
    """Accuracy of each programmed chip with its seed."""
    programmed = facts.chips(evaluation)
    seeds = list(evaluation.get("seeds") or [])
    lines = [
        [Cell(text.plain(seeds[i]) if i < len(seeds) else text.ABSENT), Cell(text.decimal(value), value)]
        for i, value in enumerate(programmed)
    ]
    heads = [Head("seed"), Head("accuracy", "%")]
    return Sheet("Accuracy of each programmed chip", heads, lines)


def parts(evaluation: Evaluation) -> Sheet:
    """Energy, latency and area of each component, and their shares."""
    cost = facts.part(evaluation, "cost")
    found = {name: facts.part(cost, f"{name}_parts") for name, _, _ in facts.COST}
    keys = list(dict.fromkeys(key for name in found for key, share in facts.shares(found[name]).items() if share))
    table = columns([{name: found[name].get(key) for name in found} for key in keys])
    table.add(Head("component", numeric=False), [Cell(text.label(key), text.label(key)) for key in keys], "total")
    for name, _, unit in facts.COST:
        if found[name]:
            table.physical(Head(name, rank=1), name, unit, summed=True)
            share = facts.shares(found[name])
            table.add(Head(f"{name} share", "%"), [Cell(_percent(share.get(key), 1), share.get(key)) for key in keys])
    return table.sheet("Energy, latency and area by component", total=True)


def adc_models(evaluation: Evaluation) -> Sheet:
    """The same chip priced with each published ADC model."""
    cost = facts.part(evaluation, "cost")
    models = facts.adc_models(evaluation)
    table = columns(list(models.values()))
    chosen = cost.get("adc_model")
    names = [f"{name} (chosen)" if name == chosen else str(name) for name in models]
    table.add(Head("ADC model", numeric=False), [Cell(name, name) for name in names])
    table.physical(Head("one conversion"), "conversion_J", "J")
    table.physical(Head("energy"), "energy_J", "J")
    table.physical(Head("latency"), "latency_s", "s")
    table.physical(Head("area"), "area_m2", "m2")
    table.ratio(Head("efficiency", "TOPS/W"), "tops_per_watt")
    return table.sheet("The chip under each published ADC model")


def sweep(records: Sequence[Mapping[str, Any]]) -> Sheet:
    """The chips of a sweep; a dot marks those that no other beats in both accuracy and energy."""
    table = columns(records)
    changed = [facts.overrides(record) for record in records]
    said = [", ".join(f"{key}={text.plain(value)}" for key, value in found.items()) for found in changed]
    if any(record.get("label") != words for record, words in zip(records, said, strict=True)):
        table.words(Head("chip", numeric=False), "label")
        rank = 6
    else:  # the keys changed say it all
        rank = 0
    for key in dict.fromkeys(name for found in changed for name in found):
        values = [found.get(key) for found in changed]
        cells = [Cell(text.plain(value), _order(value)) for value in values]
        table.add(Head(key, numeric=all(text.finite(value) is not None for value in values), rank=rank), cells)
    means = table.values("mean")
    cells = [Cell(text.spread(r.get("mean"), r.get("std")), mean) for r, mean in zip(records, means, strict=True)]
    table.add(Head("accuracy", "%"), cells)
    table.figures(Head("worst", "%", rank=4), "worst", text.decimal)
    table.physical(Head("energy"), "energy_J", "J")
    best = set(facts.frontier(records))
    cells = [Cell("●" if i in best else "", float(i in best)) for i in range(len(records))]
    table.add(Head("best", numeric=False, meaning="no other chip beats it in both accuracy and energy"), cells)
    table.physical(Head("latency", rank=3), "latency_s", "s")
    table.physical(Head("area", rank=2), "area_m2", "m2")
    table.ratio(Head("efficiency", "TOPS/W", rank=1), "tops_per_watt")
    known = {"label", "mean", "std", "worst", "energy_J", "latency_s", "area_m2", "tops_per_watt", *facts.OVERRIDES}
    for key in dict.fromkeys(key for record in records for key in record if key not in known):
        values = [record.get(key) for record in records]
        if any(isinstance(value, list | tuple) for value in values):  # accuracy of each chip and the like: how many
            values = [len(value) if isinstance(value, list | tuple) else value for value in values]
        cells = [Cell(text.by_suffix(key, value), _order(value)) for value in values]
        numeric = all(isinstance(value, int | float) for value in values)
        table.add(Head(text.stem(key), numeric=numeric, rank=7), cells)
    return table.sheet("Chips of the sweep")


def digital(evaluation: Evaluation) -> Sheet:
    """Operations that stay digital, and why."""
    table = columns(facts.rows(evaluation, "digital"))
    for key in ("name", "op", "why"):
        table.words(Head({"name": "layer", "op": "operation"}.get(key, key), numeric=False, prose=key == "why"), key)
    return table.sheet("Operations that stay digital")
