import base64
import json
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from bitline import chip, units
from bitline.differences import flat
from bitline.errors import ExportError
from bitline.report import chip_sheets, figures, html, text, write
from bitline.report.plot import Dot
from evaluation_samples import deep, evaluation, record, sweep

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
    def figures(self) -> set[str]:
        """Keys of the figures that are drawn."""
        return {str(a["id"]).removeprefix("figure-") for a in self.all("figure") if a.get("id")}

    @property
    def pictures(self) -> list[dict[str, str | None]]:
        """The small pictures of partial sums."""
        return [a for a in self.all("svg") if "class" not in a]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def page(found: dict[str, Any], **options: Any) -> Page:
    return Page(html.render(record(found), **options))


@pytest.fixture(scope="module")
def vgg8() -> Page:
    return page(evaluation(), sweep=sweep())


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
    assert len(vgg8.scripts) == 1
    assert not re.search(r"https?://(?!www\.w3\.org)|fetch\(|XMLHttpRequest|import\(", vgg8.scripts[0])


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
    for variant in sweep():
        expected += [variant.label, f"{text.decimal(variant.mean)} ± {text.decimal(variant.std)}"]
    expected += ["4f2c1e9d7b60a5c3e8f1", "cifar10 test, 500 images", "212.4 s", "g_max 10 µS", "programming.sigma 0.05"]
    expected += [*found["chip"]["deviations"], *(item["why"] for item in found["digital"])]
    missing = [words for words in expected if words not in vgg8.words]
    assert not missing


def test_a_page_is_small():
    assert len(html.render(record(), sweep=sweep())) < 600_000


def test_a_hundred_layers_stay_under_two_megabytes_and_fold_their_histograms(tmp_path):
    path = write(record(evaluation(deep(100))), tmp_path / "new folder" / "deep.html")
    assert path.stat().st_size < 2_000_000
    found = Page(path.read_text(encoding="utf-8"))
    assert len(found.pictures) == 100
    assert "76 more layers" in found.words


def test_names_cannot_become_markup_anywhere():
    found = evaluation()
    found["model"] = found["commit"] = found["layers"][0]["name"] = found["layers"][1]["kind"] = EVIL
    found["chip"] |= {"name": EVIL, "about": EVIL, "deviations": [EVIL], "doi": f"10.1109/{EVIL}"}
    found["digital"] = [{"name": EVIL, "op": EVIL, "why": EVIL}]
    found["cost"]["energy_parts"][EVIL] = 1e-6
    found["cost"]["notes"] = [EVIL]
    found["ranges"] = found["data"]["name"] = EVIL
    found["folded"] = {EVIL: EVIL}
    variants = [sweep()[0].model_copy(update={"label": EVIL, "overrides": (f"{EVIL}={EVIL}",)})]
    clean, soiled = page(evaluation(), sweep=sweep()), page(found, title=EVIL, sweep=variants)
    assert len(soiled.scripts) == len(clean.scripts)
    assert not soiled.all("img")
    assert '</script><script>alert(1)</script><img src="http://evil.example/x.png">&amp;' in soiled.words
    kinds = {tag for tag, _ in soiled.tags}
    assert kinds == {tag for tag, _ in clean.tags} | {"p", "ul", "li", "section", "h2", "table"}


def test_the_page_carries_its_numbers():
    link = next(a for a in page(evaluation()).all("a") if "download" in a)
    head, _, data = str(link["href"]).partition(",")
    assert head == "data:application/json;base64"
    assert json.loads(base64.b64decode(data)) == record().to_json()
    assert link["download"] == "vgg8-width-0.5-on-rram-22nm.json"


def test_only_a_sound_doi_becomes_a_link():
    found = evaluation()
    assert {"href": "https://doi.org/10.1109/IEDM19573.2019.8993491"} in page(found).all("a")
    for doi in ("javascript:alert(1)", "https://doi.org/10.1/x", "10.x/y", "10.1109/", None):
        found["chip"]["doi"] = doi
        assert all((a["href"] or "").startswith(("#", "data:")) for a in page(found).all("a"))


def test_layers_without_sums_are_told_unless_they_are_digital():
    found = evaluation()
    found["layers"][0] |= {"strategy": "digital", "partial_sums": {}}
    assert "Not in this evaluation" not in page(found).words
    found["layers"][1]["partial_sums"] = {}
    assert "Not in this evaluation: partial sums of features.3" in page(found).words
    for layer in found["layers"]:
        layer |= {"strategy": "dense", "partial_sums": {}}
    shown = page(found)
    assert "partial sums of every layer" in shown.words
    assert not shown.pictures


def test_an_ideal_only_evaluation_shows_no_chips():
    found = evaluation()
    found["accuracy"] = {"float": 91.2, "ideal_integer": 91.0, "chips": []}
    found["causes"], found["seeds"], found["cause_seeds"] = found["causes"][:1], [], []
    shown = page(found)
    assert "chips" not in shown.figures
    assert "no chip was programmed" in shown.words
    assert "an ideal chip in integers 91.00 %" in shown.words


