"""The page of a study holds its findings, its numbers and figures that plotly takes."""

import re
from pathlib import Path
from typing import Any

import pytest
from test_report_html import EVIL, Page, strings

from bitline.report import html, text
from bitline.report import study as report
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


def test_the_figures_are_valid_plotly_with_colours_for_light_and_dark(whole: Page):
    from plotly import graph_objects

    def colored(item: Any, key: str = "") -> Any:
        if isinstance(item, dict):
            return {name: colored(value, name) for name, value in item.items()}
        if isinstance(item, list):
            return [colored(value, key) for value in item]
        return "#123456" if isinstance(item, str) and item.startswith("--") and "color" in key else item

    css = (Path(html.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    assert set(whole.figures) == {"tiles", "sqnr", "alone", "grid", "heights", "energy", "training"}
    for figure in whole.figures.values():
        named = {words for words in strings(figure) if words.startswith("--")}
        assert all(css.count(f"{name}: ") >= 2 for name in named)
        graph_objects.Figure(colored(figure))


def test_the_map_of_each_range_policy_holds_every_point(whole: Page):
    maps = whole.figures["grid"]["data"]
    assert [figure["x"] for figure in maps] == [["4", "6"]] * 2
    assert [figure["y"] for figure in maps] == [["32", "64", "128"]] * 2
    by_key = {(p["rows"], p["ranges"], p["bits"]): p["mean"] for p in study()["grid"]}
    for policy, figure in zip(("full", "slice_digit"), maps, strict=True):
        assert figure["z"] == [[by_key[rows, policy, bits] for bits in (4, 6)] for rows in (32, 64, 128)]


def test_the_dotted_lines_are_the_prediction(whole: Page):
    data = whole.figures["tiles"]["data"]
    assert data[0]["name"] == "conv1, T^1.00"
    assert data[0]["x"] == [2, 4, 8, 16]
    assert data[1]["line"]["dash"] == "dot"
    assert data[1]["y"] == pytest.approx([2e-4, 4e-4, 8e-4, 16e-4])


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
    assert set(shown.figures) == {"alone", "grid", "heights", "energy", "training"}


def test_names_of_layers_cannot_become_markup():
    record = study()
    record["layers"][0]["layer"] = record["tiles"][0]["layer"] = record["model"] = EVIL
    record["training"][0]["name"] = record["training"][0]["trained_for"] = [EVIL]
    record["not_measured"] = [EVIL]
    shown = page(record)
    assert not shown.all("img")
    drawn = [words for words in strings(shown.figures) if "alert" in words]
    assert drawn
    assert all("<script" not in words and "<img" not in words for words in drawn)


def test_the_page_is_written_whole(tmp_path: Path):
    path = report.write(study(), tmp_path / "new" / "study.html")
    assert re.match(r"<!doctype html>", path.read_text(encoding="utf-8").lstrip())
    assert list(path.parent.iterdir()) == [path]
