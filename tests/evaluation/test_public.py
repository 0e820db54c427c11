"""`bitline.evaluate` of any inputs, targets and metric, against loops that share none of its code."""

import io
import math
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset
from two_inputs_samples import CHIP, calibration, diabetes, evaluated, held_out, known, regression

import bitline
from bitline import data as datasets
from bitline.chip import Chip, load
from bitline.errors import ConversionError, DataError
from bitline.evaluation.metrics import accuracy, perplexity
from bitline.evaluation.task import Task
from evaluation_files import check

IDEAL = bitline.replace(
    CHIP,
    "adc.policy=lossless",
    "cell.programming={kind='ideal'}",
    "cell.read_noise={kind='none'}",
    "cell.faults={stuck_off=0.0, stuck_on=0.0}",
    "weights.bits=8",
    "inputs.bits=8",
)


def rmse_by_hand(model: nn.Module) -> float:
    """Patient by patient, in float64."""
    body, blood, target = (x[342:] for x in diabetes())
    with torch.no_grad():
        answers = [float(model(b[None], c[None])) for b, c in zip(body, blood, strict=True)]
    wrong = [(answer - float(t)) ** 2 for answer, t in zip(answers, target.flatten(), strict=True)]
    return math.sqrt(sum(wrong) / len(wrong))


def on_chip(chip: Chip) -> nn.Module:
    body, blood, _ = diabetes()
    model, _ = bitline.to_crossbar(regression(), chip, example=(body[:2], blood[:2]))
    bitline.calibrate(model, calibration())
    return model.eval()


def test_a_regression_of_two_inputs_has_the_rmse_that_a_loop_over_patients_finds():
    result, model = evaluated(), on_chip(CHIP)

    assert result.accuracy.float == pytest.approx(rmse_by_hand(regression()), rel=1e-6)
    for seed, value in enumerate(result.accuracy.chips):
        bitline.program(model, seed)
        assert value == pytest.approx(rmse_by_hand(model), rel=1e-6)
    values = np.array(result.accuracy.chips)
    assert result.accuracy.mean == pytest.approx(values.mean())
    assert result.accuracy.std == pytest.approx(values.std(ddof=1))
    assert result.accuracy.worst == values.max(), "a lower error is better"
    assert result.statistics is not None
    assert result.statistics.p5 == pytest.approx(np.percentile(values, 95))
    assert result.accuracy.float < 60 < values.mean(), "the chip spoils nothing, so this test shows nothing"


def test_an_ideal_chip_answers_as_a_loop_over_its_integers_does():
    result = bitline.evaluate(regression(), IDEAL, held_out(), calibration=calibration(), metric="rmse", chips=2)

    # each layer by hand: inputs and weights to 8-bit integers, an exact product, and back
    layers = bitline.crossbar_layers(on_chip(IDEAL))

    def linear(name: str, x: Tensor, plain: nn.Linear) -> Tensor:
        scale = float(layers[name].ranges.input_scale)
        low, high = (-128, 127) if bool(layers[name].ranges.input_signed) else (0, 255)
        w = plain.weight.detach().double()
        step = torch.maximum(w.amax(1) / 127, -w.amin(1) / 128)  # of each output
        q = (x.double() / scale).round().clamp(low, high)
        return (q @ (w / step[:, None]).round().T) * scale * step + plain.bias.detach().double()

    body, blood, target = (x[342:] for x in diabetes())
    model = regression()
    hidden = torch.cat([linear("body", body, model.body), linear("blood", blood, model.blood)], 1).relu()
    answers = linear("head.1", hidden.float(), model.head[1])
    by_hand = float((answers - target.double()).square().mean().sqrt())
    assert result.accuracy.ideal_integer == pytest.approx(by_hand, rel=1e-5)
    assert set(result.accuracy.chips) == {result.accuracy.ideal_integer}


def test_losses_of_a_metric_that_is_better_when_lower_are_what_it_rose_by():
    result = evaluated()
    risen = sum(result.accuracy.chips[:2]) / 2 - result.accuracy.float
    assert sum(loss.points for loss in result.causes) == pytest.approx(risen)
    assert result.steps[-1].after == pytest.approx(result.accuracy.mean)


def test_inputs_by_name_and_in_order_are_the_same_inputs():
    body, blood, target = (x[342:] for x in diabetes())
    by_name = [({"blood": blood, "body": body}, target)]
    named = [({"body": b, "blood": c}, None) for b, c in known()]
    result = bitline.evaluate(regression(), CHIP, by_name, calibration=named, metric="rmse", chips=2)
    assert result.accuracy.chips == pytest.approx(evaluated().accuracy.chips[:2], rel=1e-6)
    assert result.cost.energy_J == pytest.approx(evaluated().cost.energy_J, rel=1e-3)


