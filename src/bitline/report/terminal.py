"""An evaluation in the terminal: what fits its width, and a word on what did not."""

import textwrap
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from bitline.evaluation.record import Cost, Evaluation, Variant
from bitline.report import chip_sheets, sentences, tables, text
from bitline.report.measure import ACCURACY, Measure
from bitline.report.quantities import quantities
from bitline.report.tables import Head, Sheet

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

_Item = TypeVar("_Item")
_PROSE = 24  # characters below which a column of words is dropped rather than broken


def print_evaluation(evaluation: Evaluation, console: "Console | None" = None) -> None:
    """Print the headline, the loss by cause, the cost with its span, and each layer.

    Args:
        evaluation: to print.
        console: where to print; standard output where absent.
    """
    console = console or _console()
    _say(console, evaluation.title, "bold")
    _say(console, sentences.images(evaluation.data), "dim")
    _say(console, chip_sheets.changed_words(evaluation.chip), "dim")
    _say(console, _headline(evaluation))
    for sentence in sentences.ranges(evaluation):
        _say(console, sentence, "dim")
    for sentence in sentences.simulation(evaluation):
        _say(console, sentence, "dim" if evaluation.simulation.holds else "bold")
    for sheet in (
        tables.causes(evaluation),
        _cost(evaluation.cost),
        tables.parts(evaluation.cost),
        tables.layers(evaluation),
        tables.digital(evaluation),
    ):
        _show(console, sheet)
    for note in evaluation.cost.notes:
        _say(console, f"cost: {note}", "dim")
    for missing in sentences.absent(evaluation):
        _say(console, f"not in this evaluation: {missing}", "dim")


def print_sweep(variants: Sequence[Variant], console: "Console | None" = None, measure: Measure = ACCURACY) -> None:
    """Print the chips of a sweep; a dot marks those that no other beats in both accuracy and energy.

    Args:
        variants: of one chip.
        console: where to print; standard output where absent.
        measure: what was measured.
    """
    _show(console or _console(), tables.sweep(variants, measure))


def print_sheet(sheet: Sheet, console: "Console | None" = None) -> None:
    """Print any table; one without rows is left out.

    Args:
        sheet: the table.
        console: where to print; standard output where absent.
    """
    _show(console or _console(), sheet)


def turned(sheet: Sheet, console: "Console") -> Sheet:
    """Return a table with a row for each column, where only that fits the terminal.

    Args:
        sheet: with one line for each thing that is compared.
        console: where it will be printed.
    """
    if not sheet.rows or _width(sheet) <= console.width:
        return sheet
    heads = [Head("", numeric=False), *(Head(row[0].text) for row in sheet.rows)]
    names = [f"{head.group}: {head.name}" if head.group else head.name for head in sheet.heads[1:]]
    units = [f" [{head.unit}]" if head.unit else "" for head in sheet.heads[1:]]
    rows = [
        [tables.Cell(name + unit), *(row[i] for row in sheet.rows)]
        for i, (name, unit) in enumerate(zip(names, units, strict=True), start=1)
    ]
    other = Sheet(sheet.caption, heads, rows)
    return other if _width(other) <= console.width else sheet


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False)


def _say(console: "Console", words: str, style: str = "") -> None:
    if words:
        console.print(words, style=style, markup=False, highlight=False)


def _headline(evaluation: Evaluation) -> str:
    accuracy, measure = evaluation.accuracy, Measure(evaluation.metric)
    named = "" if evaluation.metric.is_accuracy else f"{evaluation.metric.name}: "
    stops = [f"{named}float {measure.figure(accuracy.float)}"]
    stops.append(f"ideal integer {measure.figure(accuracy.ideal_integer)}")
    if len(accuracy.chips) == 1:
        stops.append(f"one chip {measure.figure(accuracy.mean)}")
    elif accuracy.chips:
        spread = measure.spread(accuracy.mean, accuracy.std)
        worst = measure.figure(accuracy.worst)
        stops.append(f"{len(accuracy.chips)} chips {spread}{measure.unit}, worst {worst}")
    return " → ".join(stops)


def _cost(cost: Cost) -> Sheet:
    """Each figure beside what other ADC models make of it."""
    heads = [
        Head("cost", numeric=False),
        Head(""),
        Head("across ADC models", numeric=False),
        Head("", numeric=False, rank=1, prose=True),
    ]
    lines = [
        [tables.Cell(q.name), tables.Cell(q.text), tables.Cell(q.span or text.ABSENT), tables.Cell(q.note)]
        for q in quantities(cost)
    ]
    return Sheet("Cost of one inference", heads, lines)


def _show(console: "Console", sheet: Sheet) -> None:
    """Print a table without the columns that would not fit, and name them."""
    if not sheet.rows:
        return
    dropped: list[Head] = []
    while _width(sheet) > console.width and any(head.rank for head in sheet.heads):
        last = max(range(len(sheet.heads)), key=lambda i: (sheet.heads[i].rank, i))
        dropped.insert(0, sheet.heads[last])
        sheet = _without(sheet, last)
    console.print()
    console.print(_table(sheet))
    groups = {head.group for head in sheet.heads}
    names = [
        head.name if head.group in groups else head.group for head in dropped
    ]  # a group that went whole is told once
    if any(names):
        _say(console, f"no room for: {', '.join(filter(None, dict.fromkeys(names)))}", "dim")


def _width(sheet: Sheet) -> int:
    """Columns that a table takes when only prose is broken."""
    from rich.cells import cell_len

    width = 0
    for i, head in enumerate(sheet.heads):
        widest = _widest(sheet, i)
        width += max([min(widest, _PROSE) if head.prose else widest, *map(cell_len, _lines(sheet, i))]) + 2
    return width - 2


def _widest(sheet: Sheet, column: int) -> int:
    from rich.cells import cell_len

    return max(cell_len(row[column].text) for row in [*sheet.rows, sheet.total or sheet.rows[0]])


def _lines(sheet: Sheet, column: int) -> list[str]:
    """Break a header that is wider than its column, and put its unit below."""
    head = sheet.heads[column]
    name = textwrap.wrap(head.name, max(_widest(sheet, column), 7), break_long_words=False)
    return [*name, *([f"[{head.unit}]"] if head.unit else [])]


def _without(sheet: Sheet, column: int) -> Sheet:
    total = None if sheet.total is None else _cut(sheet.total, column)
    return replace(sheet, heads=_cut(sheet.heads, column), rows=[_cut(row, column) for row in sheet.rows], total=total)


def _cut(row: Sequence[_Item], column: int) -> list[_Item]:
    return [item for i, item in enumerate(row) if i != column]


def _table(sheet: Sheet) -> "Table":
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(sheet.caption),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE,
        pad_edge=False,
        show_edge=False,
        padding=(0, 1, 0, 0),
        show_footer=sheet.total is not None,
        footer_style="bold",
    )
    for i, head in enumerate(sheet.heads):
        footer = Text(sheet.total[i].text if sheet.total else "")
        table.add_column(
            Text("\n".join(_lines(sheet, i))),
            footer,
            justify="right" if head.numeric else "left",
            overflow="fold",
            no_wrap=i > 0 and not head.prose,
            header_style="bold",
        )
    for row in sheet.rows:
        table.add_row(*(Text(cell.text) for cell in row))
    return table
