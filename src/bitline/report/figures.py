"""What the network loses and why, chip by chip and layer by layer; and accuracy against energy."""

from collections.abc import Sequence
from dataclasses import dataclass

from bitline.evaluation.record import CAUSES, Evaluation, Variant
from bitline.report import plot, sweeps, text
from bitline.report.measure import ACCURACY, Measure
from bitline.report.plot import Axis, Bar, Dot, Figure, Key, Line, Mark, Panel, Whisker

DOTTED = "1 3"
_NAMED = 8  # more points than this are named on the frontier only


def _color(cause: str) -> str:
    return f"--{cause.replace('_', '-')}" if cause in CAUSES else "--other"


def loss(evaluation: Evaluation) -> Figure | None:
    """Draw accuracy falling from the float network to the chips, one bar a cause."""
    steps = evaluation.steps
    if not steps:
        return None
    measure, accuracy, count = Measure(evaluation.metric), evaluation.accuracy, len(evaluation.accuracy.chips)
    start, end = steps[0].before, steps[-1].after
    last = f"{count} chips, mean" if count > 1 else "chip"
    spread = measure.spread(accuracy.mean, accuracy.std) if count else measure.number(end)
    names = [f"float\n{measure.figure(start)}"]
    for step in steps:
        change = -step.points if evaluation.metric.better == "higher" else step.points
        points = measure.number(change, sign=True) + (f" ± {measure.number(step.std)}" if step.std else "")
        names.append(f"{text.cause(step.cause)}\n{points}")
    names.append(f"{last}\n{spread}{measure.unit}")
    levels = [start, *(step.after for step in steps)]
    marks: list[Mark] = [Line([(level, i), (level, i + 1)], "--muted", 1, DOTTED) for i, level in enumerate(levels)]
    for i, step in enumerate(steps, start=1):
        title = f"{text.cause(step.cause)}: {measure.figure(step.before)} → {measure.figure(step.after)}"
        low, high = sorted((step.before, step.after))
        marks.append(Bar(low, high, i - 0.28, i + 0.28, _color(step.cause), title, hatched=step.points < 0))
        if step.std:
            marks.append(Whisker(step.after - step.std, i, step.after + step.std, i))
    for value, i in ((start, 0), (end, len(steps) + 1)):
        marks.append(Dot(value, i, "--ink", measure.figure(value), shape="diamond"))
    uncertain = any(step.std for step in steps)
    ends = [
        value for step in steps for each in (step.before, step.after) for value in (each - step.std, each + step.std)
    ]
    panel = Panel(
        plot.scale(measure.metric.label, ends), plot.categories(names, downwards=True), marks, 46 * len(names)
    )
    caption = (
        "From the float network to the programmed chips: each bar is what one cause takes, applied in this order"
        + (f", whiskers are its standard deviation over {len(evaluation.cause_seeds)} chips" if uncertain else "")
        + (". Hatched: a gain" if any(step.points < 0 for step in steps) else "")
        + ". The axis does not start at zero."
    )
    return Figure("loss", caption, [panel])


