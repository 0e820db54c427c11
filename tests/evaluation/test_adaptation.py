"""Every switch on a small trained network: less of the error that it is for."""

from dataclasses import replace
from functools import cache

import pytest
import torch
from digits_samples import digits, network
from torch import Tensor

from bitline import chip as chips
from bitline.evaluation import Settings, assess, put_on_chip
from bitline.evaluation.on_chip import calibration_batches
from bitline.nn import IDEAL, correct_biases, program

SETTINGS = Settings(chips=5, images=64, calibration_images=128)
WRITTEN = ("cell.faults.stuck_off=0.0", "cell.faults.stuck_on=0.0", "cell.programming.sigma=0.3")
STUCK = ("cell.programming.sigma=0.0",)
MEASURED = "weights.encoding.correction=measured"
PAIR = "weights.encoding={kind='pair'}"


@cache
def error(keys: tuple[str, ...], bias_correction: bool = False) -> float:
    """Mean square of what chips answer wrongly, over that of the answer; what all outputs share does not count."""
    model = put_on_chip(network(), digits(), chips.load("crimp-32nm", keys), SETTINGS).model
    x = next(digits().batches("test", batch_size=64))[0]
    total: list[Tensor] = []
    with torch.no_grad():
        program(model, IDEAL)
        wanted = model(x)
        for seed in SETTINGS.seeds:
            program(model, seed)
            before = correct_biases(model, calibration_batches(digits(), SETTINGS)) if bias_correction else None
            wrong = model(x) - wanted
            total.append((wrong - wrong.mean(1, keepdim=True)).square().mean())
            if before is not None:
                before.restore()
    return float(torch.stack(total).mean() / wanted.square().mean())


@pytest.mark.parametrize(
    ("without", "switch"),
    [
        (WRITTEN, "cell.programming.centred=true"),
        (WRITTEN, "weights.encoding.correction=expected"),
        (WRITTEN, MEASURED),
        (WRITTEN, "mitigation.verify=0.25"),
        (STUCK, MEASURED),
        (STUCK, "mitigation.remap=true"),
        ((*STUCK, MEASURED), "mitigation.remap=true"),
        ((*STUCK, MEASURED), "mitigation.flip=true"),
        ((*STUCK, PAIR), "mitigation.flip=true"),
        ((*STUCK, PAIR, "mitigation.remap=true"), "mitigation.flip=true"),
    ],
)
def test_a_switch_takes_some_of_the_error_that_it_is_for(without, switch):
    assert error((*without, switch)) < 0.95 * error(without)


@pytest.mark.parametrize("keys", [WRITTEN, STUCK, (MEASURED,)])
def test_biases_set_anew_take_some_of_any_error(keys):
    assert error(keys, bias_correction=True) < 0.8 * error(keys)


def test_all_of_them_leave_a_small_part_of_the_error():
    everything = (MEASURED, "cell.programming.centred=true", "mitigation={remap=true, flip=true, verify=0.25}")
    assert error(everything, bias_correction=True) < 0.1 * error(())


def test_an_evaluation_corrects_the_biases_of_every_chip_and_leaves_the_network_as_it_was():
    settings = replace(SETTINGS, chips=2, cause_chips=1, diagnose_images=2)
    chip = chips.load("crimp-32nm")
    plain = assess(network(), digits(), chip, settings)
    corrected = assess(network(), digits(), chip, replace(settings, bias_correction=True))
    assert (plain.bias_correction, corrected.bias_correction) == (False, True)
    assert corrected.accuracy.on_chip > plain.accuracy.on_chip
    assert corrected.accuracy.ideal_integer == plain.accuracy.ideal_integer
    assert assess(network(), digits(), chip, settings).accuracy == plain.accuracy
