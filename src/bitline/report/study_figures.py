"""What a study of partial sums measured, drawn."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitline.report import bars, figures, plot, sweeps, text
from bitline.report.bars import Series
from bitline.report.plot import PARTS, Bar, Dot, Figure, Key, Line, Mark, Panel

Study = Mapping[str, Any]

_NAMED = 12  # more layers than this are named where a pointer rests only
_CAUSES = (
    ("adc", "ADC alone", "--adc"),
    ("programming", "programming error alone", "--programming"),
    ("both", "both", "--ink"),
)


def tiles(study: Study) -> Figure | None:
    """Draw error power over row tiles at one LSB, measured and predicted, one colour a layer."""
    points = study.get("tiles") or []
    marks: list[Mark] = []
    legend: list[Key] = []
    exponents = study.get("exponents") or {}
    for i, name in enumerate(dict.fromkeys(str(point["layer"]) for point in points)):
        curve = _by_row_tiles([point for point in points if point["layer"] == name])
        if len(curve) < 2 or not all(power > 0 for _, power, _ in curve):
            continue
        color = f"--part-{i % PARTS}"
        marks.append(Line([(count, power) for count, power, _ in curve], color, 1.6))
        marks.append(Line([(count, expected) for count, _, expected in curve], color, 1, figures.DOTTED))
        marks += [Dot(count, power, color, f"{name}, {count} row tiles: {power:.3g}") for count, power, _ in curve]
        legend.append(Key(f"{name}, T^{exponents[name]:.2f}" if name in exponents else name, color, "line"))
    if not marks:
        return None
    powers = [value for mark in marks if isinstance(mark, Line) for _, value in mark.points]
    x = plot.scale("row tiles T", [point["row_tiles"] for point in points], log=True)
    panel = Panel(x, plot.scale("error power / signal power", powers, log=True), marks, 320)
    caption = (
        "One layer, one LSB, rows cut into more and more tiles: error power of the layer's output over its own power, "
        "with ideal cells and exact inputs. Dotted: independent errors of LSB²/12 for each conversion."
    )
    return Figure("tiles", caption, [panel], legend if len(legend) <= _NAMED else [])


def _by_row_tiles(points: Sequence[Mapping[str, Any]]) -> list[tuple[int, float, float]]:
    """Row tiles, power measured and power predicted; heights that make as many row tiles are averaged."""
    counts = sorted({int(point["row_tiles"]) for point in points})
    groups = [(count, [point for point in points if point["row_tiles"] == count]) for count in counts]
    return [
        (count, statistics.fmean(p["power"] for p in at), statistics.fmean(p["predicted"] for p in at))
        for count, at in groups
    ]


def sqnr(study: Study) -> Figure | None:
    """Draw the SQNR of each layer's output over its row tiles, by cause."""
    layers = study.get("layers") or []
    marks: list[Mark] = []
    legend: list[Key] = []
    for key, name, color in _CAUSES:
        values = [text.finite(layer["sqnr_dB"].get(key)) for layer in layers]
        if not any(value is not None for value in values):
            continue
        legend.append(Key(name, color, "dot"))
        for layer, value in zip(layers, values, strict=True):
            if value is not None:
                title = f"{layer['layer']}, {layer['row_tiles']} row tiles, {name}: {value:.1f} dB"
                label = str(layer["layer"]) if key == "adc" and len(layers) <= _NAMED else ""
                marks.append(Dot(layer["row_tiles"], value, color, title, label))
    if not marks:
        return None
    x = plot.scale("row tiles on the chip", [layer["row_tiles"] for layer in layers], log=True)
    y = plot.scale("SQNR [dB]", [mark.y for mark in marks if isinstance(mark, Dot)])
    caption = (
        "Each layer's output on the chip with exact inputs: power of the exact product over that of the error. "
        "Programming error alone is read by an ADC that rounds to whole levels; mean over the chips."
    )
    return Figure("sqnr", caption, [Panel(x, y, marks, 300)], legend)


def alone(study: Study) -> Figure | None:
    """Draw the points that the network loses when one layer alone is on the chip."""
    layers = study.get("layers") or []
    whole = next((point for point in study.get("training") or [] if point["training"] == "unaware"), None)
    if not layers or whole is None:
        return None
    exact = whole["ideal_integer"]
    series: list[Series] = []
    for name, color, key in (("ideal cells", "--adc", "adc"), ("programmed cells", "--programming", "mean")):
        values = [layer["alone"].get(key) for layer in layers]
        if any(value is not None for value in values):
            spread = [layer["alone"].get("std") or 0.0 for layer in layers] if key == "mean" else ()
            lost = [None if value is None else exact - value for value in values]
            words = [
                f"{text.decimal(one)} points, {text.decimal(v)} % left" for one, v in zip(lost, values, strict=True)
            ]
            series.append(Series(name, color, lost, words, (), spread))
    reach = [value for one in series for value in one.values if value is not None]
    most = max((spread for one in series for spread in one.spread), default=0.0)
    y = plot.scale("points lost", [min(reach) - most if min(reach) < 0 else 0.0, max(reach) + most], zero=True)
    caption = (
        f"Points lost from the {text.decimal(exact)} % of exact integers with this layer alone on the chip; whiskers "
        "are one standard deviation over the programmed chips."
    )
    panel = bars.grouped([str(layer["layer"]) for layer in layers], series, y, 240)
    return Figure("alone", caption, [panel], bars.legend(series))


