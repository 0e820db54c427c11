"""The page of a study holds its findings, its numbers and its figures."""

import re
from pathlib import Path
from typing import Any

import pytest
from test_report_html import EVIL, Page

from bitline.report import study as report
from bitline.report import study_figures, text
from bitline.report.plot import Bar, Line
from bitline.study import findings
from study_samples import changed, study


def page(record: dict[str, Any]) -> Page:
    record["findings"] = [vars(finding) for finding in findings(record)]
    return Page(report.render(record))


@pytest.fixture(scope="module")
def whole() -> Page:
    return page(study())


def test_every_finding_and_every_number_of_the_study_is_on_the_page(whole: Page):
    record = study()
    expected = [finding.text for finding in findings(record)]
    for layer in record["layers"]:
        expected += [layer["layer"], text.decimal(layer["sqnr_dB"]["adc"], 1), text.decimal(layer["alone"]["adc"])]
    for one in record["grid"]:
        expected += [text.decimal(one["mean"])]
    for one in record["training"]:
        expected += [one["training"], text.spread(one["mean"], one["std"])]
    expected += ["CIFAR-10 test, 1,000 images", "2 programmed chips", "our reconstruction"]
    words = whole.words.replace("\u00a0", " ")
    assert [missing for missing in expected if missing not in words] == []


def test_every_figure_is_drawn_in_colours_for_light_and_dark(whole: Page):
    assert whole.figures == {"tiles", "sqnr", "alone", "grid", "heights", "energy", "training"}
    named = {
        word for _, a in whole.tags for value in a.values() for word in re.findall(r"var\((--[\w-]+)\)", value or "")
    }
    assert all(whole.styles[0].count(f"{name}: ") >= 2 for name in named)


def test_the_map_of_each_range_policy_holds_every_point():
    figure = study_figures.grid(study())
    assert figure is not None
    by_key = {(p["rows"], p["ranges"], p["bits"]): p["mean"] for p in study()["grid"]}
    assert [panel.title for panel in figure.panels] == ["ranges: full", "ranges: slice_digit"]
    for policy, panel in zip(("full", "slice_digit"), figure.panels, strict=True):
        assert (list(panel.x.names), list(panel.y.names)) == (["4", "6"], ["32", "64", "128"])
        cells = {(m.x0 + m.x1, m.y0 + m.y1): m.text for m in panel.marks if isinstance(m, Bar)}
        for i, bits in enumerate((4, 6)):
            for j, rows in enumerate((32, 64, 128)):
                assert cells[2 * i, 2 * j] == f"{by_key[rows, policy, bits]:.1f}"


def test_the_dotted_lines_are_the_prediction():
    figure = study_figures.tiles(study())
    assert figure is not None
    lines = [mark for mark in figure.panels[0].marks if isinstance(mark, Line)]
    assert figure.legend[0].name == "conv1, T^1.00"
    assert [x for x, _ in lines[0].points] == [2, 4, 8, 16]
    assert lines[1].dash
    assert [y for _, y in lines[1].points] == pytest.approx([2e-4, 4e-4, 8e-4, 16e-4])


@pytest.mark.parametrize(
    ("without", "gone"),
    [
        ({"grid": [], "best_heights": []}, "2. Must crossbar height"),
        ({"training": []}, "3. Does training"),
        ({"layers": [], "tiles": []}, "1. Does error grow"),
    ],
)
def test_a_lesson_that_is_missing_leaves_its_section_out(without: dict[str, Any], gone: str):
    shown = page(changed(**without, not_measured=["lesson 9: nobody asked"]))
    assert gone not in shown.words
    assert "lesson 9: nobody asked" in shown.words


def test_an_empty_study_is_still_a_page():
    shown = Page(report.render({}))
    assert "unfinished" in shown.words
    assert not shown.all("table")


def test_ideal_cells_only_and_exact_layers_make_a_page_too():
    record = study()
    for one in [*record["grid"], *record["training"], *(layer["alone"] for layer in record["layers"])]:
        for key in ("mean", "std", "worst"):
            one.pop(key, None)
        one["chips"] = []
    for layer in record["layers"]:
        layer["sqnr_dB"] = {"adc": None}
    for point in record["tiles"]:
        point |= {"power": 0.0, "predicted": 0.0}
    record["seeds"] = []
    shown = page(record)
    assert "no chip programmed" in shown.words
    assert shown.figures == {"alone", "grid", "heights", "energy", "training"}


def test_names_of_layers_cannot_become_markup():
    record = study()
    record["layers"][0]["layer"] = record["tiles"][0]["layer"] = record["model"] = EVIL
    record["training"][0]["name"] = record["training"][0]["trained_for"] = [EVIL]
    record["not_measured"] = [EVIL]
    shown = page(record)
    assert not shown.all("img")
    assert len(shown.scripts) == 1
    assert "<script>alert(1)</script>" in shown.words


def test_the_page_is_written_whole(tmp_path: Path):
    path = report.write(study(), tmp_path / "new" / "study.html")
    assert re.match(r"<!doctype html>", path.read_text(encoding="utf-8").lstrip())
    assert list(path.parent.iterdir()) == [path]
