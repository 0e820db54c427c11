"""Metrics are what one counts by hand; what they do not take is said."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import bitline
from bitline.errors import DataError
from bitline.evaluation.metrics import METRICS, accuracy, mean_iou, metric_of, top

SCORES = torch.tensor([[0.1, 0.5, 0.4], [0.9, 0.04, 0.06], [0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])


def of(metric: Any, *batches: tuple[Any, Any]) -> float:
    return metric_of(metric)(batches)


def test_metrics_of_classes_are_what_one_counts():
    targets = torch.tensor([1, 1, 0, -100])
    halves = [(SCORES[:2], targets[:2]), (SCORES[2:], targets[2:])]
    assert of(accuracy(), *halves) == pytest.approx(100 / 3)
    assert of(top(2), *halves) == pytest.approx(100 / 3)
    assert of(top(3), *halves) == 100
    rows = [SCORES[i].double().exp() for i in range(3)]
    nats = [-math.log(row[t] / row.sum()) for row, t in zip(rows, targets[:3].tolist(), strict=True)]
    assert of("cross_entropy", *halves) == pytest.approx(sum(nats) / 3)
    assert of("perplexity", *halves) == pytest.approx(math.exp(sum(nats) / 3))


def test_errors_do_not_depend_on_batches():
    y, t = torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 1.0, 1.0])
    for cut in ([(y, t)], [(y[:1], t[:1]), (y[1:], t[1:])], [(y[:, None], t)]):
        assert of("mse", *cut) == pytest.approx(10 / 3)
        assert of("rmse", *cut) == pytest.approx(math.sqrt(10 / 3))
        assert of("mae", *cut) == pytest.approx(4 / 3)


def test_a_function_sees_all_outputs_and_targets_at_once():
    median = bitline.Metric(lambda y, t: (y - t).abs().median(), better="lower", name="median error", unit="mg")
    batches = [(torch.tensor([1.0]), torch.tensor([0.0])), (torch.tensor([2.0, 9.0]), torch.tensor([0.0, 0.0]))]
    assert median(batches) == 2
    assert median.record.label == "median error [mg]"
    boxes = bitline.Metric(lambda y, t: len(y["boxes"]) + len(t), better="higher")
    assert boxes([({"boxes": torch.zeros(2, 4)}, [1, 2]), ({"boxes": torch.zeros(3, 4)}, [3])]) == 8


def test_mean_iou_leaves_out_classes_that_occur_nowhere():
    scores = nn.functional.one_hot(torch.tensor([[0, 0, 1, 1]]), 5).movedim(-1, 1)
    assert of(mean_iou(), (scores, torch.tensor([[0, 1, 1, 1]]))) == pytest.approx(100 * (1 / 2 + 2 / 3) / 2)


class Higher:
    higher_is_better = True

    def __call__(self, y: Tensor, t: Tensor) -> Tensor:
        return (y == t).float().mean()


def test_a_metric_says_which_way_is_better():
    assert metric_of(Higher()).better == "higher"
    assert metric_of(Higher()).name == "Higher"
    assert {name: make().better for name, make in METRICS.items()} == {
        "accuracy": "higher",
        "top5": "higher",
        "mse": "lower",
        "rmse": "lower",
        "mae": "lower",
        "miou": "higher",
        "cross_entropy": "lower",
        "perplexity": "lower",
    }
    with pytest.raises(DataError, match=r"give bitline.Metric\(<lambda>, better='higher'\) or 'lower'"):
        metric_of(lambda y, t: 0)
    with pytest.raises(DataError, match=r"metric is 'rsme'; allowed: accuracy, .* did you mean 'rmse'"):
        metric_of("rsme")
    with pytest.raises(DataError, match=r"metric is 'RMSE'; allowed: accuracy, .* did you mean 'rmse'"):
        metric_of("RMSE")
    with pytest.raises(DataError, match="better is 'up'; allowed: 'higher', 'lower'"):
        bitline.Metric(abs, better="up")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "message"),
    [
        ("mse", torch.zeros(4, 3), torch.zeros(4), r"outputs of shape \(4, 3\), targets of shape \(4,\)"),
        ("accuracy", torch.zeros(4), torch.zeros(4).long(), "no axis is the classes'"),
        ("accuracy", torch.zeros(4, 3, 3), torch.zeros(4, 3).long(), r"axes \[1, 2\] may be the classes'; give axis="),
        ("accuracy", torch.zeros(4, 3), torch.zeros(4), "targets are torch.float32; expected class numbers"),
        ("top5", torch.zeros(4, 3), torch.zeros(4).long(), "the 5 highest of 3 outputs"),
        ("mae", torch.full((4,), float("nan")), torch.zeros(4), "metric mean absolute error is nan"),
        (bitline.Metric(lambda y, t: y - t, better="lower"), torch.zeros(4), torch.zeros(4), "gives a tensor of shape"),
    ],
)
def test_what_a_metric_does_not_take_is_said(metric, outputs, targets, message):
    with pytest.raises(DataError, match=message):
        of(metric, (outputs, targets))
