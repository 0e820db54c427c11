"""What a study of partial sums measured, drawn."""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitline.report import bars, plot, sweeps, text
from bitline.report.plot import Figure, Json

Study = Mapping[str, Any]

_COLORS = 14  # of parts in the style sheet
_NAMED = 12  # more layers than this are named on hovering only
_CAUSES = (
    ("adc", "ADC alone", "--adc"),
    ("programming", "programming error alone", "--programming"),
    ("both", "both", "--ink"),
)


def tiles(study: Study) -> Figure | None:
    """Draw error power over row tiles at one LSB, measured and predicted, one colour a layer."""
    points = study.get("tiles") or []
    data: list[Json] = []
    names = list(dict.fromkeys(str(point["layer"]) for point in points))
    exponents = study.get("exponents") or {}
    for i, name in enumerate(names):
        curve = _by_row_tiles([point for point in points if point["layer"] == name])
        if len(curve) < 2 or not all(power > 0 for _, power, _ in curve):
            continue
        color = f"--part-{i % _COLORS}"
        x = [count for count, _, _ in curve]
        exponent = f", T^{exponents[name]:.2f}" if name in exponents else ""
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plot.safe(f"{name}{exponent}"),
                "x": x,
                "y": [power for _, power, _ in curve],
                "marker": {"size": 8, "color": color},
                "line": {"width": 1.6, "color": color},
                "hovertemplate": f"%{{x}} row tiles: %{{y:.3g}}<extra>{plot.safe(name)}</extra>",
            }
        )
        dotted = {"color": color, "width": 1, "dash": "dot"}
        data.append(plot.line(x, [expected for _, _, expected in curve], line=dotted, showlegend=False))
    if not data:
        return None
    legend = len(data) <= 2 * _NAMED
    layout = plot.layout(
        420,
        showlegend=legend,
        xaxis=_logarithmic("row tiles T", [point["row_tiles"] for point in points]),
        yaxis=plot.axis("error power / signal power", type="log", dtick=1, exponentformat="power"),
    )
    caption = (
        "One layer, one LSB, rows cut into more and more tiles: error power of the layer's output over its own power, "
        "with ideal cells and exact inputs. Dotted: independent errors of LSB²/12 for each conversion."
    )
    return Figure("tiles", caption, data, layout)


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
    names = [plot.safe(layer["layer"]) for layer in layers]
    data: list[Json] = []
    for key, name, color in _CAUSES:
        values = [text.finite(layer["sqnr_dB"].get(key)) for layer in layers]
        if not any(value is not None for value in values):
            continue
        with_names = key == "adc" and len(layers) <= _NAMED
        data.append(
            {
                "type": "scatter",
                "mode": "markers+text" if with_names else "markers",
                "name": name,
                "x": [layer["row_tiles"] for layer in layers],
                "y": values,
                "customdata": names,
                **(
                    {"text": names, "textposition": "middle right", "textfont": {"size": 11, "color": "--muted"}}
                    if with_names
                    else {}
                ),
                "cliponaxis": False,
                "marker": {"size": 9, "color": color, "line": {"color": "--paper", "width": 1}},
                "hovertemplate": f"%{{customdata}}, %{{x}} row tiles: %{{y:.1f}} dB<extra>{name}</extra>",
            }
        )
    if not data:
        return None
    tiles_ = [layer["row_tiles"] for layer in layers]
    room = 0.14 * max(0.3, math.log10(max(tiles_) / min(tiles_)))  # for the name of the rightmost layer
    layout = plot.layout(
        380,
        showlegend=True,
        xaxis=_logarithmic("row tiles on the chip", tiles_, room=room),
        yaxis=plot.axis("SQNR [dB]"),
    )
    caption = (
        "Each layer's output on the chip with exact inputs: power of the exact product over that of the error. "
        "Programming error alone is read by an ADC that rounds to whole levels; mean over the chips."
    )
    return Figure("sqnr", caption, data, layout)


