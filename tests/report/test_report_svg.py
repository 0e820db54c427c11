"""Figures stand where their numbers say, and their words neither overlap nor leave the picture."""

import math
import re
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from bitline.report import bars, cost_figures, figures, labels, plot, study_figures, svg
from bitline.report.plot import Axis, Bar, Dot, Figure, Panel, Whisker
from bitline.report.ticks import ticks
from evaluation_samples import deep, evaluation, record, sweep
from study_samples import study

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Words:
    text: str
    left: float
    right: float
    bottom: float

    def over(self, other: "Words") -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        return across > 0 and abs(self.bottom - other.bottom) < 10


def parsed(figure: Figure, kind: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.draw(figure, kind).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" '))


def words(drawing: ElementTree.Element) -> list[Words]:
    """What lies level, at 6.6 px a letter: the average of a wide font at 12 px."""
    found: list[Words] = []
    for each in drawing.iter(f"{SVG}text"):
        if "transform" not in each.attrib:
            wide, x = 6.6 * len(each.text or ""), float(each.attrib["x"])
            left = x - {"middle": wide / 2, "end": wide}.get(each.attrib.get("text-anchor", ""), 0.0)
            found.append(Words(each.text or "", left, left + wide, float(each.attrib["y"])))
    return found


def crowded() -> Figure | None:
    """Six chips in three pairs that all but meet, as a sweep of ADC bits and range policies gives."""
    points = [
        figures.Point("", f"bits {bits}, granularity {kind}", 1e-9 * (420 + 70 * i), 95 + 0.4 * j + i, 0.4)
        for i, bits in enumerate((4, 5, 6))
        for j, kind in enumerate(("layer", "slice_digit"))
    ]
    return figures.scatter("crowded", points, "crowded")


def every_figure() -> dict[str, Figure | None]:
    small, long = record(), record(evaluation(deep(100)))
    return {
        "loss": figures.loss(small),
        "chips": figures.chips(small),
        "sweep": figures.sweep(sweep()),
        "crowded": crowded(),
        "error": figures.layer_error(long),
        "parts": cost_figures.parts(small.cost),
        "layers": cost_figures.layer_cost(long),
        "grid": study_figures.grid(study()),
        "sqnr": study_figures.sqnr(study()),
        "training": study_figures.training(study()),
        "energy": study_figures.energy(study()),
    }


@pytest.mark.parametrize("kind", svg.WIDTHS)
@pytest.mark.parametrize("name", every_figure())
def test_no_words_overlap_or_leave_the_picture(name: str, kind: str):
    figure = every_figure()[name]
    assert figure is not None
    drawing = parsed(figure, kind)
    _, _, wide, tall = map(float, drawing.attrib["viewBox"].split())
    every = words(drawing)
    assert every
    assert [one for one in every if not (one.left >= -1 and one.right <= wide + 1 and one.bottom <= tall)] == []
    assert [(a.text, b.text) for a, b in combinations(every, 2) if a.over(b)] == []


@pytest.mark.parametrize("kind", svg.WIDTHS)
def test_every_chip_of_a_crowded_sweep_keeps_its_label(kind: str):
    figure = crowded()
    assert figure is not None
    shown = [each.text or "" for each in parsed(figure, kind).iter(f"{SVG}text") if each.get("class") == "label"]
    assert len(shown) == 6


def test_a_label_keeps_clear_of_points_and_whiskers():
    marks = [Dot(5, 5, "--ink", label="here"), Dot(5.4, 5, "--ink"), Whisker(5, 2, 5, 8)]
    drawing = parsed(Figure("one", "", [Panel(Axis("", 0, 10), Axis("", 0, 10), marks, 200)]), "wide")
    (label,) = (one for one in words(drawing) if one.text == "here")
    circles = [(float(c.attrib["cx"]), float(c.attrib["cy"])) for c in drawing.iter(f"{SVG}circle")]
    for x, y in circles:
        assert not (label.left - 4 < x < label.right + 4 and label.bottom - 12 < y < label.bottom + 3)
    assert not label.left < circles[0][0] < label.right, "the whisker goes straight through the point"


def rectangles(drawing: ElementTree.Element) -> list[tuple[float, ...]]:
    return [tuple(float(r.attrib[key]) for key in ("x", "y", "width", "height")) for r in drawing.iter(f"{SVG}rect")]


@pytest.mark.parametrize("kind", svg.WIDTHS)
def test_bars_are_in_proportion_to_their_values(kind: str):
    marks = [Bar(0, 10, 0, 1, "--ink"), Bar(10, 40, 1, 2, "--ink"), Bar(40, 100, 2, 4, "--ink")]
    found = rectangles(parsed(Figure("b", "", [Panel(Axis("", 0, 100), Axis("", 0, 4), marks, 200)]), kind))
    unit = sum(r[2] for r in found) / 100
    assert [r[2] for r in found] == pytest.approx([10 * unit, 30 * unit, 60 * unit], abs=0.11)
    assert [r[3] for r in found] == pytest.approx([50, 50, 100], abs=0.11)
    assert found[1][0] == pytest.approx(found[0][0] + found[0][2], abs=0.11)
    assert found[0][1] == pytest.approx(found[1][1] + 50, abs=0.11), "y grows upwards"


def test_a_logarithmic_axis_is_one():
    axis = Axis("", 1e-4, 1.0, log=True)
    assert [svg.share(axis, value) for value in (1e-4, 1e-3, 1e-2, 1.0)] == pytest.approx([0, 0.25, 0.5, 1])
    assert ticks(axis, 400, 50) == [(1e-4, "10⁻⁴"), (1e-3, "0.001"), (0.01, "0.01"), (0.1, "0.1"), (1.0, "1")]
    assert [name for _, name in ticks(Axis("", 190, 660, log=True), 300, 50)] == ["200", "300", "500"], "no 10²"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (61.2, 99.4), (-3, 0.02), (1e-9, 4e-9), (0, 123456)])
