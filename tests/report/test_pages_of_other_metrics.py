"""Pages of what is no accuracy: regression, language, a metric of one's own."""

import copy
from typing import Any

import pytest
from test_report_html import Page

from bitline.evaluation import Evaluation
from bitline.evaluation.figures import Metric
from bitline.evaluation.shown import spread
from bitline.report import compare
from bitline.report.measure import Measure
from bitline.report.runs import Entry
from evaluation_samples import evaluation

RMSE = {"name": "RMSE", "unit": "mm", "better": "lower"}


def by(metric: dict[str, str], *chips: float, energy: float = 1.0) -> Evaluation:
    """An evaluation by another metric."""
    content: dict[str, Any] = copy.deepcopy(evaluation())
    own = Evaluation.model_validate(content)
    accuracy = type(own.accuracy).of(chips[0], chips[0], chips, Metric.model_validate(metric).better)
    cost = content["cost"] | {"energy_J": content["cost"]["energy_J"] * energy}
    cost["energy_parts"] = {key: energy * value for key, value in cost["energy_parts"].items()}
    content |= {"metric": metric, "accuracy": accuracy.model_dump(), "cost": cost, "seeds": list(range(len(chips)))}
    for key in ("statistics", "causes", "cause_seeds"):
        content.pop(key, None)
    return Evaluation.model_validate(content | {"causes": [], "cause_seeds": []})


def compared(metric: dict[str, str]) -> tuple[list[Entry], Page]:
    good, poor = by(metric, 2.0, 2.1, 2.3), by(metric, 5.0, 5.5, 6.0, energy=0.5)
    entries = [Entry("good", "trained", good), Entry("poor", "group", poor, before=good)]
    return entries, Page(compare.render(entries))


def test_runs_are_compared_by_their_metric_and_its_direction():
    entries, page = compared(RMSE)
    lines = compare.lead(compare.comparison(entries), Measure(entries[0].evaluation.metric))

    assert lines[0] == "Best RMSE on the chip: good, 2.13 ± 0.15 mm."
    assert lines[1].endswith("2.00 times less than good, at 5.50 ± 0.50 mm.")
    assert compare.comparison(entries)["recipes"][0]["points"] == pytest.approx(6.4 / 3 - 5.5)
    assert page.figures == {"accuracy", "energy", "scatter", "layers"}
    assert "RMSE of each run" in page.words
    assert "RMSE against energy" in page.words
    assert "RMSE [mm]" in page.words
    assert "accuracy" not in page.words.lower().replace("all numbers of this page", "")
    assert "[%]" not in page.words
    assert "points" not in page.words
    higher = compare.comparison(compared({"name": "Dice", "unit": "", "better": "higher"})[0])
    assert compare.lead(higher, Measure(Metric(name="Dice", unit="", better="higher")))[0].startswith(
        "Best Dice on the"
    )
    assert higher["recipes"][0]["points"] == pytest.approx(5.5 - 6.4 / 3)


def test_of_runs_that_take_the_same_energy_the_best_is_named():
    first, poor, good = by(RMSE, 2.0, 2.0), by(RMSE, 9.0, 9.0, energy=0.5), by(RMSE, 3.0, 3.0, energy=0.5)
    entries = [Entry("first", "trained", first), Entry("poor", "trained", poor), Entry("good", "trained", good)]

    lines = compare.lead(compare.comparison(entries), Measure(first.metric))

    assert "Least energy for an inference: good, " in lines[1]


@pytest.mark.parametrize(
    ("mean", "std", "written"),
    [
        (2.2648, 0.04668, ["2.265", "0.047"]),
        (57.4, 0.5334, ["57.40", "0.53"]),
        (1234.5, 251.0, ["1230", "250"]),
        (-3.14159, 0.5, ["-3.14", "0.50"]),
        (0.0, 0.25, ["0.00", "0.25"]),
        (2.0, 1.234e-9, ["2", "1.2e-09"]),
        (3e9, 1e8, ["3e+09", "1e+08"]),
        (1.2e-5, 3e-6, ["0.0000120", "0.0000030"]),
    ],
)
def test_a_mean_is_written_to_the_place_of_its_deviation(mean: float, std: float, written: list[str]):
    assert spread(mean, std) == written
