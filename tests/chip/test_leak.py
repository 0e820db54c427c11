"""A leak that nothing subtracts is said: where the chip is read, converted to and priced."""

import logging

import pytest
import torch
from torch import nn

from bitline.chip import load, replace
from bitline.chip.leak import leak_remark, remaining_leak
from bitline.cost.model import price
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place
from bitline.nn import calibrate, to_crossbar

KEPT = (
    'cell.leak="kept"',
    "cell.g_min=10 uS",
    "cell.programming=ideal",
    "cell.faults={stuck_off=0.0, stuck_on=0.0}",
    "cell.read_noise=none",
)
WIDE = ("adc.bits=16", "adc.policy=full", "weights.granularity=tensor", "inputs.calibration=max")


@pytest.mark.parametrize(
    ("encoding", "left"),
    [
        ('{kind = "offset"}', 1 / 3 * 85),
        ('{kind = "offset", correction = "expected"}', 0),
        ('{kind = "offset", sum = "column"}', 0),
        ('{kind = "twos_complement"}', 1 / 3 * (85 - 128)),
        ('{kind = "pair"}', 0),
        ('{kind = "pair", subtract = "digital"}', 0),
    ],
)
def test_what_is_left_of_a_leak_is_what_results_have_too_much(encoding, left):
    """At an on/off ratio of 10 a cell of two bits leaks 1/9 of three levels; slices weigh 1, 4, 16 and 64."""
    chip = replace(load("example-128"), *KEPT, *WIDE, f"weights.encoding={encoding}")
    torch.manual_seed(0)
    layer, x = nn.Linear(40, 8, bias=False), torch.rand(16, 40)

    model, report = to_crossbar(nn.Sequential(layer), chip, example=x)
    calibrate(model, [x])
    with torch.no_grad():
        over = model(x) - layer(x)
    # In weight units of the scale that all weights share.
    unit = float(layer.weight.detach().abs().max()) / 127
    slope = float((over.double() / unit).mean() / x.double().sum(1).mean())

    assert remaining_leak(chip) == pytest.approx(left)
    assert slope == pytest.approx(left, abs=0.5)
    assert bool(leak_remark(chip)) == bool(left) == ("too much" in " ".join(str(report).split()))


def test_a_leak_that_is_taken_for_signal_is_said_where_the_chip_is_read_and_priced(caplog):
    with caplog.at_level(logging.WARNING, "bitline"):
        chip = load("example-128", KEPT)
    assert "every result has 28.33 sum(x) too much, with weights up to 127" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "bitline"):
        load("example-128", [*KEPT, "weights.encoding=pair"])
        replace(chip, "adc.bits=5")
    assert "sum(x)" not in caplog.text

    layer = Matmul("m", "linear", 64, 8, inputs=64)
    assert leak_remark(chip) in price(place([layer], chip)).notes


def test_a_leak_that_a_reference_column_cancels_is_nothing_to_say():
    assert not leak_remark(load("rram-22nm"))
    assert remaining_leak(replace(load("rram-22nm"), "cell.g_min=0 S", 'cell.leak="kept"')) == 0
