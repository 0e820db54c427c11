"""Tables as data: the page and the terminal draw the same ones."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bitline.cost.adc import MEANINGS
from bitline.evaluation.record import Cost, Evaluation, Layer, Variant
from bitline.report import quantities, sweeps, text
from bitline.report.measure import ACCURACY, Measure


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

    heads: list[Head] = field(default_factory=list[Head])
    cells: list[list[Cell]] = field(default_factory=list[list[Cell]])
    totals: list[Cell] = field(default_factory=list[Cell])

    def add(self, head: Head, cells: Sequence[Cell], total: str = "") -> None:
        """Add a column of these cells."""
        self.heads.append(head)
        self.cells.append(list(cells))
        self.totals.append(Cell(total))

    def words(self, head: Head, values: Sequence[object], total: str = "") -> None:
        """Add values as words."""
        self.add(head, [Cell(text.plain(value), text.plain(value)) for value in values], total)

    def figures(
        self, head: Head, values: Sequence[object], write: Callable[[object], str], *, summed: bool = False
    ) -> None:
        """Add values as figures, unless there are none."""
        if all(value is None for value in values):
            return
        numbers = [text.finite(value) for value in values]
        cells = [Cell(write(value), number) for value, number in zip(values, numbers, strict=True)]
        finite = [number for number in numbers if number is not None]
        self.add(head, cells, write(sum(finite)) if summed and finite else "")

    def ratio(self, head: Head, values: Sequence[float | None]) -> None:
        """Add values that have a unit without prefixes, unless there are none."""
        if any(value is not None for value in values):
            self.add(head, [Cell(one, value) for one, value in zip(text.aligned(values), values, strict=True)])

    def physical(self, head: Head, values: Sequence[float | None], unit: str, *, summed: bool = False) -> None:
        """Add SI values under one prefix, with a bar each, unless there are none."""
        numbers = [value for value in values if value is not None]
        if not numbers:
            return
        column = text.column([*values, sum(numbers)] if summed else values, unit)
        largest = max(map(abs, numbers)) or 1.0
        cells = [
            Cell(figure, value, None if value is None else abs(value) / largest)
            for figure, value in zip(column.texts, values, strict=False)
        ]
        self.add(replace(head, unit=column.unit), cells, column.texts[-1] if summed else "")

    def sheet(self, caption: str, *, total: bool = False) -> Sheet:
        """Return the filled table."""
        lines = [list(row) for row in zip(*self.cells, strict=True)]
        return Sheet(caption, self.heads, lines, self.totals if total and len(lines) > 1 else None)


def of(records: Sequence[Mapping[str, Any]], key: str) -> list[Any]:
    """Return the values of a key; None where a record has none."""
    return [record.get(key) for record in records]


def layers(evaluation: Evaluation) -> Sheet:
    """Every layer on crossbars: shape, crossbars, conversions, errors, cost."""
    every, table = evaluation.layers, Columns()
    matrix, crossbars, adc, noise, cost = "matrix", "crossbars", "ADC", "noise / signal power", "for one input"
    table.words(Head("layer", numeric=False), [layer.name for layer in every], "total")
    table.words(Head("kind", numeric=False, rank=6), [layer.kind for layer in every])
    shapes = [
        Cell(f"{text.number(layer.rows)} × {text.number(layer.cols)}", float(layer.rows * layer.cols))
        for layer in every
    ]
    table.add(Head("rows × cols", group=matrix, rank=2, meaning="weights of one group: inputs × outputs"), shapes)
    rank = 4 if any(layer.groups > 1 for layer in every) else 10
    table.figures(Head("groups", group=matrix, rank=rank), [layer.groups for layer in every], text.number)
    head = Head("row tiles", group=crossbars, rank=3, meaning="partial sums per output")
    table.figures(head, [layer.row_tiles for layer in every], text.number)
    head = Head("crossbars", group=crossbars, rank=4)
    table.figures(head, [layer.crossbars for layer in every], text.number, summed=True)
    head = Head("used", "%", crossbars, "cells that hold a weight", rank=5)
    table.add(head, [Cell(_percent(layer.utilization, 1), layer.utilization, layer.utilization) for layer in every])
    head = Head("conversions", group=adc, rank=3, meaning="per input")
    table.figures(head, [layer.conversions for layer in every], text.number, summed=True)
    head = Head("clipped", "%", adc, "conversions outside the ADC range", rank=1)
    table.figures(head, [layer.adc_clip_fraction for layer in every], _percent)
    head = Head("SQNR", "dB", adc, "partial sums: signal over conversion error", rank=1)
    table.add(head, [Cell(sqnr(layer), layer.partial_sum_sqnr_dB) for layer in every])
    for cause in evaluation.active_causes:
        values = [layer.error_parts.get(cause) for layer in every]
        head = Head(text.cause(cause), "10⁻³", noise, text.cause_meaning(cause), rank=9)
        figures = text.aligned([None if value is None else 1e3 * value for value in values], 3)
        table.add(head, [Cell(one, value) for one, value in zip(figures, values, strict=True)])
    table.physical(Head("energy", group=cost, rank=1), [layer.energy_J for layer in every], "J", summed=True)
    table.physical(Head("area", group=cost, rank=7), [layer.area_m2 for layer in every], "m2", summed=True)
    table.physical(Head("latency", group=cost, rank=8), [layer.latency_s for layer in every], "s", summed=False)
    return table.sheet("Layers on crossbars", total=True)


def sqnr(layer: Layer) -> str:
    """Write the partial-sum SQNR, dB; it has no value where every conversion is exact."""
    return "exact" if layer.partial_sum_sqnr_dB is None else text.decimal(layer.partial_sum_sqnr_dB, 1)


def _order(value: object) -> float | str:
    number = text.finite(value)
    return text.plain(value) if number is None else number


def _percent(fraction: object, places: int = 2) -> str:
    number = text.finite(fraction)
    if number is not None and 0 < number < 0.5 * 10 ** -(places + 2):
        return f"<{10**-places:.{places}f}"
    return text.ABSENT if number is None else text.decimal(100 * number, places)


def causes(evaluation: Evaluation) -> Sheet:
    """What is lost to each cause, in the order applied."""
    measure = Measure(evaluation.metric)
    heads = [
        Head("cause", numeric=False),
        Head("loss", measure.points),
        Head("std over chips", measure.points, rank=1),
        Head(f"{measure.metric.name} after", measure.metric.unit),
        Head("what it does", numeric=False, rank=2, prose=True),
    ]
    lines: list[list[Cell]] = []
    if evaluation.causes:
        start = measure.number(evaluation.accuracy.float)
        lines.append([Cell("float network"), Cell(text.ABSENT), Cell(text.ABSENT), Cell(start), Cell("")])
    for step in evaluation.steps:
        spread = measure.number(step.std) if step.std else text.ABSENT
        figures = [Cell(measure.number(step.points)), Cell(spread), Cell(measure.number(step.after))]
        lines.append([Cell(text.cause(step.cause)), *figures, Cell(text.cause_meaning(step.cause))])
    return Sheet(f"{measure.title} lost to each cause, in the order applied", heads, lines)


def chips(evaluation: Evaluation) -> Sheet:
    """Figure of each programmed chip with its seed."""
    measure = Measure(evaluation.metric)
    lines = [
        [Cell(text.plain(seed)), Cell(measure.number(value), value)]
        for seed, value in zip(evaluation.seeds, evaluation.accuracy.chips, strict=True)
    ]
    heads = [Head("seed"), Head(measure.metric.name, measure.metric.unit)]
    return Sheet(f"{measure.title} of each programmed chip", heads, lines)


def parts(cost: Cost) -> Sheet:
    """Energy, latency and area of each component, and their shares."""
    table, every = Columns(), quantities.parts(cost)
    keys = list(dict.fromkeys(key for part in every.values() for key, share in part.shares.items() if share))
    table.add(Head("component", numeric=False), [Cell(text.label(key), text.label(key)) for key in keys], "total")
    for name, part in every.items():
        if not part.values:
            continue
        table.physical(Head(name, rank=1), [part.values.get(key) for key in keys], part.unit, summed=True)
        shares = part.shares
        table.add(Head(f"{name} share", "%"), [Cell(_percent(shares.get(key), 1), shares.get(key)) for key in keys])
    return table.sheet("Energy, latency and area by component", total=True)


def adc_models(cost: Cost) -> Sheet:
    """The same chip priced with each ADC model, and whose ADC that is."""
    table, models = Columns(), list(cost.adc_range.values())
    names = [f"{name} (chosen)" if name == cost.adc_model else name for name in cost.adc_range]
    table.add(Head("ADC model", numeric=False), [Cell(name, name) for name in names])
    meanings = [MEANINGS.get(name, "") for name in cost.adc_range]
    table.add(Head("whose", numeric=False, rank=1), [Cell(meaning, meaning) for meaning in meanings])
    table.physical(Head("one conversion"), [model.conversion_J for model in models], "J")
    table.physical(Head("energy"), [model.energy_J for model in models], "J")
    table.physical(Head("area"), [model.area_m2 for model in models], "m2")
    table.ratio(Head("efficiency", "TOPS/W"), [model.tops_per_watt for model in models])
    return table.sheet("The chip under each published ADC model")


def sweep(variants: Sequence[Variant], measure: Measure = ACCURACY) -> Sheet:
    """The chips of a sweep; a dot marks those that no other beats in both accuracy and energy."""
    table, changes = Columns(), [sweeps.overrides(variant) for variant in variants]
    settings = [", ".join(f"{key}={text.plain(value)}" for key, value in change.items()) for change in changes]
    labels = [variant.label for variant in variants]
    rank = 0  # where these say it all
    if labels != settings:
        table.words(Head("chip", numeric=False), labels)
        rank = 6
    for key in dict.fromkeys(name for change in changes for name in change):
        values = [change.get(key) for change in changes]
        cells = [Cell(text.plain(value), _order(value)) for value in values]
        table.add(Head(key, numeric=all(text.finite(value) is not None for value in values), rank=rank), cells)
    name, unit = measure.metric.name, measure.metric.unit
    table.add(Head(name, unit), [Cell(measure.spread(v.mean, v.std), v.mean) for v in variants])
    table.figures(Head("worst", unit, rank=4), [v.worst for v in variants], measure.number)
    table.physical(Head("energy"), [v.energy_J for v in variants], "J")
    best = set(sweeps.frontier([(v.energy_J, v.mean) for v in variants], measure.metric.better))
    cells = [Cell("●" if i in best else "", float(i in best)) for i in range(len(variants))]
    table.add(Head("best", numeric=False, meaning=f"no other chip beats it in both {name} and energy"), cells)
    table.physical(Head("latency", rank=3), [v.latency_s for v in variants], "s")
    table.physical(Head("area", rank=2), [v.area_m2 for v in variants], "m2")
    table.ratio(Head("efficiency", "TOPS/W", rank=1), [v.tops_per_watt for v in variants])
    for name, counts in (
        ("chips", [len(v.chips) for v in variants]),
        ("crossbars", [v.crossbars for v in variants]),
        ("conversions", [v.conversions for v in variants]),
    ):
        table.add(Head(name, rank=7), [Cell(text.plain(count), float(count)) for count in counts])
    return table.sheet("Chips of the sweep")


def digital(evaluation: Evaluation) -> Sheet:
    """Operations that stay digital, and why."""
    table = Columns()
    table.words(Head("layer", numeric=False), [operation.name for operation in evaluation.digital])
    table.words(Head("operation", numeric=False), [operation.op for operation in evaluation.digital])
    if any(operation.macs for operation in evaluation.digital):
        macs = [operation.macs for operation in evaluation.digital]
        table.add(Head("MACs"), [Cell(text.plain(count), float(count)) for count in macs])
    table.words(Head("why", numeric=False, prose=True), [operation.why for operation in evaluation.digital])
    return table.sheet("Operations that stay digital")
