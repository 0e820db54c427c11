"""How results show: a few lines of text; pages and tables are made by `bitline.report`, which stands above.

Results offer ``to_html`` where they are made, so that what draws them is looked up by name when it is asked for.
They are of types that stand above this file.
"""

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


def figure(value: float, unit: str) -> str:
    """Write a figure of a metric."""
    text = f"{value:.2f}" if unit == "%" else f"{value:.4g}"
    return f"{text} {unit}".rstrip()


def evaluation(result: Any) -> str:
    """Write an evaluation in a few lines."""
    own, unit, cost = result.accuracy, result.metric.unit, result.cost
    lines = [result.title, f"{result.data.name} {result.data.split}".rstrip() + f", {result.data.count:,} samples"]
    spread = f" ± {figure(own.std or 0, '')}" if len(own.chips) > 1 else ""
    on_chips = "" if own.mean is None else f", {len(own.chips)} chips {figure(own.mean, '')}{spread} {unit}".rstrip()
    exact = f"float {figure(own.float, '')}, ideal integers {figure(own.ideal_integer, '')}"
    lines.append(f"{result.metric.name}: {exact}{on_chips}")
    if own.worst is not None and len(own.chips) > 1:
        lines[-1] += f", worst {figure(own.worst, '')}"
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
    best, rows = result.best, result.variants[:_ROWS]
    table = [["", *result.vary, result.metric.label, "energy"]]
    for variant in rows:
        values = [setting.partition("=")[2] for setting in variant.overrides]
        spread = f" ± {figure(variant.std, '')}" if len(variant.chips) > 1 and variant.std else ""
        mark = "●" if variant in best else ""
        table.append([mark, *values, f"{figure(variant.mean, '')}{spread}", pretty(variant.energy_J, "J")])
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    body = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    head = f"{result.model} on {result.chip.name}: {result.data.name}, {result.data.count:,} samples"
    exact = f"float {figure(result.float, result.metric.unit)}; {len(result.seeds)} chips a point"
    rest = [f"and {len(result.variants) - _ROWS} more"] if len(result.variants) > _ROWS else []
    return "\n".join(map(short, [head, exact, *body, *rest]))


def short(line: str) -> str:
    """Cut a line to the width of a screen."""
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 4].rstrip()} ..."