def alone(study: Study) -> Figure | None:
    """Draw the points that the network loses when one layer alone is on the chip."""
    layers = study.get("layers") or []
    whole = next((point for point in study.get("training") or [] if point["training"] == "unaware"), None)
    if not layers or whole is None:
        return None
    names = [plot.safe(layer["layer"]) for layer in layers]
    exact = whole["ideal_integer"]
    data: list[Json] = []
    for name, color, key in (("ideal cells", "--adc", "adc"), ("programmed cells", "--programming", "mean")):
        values = [layer["alone"].get(key) for layer in layers]
        if any(value is not None for value in values):
            spread = [layer["alone"].get("std") or 0.0 for layer in layers]
            data.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": names,
                    "y": [None if value is None else exact - value for value in values],
                    "customdata": [text.decimal(value) for value in values],
                    "marker": {"color": color},
                    **({"error_y": bars.whiskers(spread)} if key == "mean" else {}),
                    "hovertemplate": f"%{{x}}: %{{y:.2f}} points, %{{customdata}} % left<extra>{name}</extra>",
                }
            )
    layout = plot.layout(
        320,
        showlegend=True,
        barmode="group",
        bargap=0.3,
        xaxis=plot.layer_axis(names),
        yaxis=plot.axis("points lost", zeroline=True, zerolinecolor="--line"),
    )
    caption = (
        f"Points lost from the {text.decimal(exact)} % of exact integers with this layer alone on the chip; whiskers "
        "are one standard deviation over the programmed chips."
    )
    return Figure("alone", caption, data, layout)


def grid(study: Study) -> Figure | None:
    """Draw accuracy over crossbar height and ADC bits, one map a range policy."""
    points = study.get("grid") or []
    maps = {
        policy: {(p["bits"], p["rows"]): _reached(p) for p in points if p["ranges"] == policy}
        for policy in dict.fromkeys(str(point["ranges"]) for point in points)
    }
    if not maps:
        return None
    bits, rows = (sorted({point[key] for point in points}) for key in ("bits", "rows"))
    values = [value for cells in maps.values() for value in cells.values()]
    titles = {policy: f"ranges: {policy}" for policy in maps}
    caption = (
        "Accuracy [%] over ADC bits and crossbar height, all rows driven at once"
        + (", mean of the programmed chips" if any("mean" in point for point in points) else ", ideal cells")
        + ". Full: from zero to the largest possible sum; the others are calibrated, with one range for each layer, "
        "slice, slice and input digit, or column."
    )
    panels = _panels({titles[policy]: cells for policy, cells in maps.items()}, bits, rows, min(values), max(values))
    return Figure("grid", caption, panels.data, panels.layout)


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
    values = [value for cells in maps.values() for value in cells.values()]
    panels = _panels(maps, bits, policies, min(values), max(values), places=0, y_title="ranges")
    caption = (
        "Best crossbar height [rows] for each ADC: of best accuracy, and of least energy within one point of that."
    )
    return Figure("heights", caption, panels.data, panels.layout)


