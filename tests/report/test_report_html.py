import json
import math
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_samples import deep, evaluation, sweep

from bitline import chip, units
from bitline.report import facts, html, text, write

EVIL = '</script><script>alert(1)</script><img src="http://evil.example/x.png">&amp;\u2028'


class Page(HTMLParser):
    """Tags with their attributes, the text a reader sees, and the scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag in {"script", "style"}:
            {"script": self.scripts, "style": self.styles}[tag].append("")

    def handle_data(self, data: str) -> None:
        match self.cdata_elem:
            case "script":
                self.scripts[-1] += data
            case "style":
                self.styles[-1] += data
            case _:
                self._words.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self._words).split())

    @property
    def figures(self) -> dict[str, Any]:
        return next(json.loads(script) for script in self.scripts if script.startswith("{"))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(found: dict[str, Any], **options: Any) -> Page:
    return Page(html.render(found, **options))


@pytest.fixture(scope="module")
def vgg8() -> Page:
    return page(evaluation(), sweep=sweep())


def strings(item: Any) -> Iterator[str]:
    if isinstance(item, dict):
        for value in item.values():
            yield from strings(value)
    elif isinstance(item, list):
        for value in item:
            yield from strings(value)
    elif isinstance(item, str):
        yield item


def with_total(values: list[float], unit: str) -> tuple[str, ...]:
    return text.column([*values, sum(values)], unit).texts


def test_the_page_is_one_file_that_loads_nothing_from_elsewhere(vgg8):
    for tag, attributes in vgg8.tags:
        for name in {"src", "href", "srcset", "data", "action", "poster"} & set(attributes):
            value = attributes[name] or ""
            assert value.startswith(("#", "data:", "https://doi.org/")), f"<{tag} {name}={value!r}>"
    assert all("@import" not in style and "url(" not in style for style in vgg8.styles)
    policy = next(a["content"] for a in vgg8.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert sum("plotly.js v" in script for script in vgg8.scripts) == 1


def test_the_headline_tells_accuracy_and_every_cost_beside_its_span(vgg8):
    for words in (
        "91.20 %",
        "91.00 %",
        "88.30 ± 0.24 %",
        "worst 87.81 %",
        "38.85 µJ 38.85 to 112.7 µJ across 4 ADC models; chosen: table",
        "69.87 mm² 62.88 to 181.7 mm²",
        "25.72 TOPS/W 8.869 to 25.72 TOPS/W",
        "2.367 ms",
        "157,288,960",
    ):
        assert words in vgg8.words, words


def test_every_number_of_the_evaluation_is_on_the_page(vgg8):
    found = evaluation()
    expected = [text.decimal(value) for value in found["accuracy"]["chips"]]
    expected += [text.decimal(cause["points"]) for cause in found["causes"]]
    expected += [text.decimal(cause["accuracy_after"]) for cause in found["causes"]]
    for layer in found["layers"]:
        shape = f"{text.number(layer['rows'])} × {text.number(layer['cols'])}"
        counts = " ".join(text.number(layer[key]) for key in ("groups", "row_tiles", "crossbars"))
        expected += [f"{layer['name']} {layer['kind']} {shape} {counts} {text.decimal(100 * layer['utilization'], 1)}"]
        expected += [text.number(layer["conversions"]), text.decimal(100 * layer["adc_clip_fraction"])]
        expected += [text.decimal(layer["partial_sum_sqnr_dB"], 1)]
        sums = layer["partial_sums"]
        expected += [f"range {text.number(sums['range_low'])} to {text.number(sums['range_high'])}, envelope of 32"]
        expected += [f"LSB {text.number(sums['lsb'])}"]
    for key, unit in (("energy_J", "J"), ("area_m2", "m2")):
        expected += with_total([layer[key] for layer in found["layers"]], unit)
    expected += text.column([layer["latency_s"] for layer in found["layers"]], "s").texts
    for part, unit in (("energy_parts", "J"), ("area_parts", "m2"), ("latency_parts", "s")):
        expected += with_total([value for value in found["cost"][part].values() if value], unit)
    for row in sweep():
        expected += [row["label"], f"{text.decimal(row['mean'])} ± {text.decimal(row['std'])}"]
    expected += ["4f2c1e9d7b60a5c3e8f1", "cifar10 test, 500 images", "212.4 s", "g_max 10 µS", "programming.sigma 0.05"]
    expected += [*found["chip"]["deviations"], *(item["why"] for item in found["digital"])]
    missing = [words for words in expected if words not in vgg8.words]
    assert not missing


def test_a_hundred_layers_stay_under_six_megabytes_and_fold_their_histograms(tmp_path):
    path = write(evaluation(deep(100)), tmp_path / "new folder" / "deep.html")
    assert path.stat().st_size < 6_000_000
    found = Page(path.read_text(encoding="utf-8"))
    assert len(found.all("svg")) == 100
    assert "76 more layers" in found.words


def test_names_cannot_become_markup_anywhere():
    found = evaluation()
    found["model"] = found["commit"] = found["layers"][0]["name"] = found["layers"][1]["kind"] = EVIL
    found["chip"] |= {"name": EVIL, "about": EVIL, "deviations": [EVIL], "doi": f"10.1109/{EVIL}"}
    found["seeds"] = [EVIL] * 20
    found["digital"] = [{"name": EVIL, "op": EVIL, "why": EVIL}]
    found["causes"].append({"cause": EVIL, "points": 0.0, "std": 0.1})
    found["cost"]["energy_parts"][EVIL] = 1e-6
    found["cost"]["notes"] = [EVIL]
    found["layers"][2]["error_parts"][EVIL] = 1e-3
    rows = [{"label": EVIL, "chip overrides": {EVIL: EVIL}, "mean": 1.0, "energy_J": 1.0, EVIL: EVIL}]
    clean, soiled = page(evaluation(), sweep=sweep()), page(found, title=EVIL, sweep=rows)
    assert len(soiled.scripts) == len(clean.scripts)
    assert not soiled.all("img")
    assert '</script><script>alert(1)</script><img src="http://evil.example/x.png">&amp;' in soiled.words
    drawn = [words for words in strings(soiled.figures) if "alert" in words]
    assert drawn
    assert all("<script" not in words and "<img" not in words for words in drawn), "plotly reads HTML in its texts"


def test_json_in_a_script_can_neither_end_it_nor_hold_what_json_lacks():
    content = {"name": EVIL, "values": [math.nan, math.inf, 1.5]}
    written = html.script_json(content)
    assert not set(written) & set("<>&\u2028\u2029")
    assert json.loads(written) == {"name": EVIL, "values": [None, None, 1.5]}


def test_only_a_sound_doi_becomes_a_link():
    found = evaluation()
    assert {"href": "https://doi.org/10.1109/IEDM19573.2019.8993491"} in page(found).all("a")
    for doi in ("javascript:alert(1)", "https://doi.org/10.1/x", "10.x/y", "10.1109/", None):
        found["chip"]["doi"] = doi
        assert all((a["href"] or "").startswith("#") for a in page(found).all("a"))


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        (["cost"], "cost"),
        (["causes"], "loss by cause"),
        (["layers"], "layers on crossbars"),
        (["layers.partial_sums"], "partial sums of every layer"),
        (["cost.adc_range"], "cost under other ADC models"),
        (["chip", "commit", "seeds", "timing", "digital", "data", "model", "bitline"], None),
        (["layers.error_parts", "layers.energy_J", "layers.energy_parts", "layers.latency_s"], None),
        (["cost.energy_parts", "cost.area_parts"], None),
        (["accuracy.mean", "accuracy.std", "accuracy.worst", "accuracy.float"], None),
    ],
)
def test_a_missing_key_leaves_its_section_out_and_is_told(removed, said):
    found = evaluation()
    for key in removed:
        section, _, name = key.partition(".")
        if not name:
            del found[section]
        for record in found[section] if section == "layers" and name else [found.get(section)] if name else []:
            del record[name]
    words = page(found).words
    if said is not None:
        assert f"Not in this evaluation: {said}" in words


def test_an_ideal_only_evaluation_shows_no_chips():
    found = evaluation()
    found["accuracy"] = {"float": 91.2, "ideal_integer": 91.0, "chips": []}
    found["causes"] = found["causes"][:1]
    shown = page(found)
    assert "chips" not in shown.figures
    assert "no chip was programmed" in shown.words
    assert "an ideal chip in integers 91.00 %" in shown.words


def test_an_empty_evaluation_is_still_a_page():
    assert "network on unnamed chip" in page({}).words
    assert not page({}).all("svg")


def test_numbers_that_json_lacks_neither_break_the_figures_nor_hide():
    found = evaluation()
    found["layers"][0] |= {"partial_sum_sqnr_dB": None, "energy_J": math.inf}
    found["layers"][1]["partial_sum_sqnr_dB"] = math.nan
    found["layers"][1]["error_parts"]["adc"] = math.nan
    shown = page(found)
    assert shown.figures
    assert "every conversion exact" in shown.words


def test_the_figures_are_valid_plotly():
    from plotly import graph_objects

    def colored(item: Any, key: str = "") -> Any:
        if isinstance(item, dict):
            return {name: colored(value, name) for name, value in item.items()}
        if isinstance(item, list):
            return [colored(value, key) for value in item]
        return "#123456" if isinstance(item, str) and item.startswith("--") and "color" in key else item

    css = (Path(html.__file__).parent / "templates" / "report.css").read_text(encoding="utf-8")
    figures = page(evaluation(), sweep=sweep()).figures
    assert set(figures) == {"loss", "layer-error", "chips", "parts", "layer-cost", "sweep"}
    for figure in figures.values():
        named = {words for words in strings(figure) if words.startswith("--")}
        assert all(css.count(f"{name}: ") >= 2 for name in named), "a colour for light, and one for dark"
        graph_objects.Figure(colored(figure))  # refuses an unknown property or value


def test_the_waterfall_ends_where_the_chips_are():
    found = evaluation()
    found["cause_seeds"] = [0, 1, 2]
    found["causes"] = found["causes"][:2]
    ticks = page(found).figures["loss"]["layout"]["yaxis"]["ticktext"]
    assert ticks[3].startswith("<b>other chips</b><br>−0.76")
    assert ticks[-1] == "<b>20 chips, mean</b><br>88.30 ± 0.24 %"


def test_long_labels_of_a_sweep_are_cut_to_what_sets_the_chips_apart():
    rows = [
        {"label": f"crossbar.rows={r}, crossbar.active_rows={r}, adc.bits={b}", "mean": b, "energy_J": b * 1e-6}
        | {"overrides": [f"crossbar.rows={r}", f"crossbar.active_rows={r}", f"adc.bits={b}", "adc.policy=full"]}
        for r, b in ((128, 4), (64, 5))
    ]
    points = page({}, sweep=rows).figures["sweep"]["data"][1]
    assert points["text"] == ["rows 128, bits 4", "rows 64, bits 5"]
    assert points["customdata"] == [row["label"] for row in rows]


def test_every_chip_key_that_a_file_gives_with_a_unit_is_written_with_one():
    seen = set[str]()
    for path in (Path(chip.__file__).parent / "presets").glob("*.toml"):
        keys = dict(facts.settings(tomllib.loads(path.read_text(encoding="utf-8"))))
        for key, value in keys.items():
            if isinstance(value, str) and re.fullmatch(r"[\d.]+ [A-Za-z]+", value):
                assert units.parse(value, str(html.chip_unit(key, keys))) >= 0
                seen.add(key)
    assert {"node", "cell.g_max", "timing.read"} <= seen


def test_every_table_and_figure_says_what_it_is(vgg8):
    assert all(a.get("aria-label") for a in vgg8.all("svg"))
    assert all(a.get("aria-label") for tag, a in vgg8.tags if a.get("role") == "img")
    assert len(vgg8.all("caption")) == len(vgg8.all("table"))
    assert len(vgg8.all("figcaption")) == len(vgg8.all("figure"))
    assert all("scope" in a for a in vgg8.all("th"))


def test_a_figure_cannot_be_sent_away():
    script = (Path(html.__file__).parent / "templates" / "report.js").read_text(encoding="utf-8")
    assert 'plotlyServerURL: ""' in script
    assert re.search(r"modeBarButtons: \[\[[^\]]*\]\]", script), "an explicit list, without plotly's share button"


def test_a_failed_write_leaves_the_old_page_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        write({}, path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_evaluation_gives_the_same_page():
    assert html.render(evaluation(), sweep=sweep()) == html.render(evaluation(), sweep=sweep())


def test_importing_the_report_loads_neither_plotly_nor_jinja_nor_rich():
    probe = "import sys, bitline.report; print([m for m in ('plotly', 'jinja2', 'rich', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