def test_an_evaluation_by_another_metric_is_a_file_a_page_and_a_few_lines(tmp_path):
    result = evaluated()
    content = check(result, tmp_path)
    assert content["metric"] == {"name": "RMSE", "unit": "", "better": "lower"}
    assert content["calibration"] == "128 samples of their own"
    assert result.to_json(tmp_path / "two.json") == content
    page = result.to_html(tmp_path / "two.html").read_text()
    assert "RMSE of the float network is" in page
    assert "accuracy [%]" not in page
    for text in (str(result), result._repr_html_()):
        assert f"{result.accuracy.float:.4g}" in text
        assert "RMSE" in text
    assert all(len(line) <= 80 for line in str(result).splitlines())
    assert str(result).splitlines()[:2] == ["two on example-128", "own data, 100 samples"]


def test_ranges_from_what_is_evaluated_are_said():
    result = bitline.evaluate(regression(), CHIP, held_out(), metric="rmse", chips=1, calibration_samples=40)
    assert result.calibration == "the first 40 samples evaluated"
    assert "Ranges were set on the first 40 samples evaluated" in result._repr_html_()


def test_several_processes_find_the_same_figures_bit_for_bit():
    one = evaluated()
    two = bitline.evaluate(
        regression(), CHIP, held_out(), calibration=calibration(), metric="rmse", chips=3, cause_chips=2, workers=2
    )
    assert two.accuracy == one.accuracy
    assert two.causes == one.causes


def digits() -> tuple[Tensor, Tensor]:
    bunch: Any = load_digits()
    return torch.from_numpy(bunch.images).float().unsqueeze(1) / 16, torch.from_numpy(bunch.target)


def fitted(model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor], steps: int = 60) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(steps):
        value = loss(model(x))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    return model.eval()


def test_segmentation_has_the_mean_iou_that_counting_pixels_finds():
    torch.manual_seed(0)
    x = digits()[0]
    masks = (x[:, 0] > 0.3).long() + (x[:, 0] > 0.8).long()
    x = (x + 0.2 * torch.rand(x.shape)).clamp(0, 1)
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 3, 1))
    fitted(model, x[:500], lambda y: nn.functional.cross_entropy(y, masks[:500]))
    batches = DataLoader(TensorDataset(x[500:700], masks[500:700]), batch_size=64)
    result = bitline.evaluate(model, CHIP, batches, calibration=[x[:64]], metric="miou", chips=1)

    def by_hand(network: nn.Module) -> float:
        with torch.no_grad():
            found = network(x[500:700]).argmax(1).numpy()
        true = masks[500:700].numpy()
        shares = [((found == c) & (true == c)).sum() / ((found == c) | (true == c)).sum() for c in range(3)]
        return 100 * sum(shares) / 3

    on, _ = bitline.to_crossbar(model, CHIP, example=x[:2])
    bitline.calibrate(on, [x[:64]])
    bitline.program(on, 0)
    assert result.accuracy.float == pytest.approx(by_hand(model))
    assert result.accuracy.chips[0] == pytest.approx(by_hand(on))
    assert result.accuracy.float > result.accuracy.chips[0] > 50


