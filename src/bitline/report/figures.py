"""What the network loses and why, chip by chip and layer by layer; and accuracy against energy."""

from collections.abc import Sequence
from dataclasses import dataclass

from bitline.evaluation.record import CAUSES, Evaluation, Variant
from bitline.report import plot, sweeps, text
from bitline.report.plot import Figure, Json


def _color(cause: str) -> str:
    return f"--{cause.replace('_', '-')}" if cause in CAUSES else "--other"


def loss(evaluation: Evaluation) -> Figure | None:
    """Draw accuracy falling from the float network to the chips, one bar a cause."""
    steps = evaluation.steps
    if not steps:
        return None
    accuracy, count = evaluation.accuracy, len(evaluation.accuracy.chips)
    start, end = steps[0].before, steps[-1].after
    last = f"{count} chips, mean" if count > 1 else "chip"
    spread = text.spread(accuracy.mean, accuracy.std) if count else text.decimal(end)
    ticks = [f"<b>float</b><br>{text.decimal(start)} %"]
    for step in steps:
        points = text.decimal(-step.points, sign=True) + (f" ± {text.decimal(step.std)}" if step.std else "")
        ticks.append(f"<b>{plot.safe(text.cause(step.cause))}</b><br>{points}")
    ticks.append(f"<b>{last}</b><br>{spread} %")
    data: list[Json] = [
        {
            "type": "bar",
            "orientation": "h",
            "y": [i],
            "base": [min(step.before, step.after)],
            "x": [abs(step.points)],
            "width": 0.56,
            "marker": {
                "color": _color(step.cause),
                "pattern": {
                    "shape": "/" if step.points < 0 else "",
                    "fillmode": "overlay",
                    "fgcolor": "--paper",
                    "size": 6,
                },
            },
            "hovertemplate": f"{text.decimal(step.before)} % → {text.decimal(step.after)} %"
            f"<extra>{plot.safe(text.cause(step.cause))}</extra>",
        }
        for i, step in enumerate(steps, start=1)
    ]
    levels, places = [start, *(step.after for step in steps)], list[float | None]()
    lines: list[float | None] = []
    for i, level in enumerate(levels):
        lines += [level, level, None]
        places += [i, i + 1, None]
    data.append(plot.line(lines, places))
    uncertain = [(i, step) for i, step in enumerate(steps, start=1) if step.std]
    errors = {
        "type": "data",
        "array": [step.std for _, step in uncertain],
        "color": "--ink",
        "thickness": 1.4,
        "width": 5,
    }
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [step.after for _, step in uncertain],
            "y": [i for i, _ in uncertain],
            "marker": {"size": 1, "color": "--ink"},
            "error_x": errors,
            "hoverinfo": "skip",
        }
    )
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "x": [start, end],
            "y": [0, len(steps) + 1],
            "marker": {"symbol": "diamond", "size": 12, "color": "--ink"},
            "hovertemplate": "%{x:.2f} %<extra></extra>",
        }
    )
    low = min(min(step.before, step.after) - step.std for step in steps)
    high = max(max(step.before, step.after) + step.std for step in steps)
    margin = 0.06 * (high - low) or 1.0
    layout = plot.layout(
        64 + 48 * len(ticks),
        bargap=0.4,
        barmode="overlay",
        xaxis=plot.axis(title="accuracy [%]", range=[low - margin, high + margin]),
        yaxis=plot.axis(
            tickvals=list(range(len(ticks))),
            ticktext=ticks,
            range=[len(ticks) - 0.5, -0.5],
            showgrid=False,
            fixedrange=True,
        ),
    )
    caption = (
        "From the float network to the programmed chips: each bar is what one cause takes, applied in this order"
        + (f", whiskers are its standard deviation over {len(evaluation.cause_seeds)} chips" if uncertain else "")
        + (". Hatched: a gain" if any(step.points < 0 for step in steps) else "")
        + ". The axis does not start at zero."
    )
    return Figure("loss", caption, data, layout)


def chips(evaluation: Evaluation) -> Figure | None:
    """Draw one dot a chip, stacked where they meet, beside float, ideal and mean."""
    accuracy = evaluation.accuracy
    accuracies = accuracy.chips
    if not accuracies:
        return None
    lines = (accuracy.float, accuracy.ideal_integer)
    low, high = min(*accuracies, *lines), max(*accuracies, *lines)
    span = (high - low) or 1.0
    heights = _apart(accuracies, 0.014 * span)
    top = max(map(abs, heights)) + 1
    data: list[Json] = []
    for value, name, color, dash in (
        (accuracy.float, "float", "--ink", "dash"),
        (accuracy.ideal_integer, "ideal integer", "--quantization", "dashdot"),
        (accuracy.mean, "mean of the chips", "--accent", "solid"),
    ):
        if value is not None:
            line = {"color": color, "width": 1.6, "dash": dash}
            data.append(plot.line([value, value], [-top, top], name=f"{name} {text.decimal(value)} %", line=line))
    data.append(
        {
            "type": "scatter",
            "mode": "markers",
            "name": "one chip",
            "x": list(accuracies),
            "y": heights,
            "customdata": [plot.safe(seed) for seed in evaluation.seeds],
            "marker": {"size": 10, "color": "--accent", "opacity": 0.75, "line": {"color": "--paper", "width": 1}},
            "hovertemplate": "%{x:.2f} %<extra>seed %{customdata}</extra>",
        }
    )
    mean, std = accuracy.mean, accuracy.std
    shapes: list[Json] = []
    if mean is not None and std:
        box = {"type": "rect", "x0": mean - std, "x1": mean + std, "yref": "paper", "y0": 0, "y1": 1}
        shapes.append({**box, "fillcolor": "--accent", "opacity": 0.12, "line": {"width": 0}, "layer": "below"})
    layout = plot.layout(
        210,
        showlegend=True,
        shapes=shapes,
        xaxis=plot.axis("accuracy [%]", range=[low - 0.03 * span, high + 0.03 * span]),
        yaxis={"visible": False, "range": [-top, top], "fixedrange": True},
    )
    caption = "Accuracy of each programmed chip, one dot a chip; the band is one standard deviation around the mean."
    return Figure("chips", caption, data, layout)


