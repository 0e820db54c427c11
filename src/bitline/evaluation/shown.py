"""How results show: a few lines of text; pages and tables are made by `bitline.report`, which stands above.

Results offer ``to_html`` where they are made, so that what draws them is looked up by name when it is asked for.
They are of types that stand above this file.
"""

import math
from importlib import import_module
from pathlib import Path
from typing import Any

from bitline.units import pretty

WIDTH = 80
"""of a screen, characters"""
_ROWS = 20
"""of a sweep that are printed"""


def page(result: Any, path: Path) -> Path:
    """Write the page of a result."""
    return _report().page(result, path)


def fragment(result: Any) -> str:
    """Return a result as HTML within another page, as notebooks show it."""
    return _report().fragment(result)


def _report() -> Any:
    return import_module("bitline.report.notebook")


def number(value: float, unit: str) -> str:
    """Write a figure of a metric without its unit: two places of percents, else four digits."""
    return f"{value:.2f}" if unit == "%" else f"{value:.4g}"


def spread(mean: float, std: float) -> list[str]:
    """Write a mean and the deviation around it: two digits of the deviation, and the mean to the same place."""
    places = 1 - math.floor(math.log10(std))
    if places > 5 - math.floor(math.log10(abs(mean) or std)) or max(abs(mean), std) >= 1e6:  # far apart, or long
        return [number(mean, ""), f"{std:.2g}"]
    return [f"{round(value, places):.{max(0, places)}f}" for value in (mean, std)]


def _spread(mean: float | None, std: float | None, unit: str) -> str:
    """Write a mean, and what varies around it where anything does."""
    if not std:
        return number(mean or 0, unit)
    parts = [number(mean or 0, unit), number(std, unit)] if unit == "%" else spread(mean or 0, std)
    return " ± ".join(parts)


def evaluation(result: Any) -> str:
    """Write an evaluation in a few lines."""
    own, unit, cost = result.accuracy, result.metric.unit, result.cost
    lines = [result.title, f"{result.data.name} {result.data.split}".rstrip() + f", {result.data.count:,} samples"]
    exact = f"float {number(own.float, unit)}, ideal integers {number(own.ideal_integer, unit)}"
    lines.append(f"{result.metric.label}: {exact}")
    if own.mean is not None:
        many = len(own.chips)
        worst = f", worst {number(own.worst or 0, unit)}" if many > 1 else ""
        lines.append(f"{many} programmed chip{'s' if many > 1 else ''}: {_spread(own.mean, own.std, unit)}{worst}")
    lost = ", ".join(f"{loss.cause.replace('_', ' ')} {loss.points:.3g}" for loss in result.causes)
    lines.append(f"lost to: {lost}")
    lines.append(
        f"an inference: {pretty(cost.energy_J, 'J')}, {pretty(cost.latency_s, 's')}; {pretty(cost.area_m2, 'm2')}, "
        f"{cost.crossbars:,} crossbars, {len(result.digital)} operations digital"
    )
    if result.calibration is not None:
        lines.append(f"ranges from {result.calibration}")
    return "\n".join(map(short, lines))


def words(result: Any) -> str:
    """Write a sweep as a table; a dot marks the points that no other beats in both figure and energy."""
    best, rows, unit = result.best, result.variants[:_ROWS], result.metric.unit
    table = [["", *result.vary, result.metric.label, "energy"]]
    for variant in rows:
        values = [setting.partition("=")[2] for setting in variant.overrides]
        figure = _spread(variant.mean, variant.std if len(variant.chips) > 1 else None, unit)
        mark = "●" if variant in best else ""
        table.append([mark, *values, figure, pretty(variant.energy_J, "J")])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    head = f"{result.model} on {result.chip.name}: {result.data.name}, {result.data.count:,} samples"
    exact = f"float {number(result.float, unit)} {unit}".rstrip() + f"; {len(result.seeds)} chips a point"
    rest = [f"and {len(result.variants) - _ROWS} more"] if len(result.variants) > _ROWS else []
    return "\n".join(map(short, [head, exact, *body, *rest]))


def short(line: str) -> str:
    """Cut a line to the width of a screen."""
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 4].rstrip()} ..."