def _panels(
    maps: Mapping[str, Mapping[tuple[Any, Any], float]],
    x: Sequence[Any],
    y: Sequence[Any],
    low: float,
    high: float,
    *,
    places: int = 1,
    y_title: str = "rows",
) -> Figure:
    """Draw maps side by side, at most three in a line, on one scale of colours."""
    across = min(3, len(maps))
    lines = -(-len(maps) // across)
    gap = 0.075
    width, height = (1 - gap * (across - 1)) / across, (1 - 0.2 * (lines - 1)) / lines
    data: list[Json] = []
    axes: Json = {}
    titles: list[Json] = []
    for i, (title, cells) in enumerate(maps.items()):
        suffix = str(i + 1) if i else ""
        left, top = (i % across) * (width + gap), 1 - (i // across) * (height + 0.2)
        values = [[cells.get((a, b)) for a in x] for b in y]
        labels = [["" if value is None else f"{value:.{places}f}" for value in row] for row in values]
        data.append(
            {
                "type": "heatmap",
                "x": [str(a) for a in x],
                "y": [plot.safe(b) for b in y],
                "z": values,
                "text": labels,
                "texttemplate": "%{text}",
                "textfont": {"size": 11},
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
                "zmin": low,
                "zmax": high if high > low else low + 1,
                "xgap": 1,
                "ygap": 1,
                "colorscale": [[0, "--map-low"], [0.5, "--map-middle"], [1, "--map-high"]],
                "showscale": False,
                "hovertemplate": f"%{{x}} bits, {y_title} %{{y}}: %{{text}}<extra>{plot.safe(title)}</extra>",
            }
        )
        bottom = i + across >= len(maps)
        axes[f"xaxis{suffix}"] = plot.axis(
            "ADC bits" if bottom else "",
            type="category",
            domain=[left, min(1.0, left + width)],
            anchor=f"y{suffix}",
            showgrid=False,
            fixedrange=True,
        )
        axes[f"yaxis{suffix}"] = plot.axis(
            y_title if i % across == 0 else "",
            type="category",
            domain=[max(0.0, top - height), top],
            anchor=f"x{suffix}",
            showgrid=False,
            fixedrange=True,
            showticklabels=i % across == 0,
        )
        titles.append(
            {
                "text": f"<b>{plot.safe(title)}</b>",
                "x": left,
                "y": top,
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": 12, "color": "--ink"},
            }
        )
    return Figure("", "", data, plot.layout(60 + lines * (70 + 34 * len(y)), annotations=titles, **axes))


def energy(study: Study) -> Figure | None:
    """Draw accuracy against energy of every chip of the grid, one colour a range policy."""
    points = [{**point, "mean": _reached(point)} for point in study.get("grid") or []]
    if len(points) < 2:
        return None
    column = text.column([point["energy_J"] for point in points], "J")
    best = sweeps.frontier([(point["energy_J"], point["mean"]) for point in points])
    data: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines",
            "x": [points[i]["energy_J"] / column.factor for i in best],
            "y": [points[i]["mean"] for i in best],
            "hoverinfo": "skip",
            "showlegend": False,
            "line": {"color": "--accent", "width": 1.4, "shape": "hv"},
        }
    ]
    for i, policy in enumerate(dict.fromkeys(str(point["ranges"]) for point in points)):
        at = [point for point in points if point["ranges"] == policy]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": plot.safe(policy),
                "cliponaxis": False,
                "x": [point["energy_J"] / column.factor for point in at],
                "y": [point["mean"] for point in at],
                "customdata": [f"{point['rows']} rows, {point['bits']} bits" for point in at],
                "error_y": {**bars.whiskers([point.get("std") or 0.0 for point in at]), "color": "--muted"},
                "marker": {"size": 9, "color": f"--part-{i}", "line": {"color": "--paper", "width": 1}},
                "hovertemplate": f"%{{customdata}}<br>%{{y:.2f}} %, %{{x:.4g}} {column.unit}"
                f"<extra>{plot.safe(policy)}</extra>",
            }
        )
    layout = plot.layout(
        400, showlegend=True, xaxis=plot.axis(f"energy per input [{column.unit}]"), yaxis=plot.axis("accuracy [%]")
    )
    caption = (
        "Accuracy against energy of every chip of the grid, one colour a range policy; whiskers are one standard "
        "deviation over the programmed chips. The line joins those that no other chip beats in both."
    )
    return Figure("energy", caption, data, layout)


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


def _logarithmic(title: str, values: Sequence[float], *, room: float = 0.06, **options: Any) -> Json:
    """Return a logarithmic axis around these values, with `room` decades to the right of them."""
    low, high = math.log10(min(values)), math.log10(max(values))
    ticks = [step * 10.0**power for power in range(math.floor(low), math.ceil(high) + 1) for step in (1, 2, 5)]
    return plot.axis(title, type="log", tickvals=ticks, range=[low - 0.06, high + max(0.06, room)], **options)