def chips(evaluation: Evaluation) -> Figure | None:
    """Draw one dot a chip, stacked where they meet, beside float, ideal and mean."""
    measure, accuracy = Measure(evaluation.metric), evaluation.accuracy
    values = accuracy.chips
    if not values:
        return None
    every = [*values, accuracy.float, accuracy.ideal_integer]
    x = plot.scale(measure.metric.label, every)
    heights = _apart(values, 0.014 * (x.high - x.low))
    top = max(map(abs, heights)) + 1.5
    mean, std = accuracy.mean or 0.0, accuracy.std or 0.0
    marks: list[Mark] = [Bar(mean - std, mean + std, -top, top, "--accent", faint=True)] if std else []
    legend: list[Key] = []
    for value, name, color, dash in (
        (accuracy.float, "float", "--ink", "6 4"),
        (accuracy.ideal_integer, "ideal integer", "--quantization", "8 3 2 3"),
        (accuracy.mean, "mean of the chips", "--accent", ""),
    ):
        if value is not None:
            marks.append(Line([(value, -top), (value, top)], color, 1.8, dash))
            legend.append(Key(f"{name} {measure.figure(value)}", color, "line", dash))
    for seed, value, height in zip(evaluation.seeds, values, heights, strict=True):
        marks.append(Dot(value, height, "--accent", f"seed {seed}: {measure.figure(value)}"))
    panel = Panel(x, Axis("", -top, top, hidden=True), marks, 110)
    caption = (
        f"{measure.title} of each programmed chip, one dot a chip; the band is one standard deviation around the mean."
    )
    return Figure("chips", caption, [panel], [*legend, Key("one chip", "--accent", "dot")])


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
    marks: list[Mark] = []
    for cause in evaluation.active_causes:
        points = [(float(i), layer.error_parts.get(cause)) for i, layer in enumerate(layers)]
        known = [(i, value) for i, value in points if value]
        marks.append(Line(known, _color(cause), 1))
        for i, value in known:
            title = f"{layers[int(i)].name}, {text.cause(cause)}: {text.number(value, 3)}"
            marks.append(Dot(i, value, _color(cause), title, size=3.5))
    if not marks:
        return None
    y = plot.scale("noise / signal power", [mark.y for mark in marks if isinstance(mark, Dot)], log=True)
    panel = Panel(plot.categories([layer.name for layer in layers]), y, marks, 240)
    legend = [Key(text.cause(cause), _color(cause), "dot") for cause in evaluation.active_causes]
    caption = (
        "Where in the network the error enters: noise power over signal power at each layer's output, by cause. "
        "A cause without a point adds no error there."
    )
    return Figure("layer-error", caption, [panel], legend)


@dataclass(frozen=True)
class Point:
    """Something that was measured, by its energy and accuracy.

    Args:
        label: what it is.
        short: the same in few words.
        energy_J: of one image; None is drawn nowhere.
        mean: accuracy, %; None is drawn nowhere.
        std: of the accuracy over the chips, points.
        color: of the point; by default that of the frontier, or of what others beat.
    """

    label: str
    short: str
    energy_J: float | None  # noqa: N815
    mean: float | None
    std: float
    color: str = ""


def sweep(variants: Sequence[Variant], measure: Measure = ACCURACY) -> Figure | None:
    """Draw accuracy, or what else was measured, against energy of the chips of a sweep."""
    short = sweeps.short_labels(variants)
    points = [Point(v.label, name, v.energy_J, v.mean, v.std) for v, name in zip(variants, short, strict=True)]
    caption = (
        f"{measure.title} against energy of the chips tried; whiskers are one standard deviation over the programmed "
        "chips. The line joins those that no other chip beats in both."
    )
    return scatter("sweep", points, caption, measure=measure)


def scatter(
    key: str, points: Sequence[Point], caption: str, legend: Sequence[Key] = (), measure: Measure = ACCURACY
) -> Figure | None:
    """Draw accuracy against energy, with the frontier of points that no other beats in both.

    Args:
        key: of the figure.
        points: to draw.
        caption: of the figure.
        legend: of it.
        measure: what is drawn against energy.
    """
    places = [(point.energy_J, point.mean) for point in points]
    complete = [i for i, (energy, mean) in enumerate(places) if energy is not None and mean is not None]
    if not complete:
        return None
    column = text.column([places[i][0] or 0.0 for i in complete], "J")
    at = {i: ((places[i][0] or 0.0) / column.factor, places[i][1] or 0.0) for i in complete}
    best = sweeps.frontier(places, measure.metric.better)
    marks: list[Mark] = [Line(plot.step([at[i] for i in best]), "--accent", 1.4)]
    for i in complete:
        (x, y), point = at[i], points[i]
        if point.std:
            marks.append(Whisker(x, y - point.std, x, y + point.std, "--muted"))
        title = f"{point.label}: {measure.spread(y, point.std)}{measure.unit}, {text.quantity(point.energy_J, 'J')}"
        label = point.short if len(complete) <= _NAMED or i in best else ""
        color = point.color or ("--accent" if i in best else "--muted")
        marks.append(Dot(x, y, color, title, label))
    energies = [x for x, _ in at.values()]
    wide = min(energies) > 0 and max(energies) > 10 * min(energies)
    reach = [value for i in complete for value in (at[i][1] - points[i].std, at[i][1] + points[i].std)]
    title = f"energy per input [{column.unit}]"
    panel = Panel(plot.scale(title, energies, log=wide), plot.scale(measure.metric.label, reach), marks, 320)
    return Figure(key, caption, [panel], legend)