def grid(study: Study) -> Figure | None:
    """Draw accuracy over crossbar height and ADC bits, one map a range policy."""
    points = study.get("grid") or []
    maps = {
        f"ranges: {policy}": {(p["bits"], p["rows"]): _reached(p) for p in points if p["ranges"] == policy}
        for policy in dict.fromkeys(str(point["ranges"]) for point in points)
    }
    if not maps:
        return None
    bits, rows = (sorted({point[key] for point in points}) for key in ("bits", "rows"))
    caption = (
        "Accuracy [%] over ADC bits and crossbar height, all rows driven at once"
        + (", mean of the programmed chips" if any("mean" in point for point in points) else ", ideal cells")
        + ". Full: from zero to the largest possible sum; the others are calibrated, with one range for each layer, "
        "slice, slice and input digit, or column."
    )
    return Figure("grid", caption, _maps(maps, bits, rows, "rows", places=1), columns=3)


def heights(study: Study) -> Figure | None:
    """Draw the best crossbar height for each ADC, by accuracy and by energy within a point of it."""
    adcs = study.get("best_heights") or []
    if not adcs:
        return None
    bits = sorted({adc["bits"] for adc in adcs})
    policies = list(dict.fromkeys(str(adc["ranges"]) for adc in adcs))
    maps: dict[str, dict[tuple[Any, Any], float]] = {
        title: {(adc["bits"], adc["ranges"]): float(adc[key]["rows"]) for adc in adcs}
        for title, key in (("most accurate", "most_accurate"), ("least energy within one point", "cheapest"))
    }
    caption = (
        "Best crossbar height [rows] for each ADC: of best accuracy, and of least energy within one point of that."
    )
    return Figure("heights", caption, _maps(maps, bits, policies, "ranges", places=0), columns=2)


def _maps(
    maps: Mapping[str, Mapping[tuple[Any, Any], float]], x: Sequence[Any], y: Sequence[Any], what: str, *, places: int
) -> list[Panel]:
    """Draw maps on one scale of colours: the lighter, the less."""
    values = [value for cells in maps.values() for value in cells.values()]
    low, span = min(values), (max(values) - min(values)) or 1.0
    panels: list[Panel] = []
    for title, cells in maps.items():
        marks: list[Mark] = []
        for i, a in enumerate(x):
            for j, b in enumerate(y):
                if (value := cells.get((a, b))) is not None:
                    words = f"{value:.{places}f}"
                    color = f"--map-{round(4 * (value - low) / span)}"
                    said = f"{title}, {a} bits, {what} {b}: {words}"
                    marks.append(Bar(i - 0.48, i + 0.48, j - 0.46, j + 0.46, color, said, words))
        across = plot.categories([str(a) for a in x], "ADC bits")
        panels.append(Panel(across, plot.categories([str(b) for b in y], what), marks, 32 * len(y), title))
    return panels


def energy(study: Study) -> Figure | None:
    """Draw accuracy against energy of every chip of the grid, one colour a range policy."""
    points = study.get("grid") or []
    if len(points) < 2:
        return None
    policies = list(dict.fromkeys(str(point["ranges"]) for point in points))
    colors = {policy: f"--part-{i}" for i, policy in enumerate(policies)}
    best = set(sweeps.frontier([(point["energy_J"], _reached(point)) for point in points]))
    shown = [
        figures.Point(
            f"{point['ranges']}, {point['rows']} rows, {point['bits']} bits",
            f"{point['rows']} rows, {point['bits']} bits" if i in best else "",
            point["energy_J"],
            _reached(point),
            point.get("std") or 0.0,
            colors[str(point["ranges"])],
        )
        for i, point in enumerate(points)
    ]
    caption = (
        "Accuracy against energy of every chip of the grid, one colour a range policy; whiskers are one standard "
        "deviation over the programmed chips. The line joins those that no other chip beats in both."
    )
    return figures.scatter("energy", shown, caption, [Key(name, color, "dot") for name, color in colors.items()])


def training(study: Study) -> Figure | None:
    """Draw the accuracy of each way to train, from the float network to the programmed chips."""
    points = study.get("training") or []
    if not points:
        return None
    caption = (
        "The same network trained without the chip, with its integers, and with its partial sums, on the same chips; "
        "whiskers are one standard deviation over the programmed chips."
    )
    return bars.accuracies("training", [point["training"] for point in points], points, caption)


def _reached(point: Mapping[str, Any]) -> float:
    return float(point.get("mean", point["adc"]))