@pytest.mark.parametrize("length", [80, 300, 900])
def test_ticks_are_round_evenly_apart_and_within(low: float, high: float, length: float):
    values = [value for value, _ in ticks(Axis("", low, high), length, 50)]
    assert 1 <= len(values) <= max(2, length // 50) + 1
    assert low - 1e-12 <= values[0] <= values[-1] <= high + 1e-12
    steps = {float(f"{b - a:.6g}") for a, b in pairwise(values)}
    assert len(steps) <= 1
    for step in steps:
        assert round(step / 10 ** math.floor(math.log10(step) + 1e-9)) in (1, 2, 5)


def test_an_axis_holds_what_it_is_made_for():
    for values in ([3.0], [0.0], [1, 5, 9], [-2.0, 4.0]):
        axis = plot.scale("", values)
        assert axis.low < min(values) <= max(values) < axis.high
    assert plot.scale("", [2.0, 8.0], zero=True).low == 0


def test_a_step_line_goes_sideways_first():
    assert plot.step([(0, 1), (2, 5), (3, 6)]) == [(0, 1), (2, 1), (2, 5), (3, 5), (3, 6)]
    assert plot.step([(1, 1)]) == [(1, 1)]


def test_the_texts_of_bars_stand_at_their_foot_clear_of_the_whiskers():
    records: list[dict[str, Any]] = [
        {"float": 99.0, "mean": 80.9, "std": 6.0},
        {"float": 99.0, "mean": 86.5, "std": 3.0},
    ]
    figure = bars.accuracies("a", ["one", "two"], records, "")
    assert figure is not None
    drawing = svg.draw(figure, "wide")
    feet = [float(y) for y in re.findall(r'y="([\d.]+)" class="inside"', drawing)]
    whiskers = [float(y) for y in re.findall(r'<path d="M[\d.]+ ([\d.]+)m-4 0h8m-4 0L', drawing)]
    assert len(feet) == 4
    assert len(whiskers) == 2
    assert min(feet) - 12 > max(whiskers)


def test_words_are_cut_where_they_do_not_fit():
    assert labels.cut("short", 100, 12) == "short"
    cut = labels.cut("a name that is far too long", 60, 12)
    assert cut.endswith("…")
    assert labels.wide(cut, 12) <= 60
    assert labels.place(5, 5, 50, labels.Box(0, 0, 20, 20), []) is None