def _apart(values: Sequence[float], width: float) -> list[float]:
    """Move dots nearer than `width` up and down in turn, so that none hides another."""
    heights = [0.0] * len(values)
    last: dict[float, float] = {}  # the last dot at each height, going up in value
    for i in sorted(range(len(values)), key=values.__getitem__):
        height = 0.0
        while values[i] - last.get(height, float("-inf")) < width:
            height = -height if height > 0 else 1 - height
        last[height] = values[i]
        heights[i] = height
    return heights


def layer_error(evaluation: Evaluation) -> Figure | None:
    """Draw each layer's relative noise power by cause."""
    layers = evaluation.layers
    names = [plot.safe(layer.name) for layer in layers]
    data: list[Json] = []
    for cause in evaluation.active_causes:
        values = [layer.error_parts.get(cause) for layer in layers]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": plot.safe(text.cause(cause)),
                "x": names,
                "y": [value or None for value in values],
                "marker": {"size": 7, "color": _color(cause)},
                "line": {"width": 1, "color": _color(cause)},
                "hovertemplate": "%{x}: %{y:.3g}<extra>" + plot.safe(text.cause(cause)) + "</extra>",
            }
        )
    if not data:
        return None
    layout = plot.layout(
        340,
        showlegend=True,
        xaxis=plot.layer_axis(names),
        yaxis=plot.axis(
            type="log",
            title="noise / signal power",
            exponentformat="power",
            tickfont={"size": 11},
            dtick=1,
            fixedrange=True,
        ),
    )
    caption = (
        "Where in the network the error enters: noise power over signal power at each layer's output, by cause. "
        "A cause without a point adds no error there."
    )
    return Figure("layer-error", caption, data, layout)


@dataclass(frozen=True)
class Point:
    """Something that was measured, by its energy and accuracy.

    Args:
        label: what it is.
        short: the same in few words.
        energy_J: of one image; None is drawn nowhere.
        mean: accuracy, %; None is drawn nowhere.
        std: of the accuracy over the chips, points.
    """

    label: str
    short: str
    energy_J: float | None  # noqa: N815
    mean: float | None
    std: float


def sweep(variants: Sequence[Variant]) -> Figure | None:
    """Draw accuracy against energy of the chips of a sweep."""
    short = sweeps.short_labels(variants)
    points = [Point(v.label, name, v.energy_J, v.mean, v.std) for v, name in zip(variants, short, strict=True)]
    caption = (
        "Accuracy against energy of the chips tried; whiskers are one standard deviation over the programmed chips. "
        "The line joins those that no other chip beats in both."
    )
    return scatter("sweep", points, caption)


def scatter(key: str, points: Sequence[Point], caption: str) -> Figure | None:
    """Draw accuracy against energy, with the frontier of points that no other beats in both.

    Args:
        key: of the figure.
        points: to draw.
        caption: of the figure.
    """
    places = [(point.energy_J, point.mean) for point in points]
    complete = [i for i, (energy, mean) in enumerate(places) if energy is not None and mean is not None]
    if not complete:
        return None
    energies = [places[i][0] or 0.0 for i in complete]
    column = text.column(energies, "J")
    best = sweeps.frontier(places)

    def place(rows: Sequence[int]) -> Json:
        return {"x": [(places[i][0] or 0.0) / column.factor for i in rows], "y": [places[i][1] for i in rows]}

    labels = set(best) if len(complete) > 6 else set(complete)
    middle = (min(energies) + max(energies)) / 2
    data: list[Json] = [
        {
            "type": "scatter",
            "mode": "lines",
            **place(best),
            "hoverinfo": "skip",
            "line": {"color": "--accent", "width": 1.4, "shape": "hv"},
        },
        {
            "type": "scatter",
            "mode": "markers+text",
            **place(complete),
            "cliponaxis": False,
            "text": [plot.safe(points[i].short) if i in labels else "" for i in complete],
            "textposition": [f"bottom {'left' if energy > middle else 'right'}" for energy in energies],
            "customdata": [plot.safe(points[i].label) for i in complete],
            "error_y": {
                "type": "data",
                "array": [points[i].std for i in complete],
                "color": "--muted",
                "thickness": 1.2,
                "width": 4,
            },
            "marker": {
                "size": 10,
                "color": ["--accent" if i in best else "--muted" for i in complete],
                "line": {"color": "--paper", "width": 1},
            },
            "hovertemplate": f"%{{customdata}}<br>%{{y:.2f}} %, %{{x:.4g}} {column.unit}<extra></extra>",
        },
    ]
    wide = min(energies) > 0 and max(energies) > 10 * min(energies)
    layout = plot.layout(
        380,
        xaxis=plot.axis(title=f"energy per input [{column.unit}]", type="log" if wide else "linear"),
        yaxis=plot.axis(title="accuracy [%]"),
    )
    return Figure(key, caption, data, layout)
