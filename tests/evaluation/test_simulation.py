"""An evaluation by a surrogate says so, is near the exact one, and warns where it is not to be trusted."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from digits_samples import digits, network, printed

from bitline import chip as chips
from bitline.evaluation import Evaluation, Settings, assess
from bitline.nn import crossbar_layers
from bitline.report import html
from bitline.surrogate import measure

SETTINGS = Settings(chips=4, cause_chips=1, images=200, calibration_images=100, diagnose_images=4)


@cache
def evaluated(bits: int, simulation: str) -> Evaluation:
    chip = chips.load("example-128", [f"adc.bits={bits}", "cell.programming.sigma=0.15"])
    settings = replace(SETTINGS, simulation=simulation)
    return assess(network(), digits(), chip, settings, name="small")


def test_the_estimate_is_near_the_exact_one_and_says_what_answered():
    exact, estimate = evaluated(5, "exact"), evaluated(5, "surrogate")

    assert exact.accuracy.mean is not None
    assert estimate.accuracy.mean == pytest.approx(exact.accuracy.mean, abs=3)
    assert estimate.accuracy.chips != exact.accuracy.chips
    assert (exact.simulation.kind, exact.simulation.images) == ("exact", 0)
    assert (estimate.simulation.kind, estimate.simulation.images, estimate.simulation.holds) == ("surrogate", 64, True)
    assert estimate.layers == exact.layers  # errors of layers are simulated exactly
    assert "Accuracies are those of a surrogate, measured on 64 training images." in printed(estimate)
    assert "surrogate" not in printed(exact) + html.render(exact)


def test_a_surrogate_that_does_not_hold_says_so_where_the_accuracy_is_read():
    estimate = evaluated(1, "surrogate")

    assert not estimate.simulation.holds
    assert estimate.simulation.noisy
    for page in (" ".join(printed(estimate).split()), html.render(estimate)):
        assert "It does not hold here: what conversions add is more than the product in" in page
        assert "Use the exact simulation." in page


def test_the_same_seeds_give_the_same_estimate_whatever_the_batch_size():
    chip = chips.load("example-128", ["adc.bits=4", "cell.programming.sigma=0.15"])
    settings = replace(SETTINGS, chips=1, simulation="surrogate")

    one, other = (assess(network(), digits(), chip, replace(settings, batch_size=size)).accuracy for size in (64, 17))

    assert one == other


def test_a_surrogate_is_measured_with_the_biases_that_a_chip_runs_with(monkeypatch):
    seen: list[tuple[int, torch.Tensor]] = []

    def watched(model, batches, *, seed):
        seen.append((seed, next(iter(crossbar_layers(model).values())).bias.detach().clone()))
        return measure(model, batches, seed=seed)

    monkeypatch.setattr("bitline.evaluation.simulation.measure", watched)
    chip = chips.load("example-128", ["adc.bits=4", "cell.programming.sigma=0.2"])
    assess(network(), digits(), chip, replace(SETTINGS, simulation="surrogate", bias_correction=True), name="small")
    own = network()[0].bias
    programmed = [bias for seed, bias in seen if seed >= 0]
    assert programmed
    assert not any(torch.equal(bias, own) for bias in programmed)


def test_a_surrogate_of_few_images_is_not_trusted():
    chip = chips.load("example-128", ["adc.bits=6"])
    settings = replace(SETTINGS, simulation="surrogate", calibration_images=8, chips=1)
    evaluation = assess(network(), digits(), chip, settings, name="small")
    assert evaluation.simulation.images == 8
    assert not evaluation.simulation.holds
    assert "it is measured on too few images" in printed(evaluation).replace("\n", " ")
