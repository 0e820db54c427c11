import re
from typing import Any

import pytest

from bitline.report import floorplan
from evaluation_samples import evaluation, record


def plan(**of_first: Any) -> floorplan.Plan:
    found = evaluation()
    found["layers"][0] |= of_first
    made = floorplan.plan(record(found))
    assert made is not None
    return made


def test_each_layer_has_as_many_squares_as_crossbars():
    made = plan()
    assert made.each == 1
    assert [row.name for row in made.rows] == [layer["name"] for layer in evaluation()["layers"]]
    for row, layer in zip(made.rows, evaluation()["layers"], strict=True):
        for kind, _, _, frames, _, _ in row.drawings:
            assert frames.count("M") == layer["crossbars"], kind


def test_squares_are_filled_as_far_as_the_layer_uses_its_cells():
    _, _, _, frames, filling, _ = plan(crossbars=2, utilization=0.25).rows[0].drawings[0]
    size = float(re.findall(r"h([\d.]+)v", frames)[0])
    assert [float(v) for v in re.findall(r"h[\d.]+v([\d.]+)h", filling)] == pytest.approx([size / 4] * 2, abs=0.05)


def test_crossbars_that_were_removed_or_hold_no_layer_are_told_apart():
    row = plan(crossbars=3, crossbars_removed=2).rows[0]
    assert row.drawings[0][3].count("M") == 3
    assert row.drawings[0][5].count("M") == 2
    assert row.words.endswith("2 removed")
    found = evaluation()
    found["cost"]["crossbars_built"] += 5
    made = floorplan.plan(record(found))
    assert made is not None
    assert (made.rows[-1].name, made.rows[-1].words) == ("built, without a layer", "5 crossbars")


def test_many_crossbars_share_a_square_and_the_plan_stays_small():
    made = plan(crossbars=300_000)
    assert made.each > 1
    assert sum(height for row in made.rows for kind, _, height, *_ in row.drawings if kind == "wide") < 800
    assert made.rows[0].words.startswith("300,000 crossbars")


def test_squares_stay_within_their_width():
    for row in plan(crossbars=500).rows:
        for kind, width, height, frames, _, _ in row.drawings:
            assert width <= floorplan.WIDTHS[kind] + 2
            for x, y in re.findall(r"M([\d.]+) ([\d.]+)h", frames):
                assert float(x) < width
                assert float(y) < height


def test_a_network_without_crossbars_has_no_plan():
    found = evaluation()
    for layer in found["layers"]:
        layer |= {"crossbars": 0, "utilization": 0.0}
    found["cost"] |= {"crossbars": 0, "crossbars_built": 0}
    assert floorplan.plan(record(found)) is None