class NextToken(nn.Module):
    """Each token's successor, from itself alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(12, 16), nn.Linear(16, 12)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.out(self.embedding(tokens))


def test_a_language_model_has_the_perplexity_that_a_loop_over_tokens_finds():
    torch.manual_seed(0)
    tokens = torch.cumsum(torch.randint(1, 3, (120, 9)), 1) % 12
    x, following = tokens[:, :-1], tokens[:, 1:].clone()
    following[100:, -2:] = -100  # padding
    model = fitted(
        NextToken(), x, lambda y: nn.functional.cross_entropy(y.transpose(1, 2), following, ignore_index=-100)
    )
    batches = [(x[90:105], following[90:105]), (x[105:], following[105:])]
    result = bitline.evaluate(model, CHIP, batches, calibration=[x[:64]], metric=perplexity(axis=2), chips=1)

    def by_hand(network: nn.Module) -> float:
        nats: list[float] = []
        for sentence, targets in zip(x[90:], following[90:], strict=True):
            with torch.no_grad():
                scores = network(sentence[None])[0].double().numpy()
            for row, target in zip(scores, targets.tolist(), strict=True):
                if target != -100:
                    nats.append(-row[target] + math.log(np.exp(row).sum()))
        return math.exp(sum(nats) / len(nats))

    on, _ = bitline.to_crossbar(model, CHIP, example=x[:2])
    bitline.calibrate(on, [x[:64]])
    bitline.program(on, 0)
    assert result.accuracy.float == pytest.approx(by_hand(model), rel=1e-6)
    assert result.accuracy.chips[0] == pytest.approx(by_hand(on), rel=1e-6)
    assert [d.op for d in result.digital] == ["Embedding"]


def test_a_data_set_of_images_is_one_case_of_batches():
    data = datasets.load("digits")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    loader = [(x, y) for x, y in data.batches("test", batch_size=50)]
    own = [x for x, _ in data.batches("train", batch_size=64, limit=256)]
    as_data = bitline.evaluate(model, CHIP, data, chips=2)
    as_batches = bitline.evaluate(model, CHIP, loader, calibration=own, chips=2)
    assert as_data.accuracy == as_batches.accuracy
    assert as_data.calibration == "256 training images"
    assert as_data.metric.is_accuracy
    assert "metric" not in as_data.to_json()
    error = bitline.evaluate(model, CHIP, data, metric="cross_entropy", chips=1)
    images, labels = data.normalize(data.test_images), data.test_labels
    with torch.no_grad():
        by_torch = float(nn.functional.cross_entropy(model(images), labels))
    assert error.accuracy.float == pytest.approx(by_torch, rel=1e-5)


class Samples(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 30

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index >= 30:
            raise IndexError
        return torch.full((4,), float(index)), index % 3


def test_a_torch_data_set_of_samples_is_cut_in_batches():
    torch.manual_seed(0)
    result = bitline.evaluate(nn.Linear(4, 3), CHIP, Samples(), chips=1)
    assert result.data.count == 30


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "batches gives no data"),
        (torch.zeros(3, 4), "batches is a Tensor; expected a DataLoader"),
        (7, "batches is a int; expected a DataLoader"),
        (iter([(torch.zeros(3, 4), torch.zeros(3))]), "batches can be walked once only"),
        ([torch.zeros(3, 4)], r"a batch is a Tensor; expected \(inputs, targets\)"),
        ([(torch.zeros(3, 4), torch.zeros(2))], r"a batch has 3 inputs \(\(3, 4\)\) and 2 targets"),
    ],
)
def test_batches_that_are_none_are_refused(batches, message):
    with pytest.raises(DataError, match=message):
        bitline.evaluate(nn.Linear(4, 3), CHIP, batches)


def test_inputs_that_a_network_does_not_take_are_refused():
    batch = ((torch.rand(2, 4), torch.rand(2, 6), torch.rand(2, 1)), torch.rand(2, 1))
    with pytest.raises(ConversionError, match=r"TwoInputs does not run on a batch of shape \(\(2, 4\), \(2, 6\)"):
        bitline.evaluate(regression(), CHIP, [batch], metric="rmse")
    with pytest.raises(ConversionError, match=r"inputs of shape \(\(2, 4\), \(3, 6\)\); expected as many samples"):
        bitline.evaluate(regression(), CHIP, [((torch.rand(2, 4), torch.rand(3, 6)), torch.rand(2, 1))])


def test_a_metric_that_does_not_take_the_answers_is_refused_before_anything_is_calibrated(monkeypatch):
    monkeypatch.setattr("bitline.evaluation.on_chip.calibrate", lambda *_, **__: pytest.fail("calibrated"))
    with pytest.raises(DataError, match="metric accuracy fails: outputs of shape"):
        bitline.evaluate(regression(), CHIP, held_out())


def test_batches_too_large_to_hold_are_walked_again_with_the_same_figures(monkeypatch):
    monkeypatch.setattr("bitline.evaluation.task.HELD_BYTES", 100)
    result = bitline.evaluate(regression(), CHIP, held_out(), calibration=calibration(), metric="rmse", chips=2)
    assert result.accuracy.chips == evaluated().accuracy.chips[:2]


def test_reports_and_chips_print_on_a_screen():
    body, blood, _ = diabetes()
    model, report = bitline.to_crossbar(regression(), CHIP, example=(body[:2], blood[:2]))
    cost = bitline.cost.price(bitline.placement(model))
    for thing in (report, cost, CHIP, *map(load, bitline.presets())):
        with redirect_stdout(io.StringIO()) as out:
            print(thing)
        lines = out.getvalue().splitlines()
        assert len(lines) <= 24
        assert all(len(line) <= 80 for line in lines)
    assert len(repr(report)) < 80
    assert len(repr(cost)) < 80
    assert "read at 200 mV" in str(CHIP)


def test_a_task_takes_its_first_samples_over_several_batches():
    batches = [(torch.arange(3.0)[:, None], torch.zeros(3)), (torch.arange(3.0, 6)[:, None], torch.zeros(3))]
    task = Task(batches, [], accuracy(), evaluated().data, "")
    assert torch.equal(task.first(4), torch.arange(4.0)[:, None])
    assert replace(task, calibrated_on="x").first(9).shape == (6, 1)


@pytest.mark.parametrize("more", [{"bias_correction": True}, {"simulation": "surrogate"}, {"in_turn": True}])
def test_two_inputs_go_through_what_else_an_evaluation_can_do_in_several_processes_too(more):
    chip = bitline.replace(CHIP, "adc.bits=3")
    options: dict[str, Any] = {"calibration": calibration(), "metric": "rmse", "chips": 2, "cause_chips": 1}
    plain = bitline.evaluate(regression(), chip, held_out(), **options)
    one = bitline.evaluate(regression(), chip, held_out(), **options, **more)
    two = bitline.evaluate(regression(), chip, held_out(), workers=2, **options, **more)
    assert one.accuracy == two.accuracy
    assert one.simulation == two.simulation
    assert one.accuracy.chips != plain.accuracy.chips
    assert one.accuracy.mean == pytest.approx(plain.accuracy.mean, rel=0.5)
