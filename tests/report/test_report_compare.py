"""Runs are compared by equal work, and what keeps them from being compared is named."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from test_report_html import EVIL, Page

from bitline import chip as chips
from bitline.errors import DataError
from bitline.report import compare, runs
from evaluation_samples import VGG8, evaluation, record


def folder(path: Path, after: dict[str, Any], *, before: dict[str, Any] | None = None, recipe: str = "") -> Path:
    """A run directory, as far as a comparison reads it."""
    path.mkdir(parents=True)
    (path / "evaluation.json").write_text(json.dumps(after))
    if before is not None:
        (path / "evaluation_before.json").write_text(json.dumps(before))
    if recipe:
        (path / "recipe.json").write_text(json.dumps({"recipe": recipe, "settings": {}}))
    return path


def cheaper(factor: float, *, points: float = 0.0) -> dict[str, Any]:
    """The sample evaluation at so many times the energy and the operations, and more accurate."""
    found = copy.deepcopy(evaluation())
    found["cost"]["energy_J"] *= factor
    found["cost"]["energy_parts"] = {key: factor * value for key, value in found["cost"]["energy_parts"].items()}
    found["cost"]["conversions"] = round(factor * found["cost"]["conversions"])
    accuracy = found["accuracy"]
    accuracy["chips"] = [value + points for value in accuracy["chips"]]
    for key in ("mean", "worst"):
        accuracy[key] += points
    return found


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    return [
        folder(tmp_path / "plain", evaluation()),
        folder(tmp_path / "group", cheaper(0.25, points=2), before=evaluation(), recipe="group"),
        folder(tmp_path / "separable", cheaper(0.5, points=-3), before=evaluation(), recipe="separable"),
    ]


def test_equal_work_is_the_energy_of_the_first_run_over_that_of_each(three: list[Path]):
    found = compare.comparison(runs.read(three))
    assert [row["run"] for row in found["runs"]] == ["plain", "group", "separable"]
    assert [row["recipe"] for row in found["runs"]] == ["trained", "group", "separable"]
    assert [row["work_efficiency"] for row in found["runs"]] == pytest.approx([1, 4, 2])
    assert [row["tops_per_watt"] for row in found["runs"]] == [25.72] * 3, "as written, per operation performed"
    assert found["differences"] == []
    turned = compare.comparison(runs.read([three[1], three[0]]))
    assert [row["work_efficiency"] for row in turned["runs"]] == pytest.approx([1, 0.25])


def test_row_tiles_are_those_of_the_convolution_that_has_most(three: list[Path]):
    assert compare.comparison(runs.read(three))["runs"][0]["row_tiles"] == 36, "64 of the linear layer do not count"
    assert max(layer["row_tiles"] for layer in evaluation()["layers"]) == 64
    without = record(evaluation(VGG8[-2:]))
    assert runs.figures(without, without)["row_tiles"] is None


def test_each_recipe_is_set_against_the_network_it_began_with(three: list[Path]):
    gains = compare.comparison(runs.read(three))["recipes"]
    assert [gain["run"] for gain in gains] == ["group", "separable"]
    assert [gain["points"] for gain in gains] == pytest.approx([2, -3])
    assert [gain["energy"] for gain in gains] == pytest.approx([0.25, 0.5])
    assert [gain["work_efficiency"] for gain in gains] == pytest.approx([4, 2])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seeds": list(range(1, 21))}, "seeds of the chips: 0 to 19 in plain, separable; 1 to 20 in group"),
        ({"data": {"name": "cifar10", "split": "test", "count": 9}}, "images: 500 in plain, separable; 9 in group"),
        ({"bitline": "0.2.0"}, "bitline: 0.1.0 in plain, separable; 0.2.0 in group"),
    ],
)
def test_what_differs_beside_the_network_is_named(three: list[Path], change: dict[str, Any], words: str):
    (three[1] / "evaluation.json").write_text(json.dumps({**cheaper(0.25), **change}))
    entries = runs.read(three)
    assert runs.differences(entries) == [words]
    shown = Page(compare.render(entries))
    assert "not evaluated under the same conditions" in shown.words
    assert words in shown.words


def test_another_chip_is_told_key_by_key(three: list[Path]):
    other = cheaper(0.25)
    other["chip"]["adc"]["bits"] = 4
    other["chip"]["about"] = "words do not matter"
    (three[1] / "evaluation.json").write_text(json.dumps(other))
    entries = runs.read(three)
    assert runs.differences(entries) == ["chip, adc.bits: 5 in plain, separable; 4 in group"]
    shown = Page(compare.render(entries))
    assert "3 runs compared" in shown.words
    assert "not evaluated under the same conditions" in shown.words
    assert "adc.bits 5 4 5" in shown.words


def test_a_surrogate_beside_exact_chips_and_corrected_biases_are_told_and_another_metric_is_refused(tmp_path: Path):
    other = {**evaluation(), "simulation": {"kind": "surrogate", "images": 64}, "bias_correction": True}
    made = [folder(tmp_path / "a", evaluation()), folder(tmp_path / "b", other)]
    entries = runs.read(made)
    told = ["simulation of accuracies: exact in a; surrogate in b", "biases corrected on each chip: no in a; yes in b"]
    assert runs.conditions(entries) == told
    words = Page(compare.render(entries)).words
    assert "not evaluated under the same conditions" in words
    assert all(line in words for line in told)
    error = {**evaluation(), "metric": {"name": "error", "unit": "%", "better": "lower"}}
    with pytest.raises(DataError, match=r"a was evaluated by accuracy \[%\], c by error \[%\]; these do not compare"):
        runs.read([made[0], folder(tmp_path / "c", error)])


def test_one_network_on_two_chips_is_a_comparison_of_chips_in_their_own_units(tmp_path: Path):
    other = {**cheaper(0.25), "chip": chips.load("isaac-32nm").model_dump(mode="json")}
    entries = runs.read([folder(tmp_path / "a", evaluation()), folder(tmp_path / "b", other)])
    shown = Page(compare.render(entries))
    assert "vgg8 width 0.5 on 2 chips" in shown.words
    assert "on rram-22nm, isaac-32nm" in shown.words
    assert "not evaluated under the same conditions" not in shown.words
    assert "node 22 nm 32 nm" in shown.words
    assert "cell.programming.sigma 0.05 –" in shown.words


def test_keys_that_older_evaluations_lack_have_their_default_values(three: list[Path]):
    both = [chips.load("rram-22nm").model_dump(mode="json") for _ in range(2)]
    del both[1]["mitigation"], both[1]["weights"]["rounding"]
    for path, chip in zip(three, both, strict=False):
        (path / "evaluation.json").write_text(json.dumps({**evaluation(), "chip": chip}))
    assert runs.differences(runs.read(three[:2])) == []


def test_runs_on_other_data_are_refused(three: list[Path]):
    other = {**evaluation(), "data": {"name": "digits", "split": "test", "count": 500}}
    (three[1] / "evaluation.json").write_text(json.dumps(other))
    with pytest.raises(DataError, match="plain was evaluated on data name 'cifar10', group on 'digits'"):
        runs.read(three)


def test_a_run_without_an_evaluation_says_which_command_makes_one(tmp_path: Path, three: list[Path]):
    bare = tmp_path / "bare"
    bare.mkdir()
    with pytest.raises(DataError, match=r"bare has no evaluation\.json; make it with: bitline evaluate .*bare --chip"):
        runs.read([three[0], bare])
    with pytest.raises(DataError, match="no such run directory: nowhere"):
        runs.read([three[0], Path("nowhere")])
    with pytest.raises(DataError, match="1 run to compare; give two or more"):
        runs.read(three[:1])
    (bare / "evaluation.json").write_text("{}")
    with pytest.raises(DataError, match="is no evaluation: it has no accuracy, cost, layers"):
        runs.read([three[0], bare])


def test_files_are_compared_too_and_equal_names_are_told_apart(tmp_path: Path, three: list[Path]):
    twin = folder(tmp_path / "other" / "plain", evaluation())
    names = [entry.name for entry in runs.read([three[0], twin])]
    assert names == [f"{tmp_path.name}/plain", "other/plain"]
    entries = runs.read([three[0] / "evaluation.json", three[1] / "evaluation.json"])
    assert [entry.name for entry in entries] == ["plain/evaluation.json", "group/evaluation.json"]
    assert len({entry.name for entry in runs.read([three[0], three[0]])}) == 2


def test_layers_of_other_networks_stand_where_they_belong(tmp_path: Path):
    mine = folder(tmp_path / "a", evaluation([("one", 27, 8, 4), ("two", 64, 8, 4), ("three", 64, 8, 4)]))
    other = folder(
        tmp_path / "b",
        evaluation([("one", 27, 8, 4), ("two.deep", 9, 8, 4), ("two.point", 8, 8, 4), ("three", 64, 8, 4)]),
    )
    entries = runs.read([mine, other])
    sheet = compare.layers(entries)
    assert [row[0].text for row in sheet.rows] == ["one", "two", "two.deep", "two.point", "three"]
    assert sheet.rows[2][1].text == "–"


def test_layers_that_recipes_put_in_place_of_others_stand_beside_these(tmp_path: Path):
    def network(*names: str) -> dict[str, Any]:
        return evaluation([(name, 27, 8, 4) for name in names])

    made = [
        folder(tmp_path / "group", network("f.conv1.0", "f.conv2.0.conv", "f.conv3.0.conv", "fc")),
        folder(
            tmp_path / "split", network("f.conv1.0", "f.conv2.0.a", "f.conv2.0.b", "f.conv3.0.a", "f.conv3.0.b", "fc")
        ),
        folder(tmp_path / "plain", network("f.conv1.0", "f.conv2.0", "f.conv3.0", "fc")),
    ]
    names, _ = compare.by_layer(runs.read(made))
    assert [name.split(".")[1] if "." in name else name for name in names] == (
        ["conv1", *["conv2"] * 4, *["conv3"] * 4, "fc"]
    )
    assert names.index("f.conv2.0.a") + 1 == names.index("f.conv2.0.b")


def test_the_page_shows_every_run(three: list[Path]):
    shown = Page(compare.render(runs.read(three)))
    assert shown.figures == {"accuracy", "energy", "scatter", "layers"}
    for words in ("plain", "group", "separable", "90.30 ± 0.24", "+2.00", "−3.00", "157,288,960"):
        assert words in shown.words, words
    lead = (
        "Most accurate on the chip: group, 90.30 ± 0.24\u00a0%. Least energy for an inference: group, 9.713\u00a0µJ, "
        "4.00 times less than plain, at 90.30 ± 0.24\u00a0%."
    )
    assert lead in shown.words or lead.replace("\u00a0", " ") in shown.words
    assert "not evaluated under the same conditions" not in shown.words


def test_no_run_is_praised_for_energy_that_the_first_already_has(three: list[Path]):
    found = compare.comparison(runs.read([three[1], three[0]]))
    assert compare.lead(found)[1] == "No run takes less energy for an inference than group."


def test_runs_without_chips_still_compare(tmp_path: Path):
    accuracy = {"float": 90.0, "ideal_integer": 89.0, "chips": []}
    bare = {**evaluation(), "accuracy": accuracy, "seeds": [], "cause_seeds": []}
    entries = runs.read([folder(tmp_path / name, bare, before=bare) for name in ("a", "b")])
    shown = Page(compare.render(entries))
    assert shown.figures == {"accuracy", "energy", "layers"}
    assert compare.lead(compare.comparison(entries)) == []


def test_names_cannot_become_markup(tmp_path: Path):
    found = evaluation()
    found["layers"][0]["name"] = found["model"] = found["commit"] = EVIL
    found["cost"]["energy_parts"][EVIL] = 1e-5
    entries = [runs.Entry(EVIL, EVIL, record(found), record(found)), runs.Entry("b", "b", record())]
    shown = Page(compare.render(entries))
    assert not shown.all("img")
    assert len(shown.scripts) == 1
    assert "<script>alert(1)</script>" in shown.words