def test_a_layer_whose_conversions_are_all_exact_has_no_sqnr():
    found = evaluation()
    found["layers"][0]["partial_sum_sqnr_dB"] = None
    assert "every conversion exact" in page(found).words


def test_every_figure_is_drawn_for_three_widths_in_colours_for_light_and_dark(vgg8):
    assert vgg8.figures == {"loss", "layer-error", "chips", "parts", "layer-cost", "sweep"}
    kinds = [str(a.get("class")) for a in vgg8.all("svg") if str(a.get("class")).startswith("plot")]
    assert sorted(kinds) == sorted(["plot narrow", "plot medium", "plot wide"] * 6)
    css = vgg8.styles[0]
    named = {
        word for _, a in vgg8.tags for value in a.values() for word in re.findall(r"var\((--[\w-]+)\)", value or "")
    }
    assert len(named) > 10
    assert all(css.count(f"{name}: ") >= 2 for name in named), "a colour for light, and one for dark"


def test_the_waterfall_ends_where_the_chips_are():
    found = evaluation()
    found["cause_seeds"] = [0, 1, 2]
    found["causes"] = found["causes"][:2]
    figure = figures.loss(record(found))
    assert figure is not None
    names = figure.panels[0].y.names
    assert names[3].startswith("other chips\n−0.76")
    assert names[-1] == "20 chips, mean\n88.30 ± 0.24 %"


def test_long_labels_of_a_sweep_are_cut_to_what_sets_the_chips_apart():
    keys = [
        (f"crossbar.rows={r}", f"crossbar.active_rows={r}", f"adc.bits={b}", "adc.policy=full")
        for r, b in ((128, 4), (64, 5))
    ]
    variants = [
        variant.model_copy(update={"label": ", ".join(changed[:3]), "overrides": changed})
        for variant, changed in zip(sweep(), keys, strict=False)
    ]
    figure = figures.sweep(variants)
    assert figure is not None
    dots = [mark for mark in figure.panels[0].marks if isinstance(mark, Dot)]
    assert [dot.label for dot in dots] == ["rows 128, bits 4", "rows 64, bits 5"]
    assert [dot.title.partition(": ")[0] for dot in dots] == [variant.label for variant in variants]


def test_a_changed_chip_says_what_was_changed_of_its_preset():
    found = evaluation()
    assert "Changed of the preset" not in page(found).words
    found["chip"] = chip.load("rram-22nm", ["crossbar.rows=64", "cell.g_max=20 uS"]).model_dump(mode="json")
    for name in ("rram-22nm", "mine"):  # a file made from the preset keeps what it says about itself
        found["chip"]["name"] = name
        shown = page(found)
        for words in (
            "3 keys of the chip changed",
            "crossbar.rows 128 64",
            "cell.g_max 10 µS 20 µS",
            f"{name} is made from the preset rram-22nm",
            "The preset rram-22nm: 128 x 128",
        ):
            assert words in shown.words, words
    found["chip"] |= {"name": "mine", "about": "a chip of my own"}
    assert "preset" not in page(found).words


def test_every_chip_key_that_a_file_gives_with_a_unit_is_written_with_one():
    seen = set[str]()
    for path in (Path(chip.__file__).parent / "presets").glob("*.toml"):
        keys = flat(tomllib.loads(path.read_text(encoding="utf-8")))
        for key, value in keys.items():
            if isinstance(value, str) and re.fullmatch(r"[\d.]+ [A-Za-z]+", value):
                assert units.parse(value, str(chip_sheets.chip_unit(key, keys))) >= 0
                seen.add(key)
    assert {"node", "cell.g_max", "timing.read"} <= seen


def test_every_table_and_figure_says_what_it_is(vgg8):
    assert all(a.get("aria-label") for a in vgg8.all("svg"))
    assert all(a.get("aria-label") for tag, a in vgg8.tags if a.get("role") == "img")
    assert len(vgg8.all("caption")) == len(vgg8.all("table"))
    assert len(vgg8.all("figcaption")) == len(vgg8.all("figure"))
    assert all(tag not in ("button", "a") for tag, a in vgg8.tags if a.get("role") == "img")
    assert all("scope" in a for a in vgg8.all("th"))


def test_a_failed_write_leaves_the_old_page_and_no_other_file(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    path.write_text("old")

    def fail(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(ExportError, match="disk full"):
        write(record(), path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_same_evaluation_gives_the_same_page():
    assert html.render(record(), sweep=sweep()) == html.render(record(), sweep=sweep())


def test_importing_the_report_loads_neither_jinja_nor_rich():
    probe = "import sys, bitline.report; print([m for m in ('jinja2', 'rich', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
