"""Kept networks on images that they never saw: what calibration with far more sums reached is reached still."""

import math
from statistics import mean, stdev

import pytest
import torch
from torch import Tensor

from bitline import calibrate, load_chip, to_crossbar
from bitline.data import load
from bitline.models.files import load_run
from oracles.networks import HERE, NETWORKS

# By calibration set: right answers of 200, and squared error of the answers over the variance of the plain ones, at
# commit 23a0adb, whose ranges were fitted to sixteen times as many sums of every column.
BEFORE = {
    "resnet20": ((173, 172, 177, 173), (0.0024201, 0.0025836, 0.0026228, 0.0022291)),
    "vgg8-half": ((179, 178, 180, 180), (0.0036805, 0.0034491, 0.0040917, 0.0031062)),
}
TEST_IMAGES = 200
SURE = 2.33
"""standard errors that chance stays within in 99 of 100 cases, on one side"""


def sets(images: Tensor) -> list[Tensor]:
    """Calibration sets: some images, mirrored ones, and each of them moved by two pixels."""
    mirrored = images.flip(3)
    return [images, mirrored, images.roll(2, 3), mirrored.roll(2, 2)]


def chance(before: list[float]) -> float:
    """Standard error of the difference of two means over as many sets, whose spread was that of `before`."""
    return math.sqrt(2 / len(before)) * stdev(before)


@pytest.mark.parametrize("run", BEFORE)
@torch.no_grad()
def test_ranges_on_six_bits_are_worth_what_those_of_far_more_sums_were(run):
    data, found = load("cifar10", data_dir=HERE / "cifar10-few"), load_run(NETWORKS / run)
    centre, scale = (torch.tensor(values).view(-1, 1, 1) for values in (found.record.mean, found.record.std))
    training, test = ((x / 255 - centre) / scale for x in (data.train_images, data.test_images[:TEST_IMAGES]))
    chip = load_chip("rram-22nm", ["adc.bits=6", "cell.programming.sigma=0"])
    plain = found.model(test)
    right, errors = list[float](), list[float]()
    for images in sets(training):
        model = to_crossbar(found.model, chip, example=training[:1]).model
        calibrate(model, [images])
        y = torch.cat([model(x) for x in test.split(50)])
        right.append(int((y.argmax(1) == data.test_labels[:TEST_IMAGES]).sum()))
        errors.append(math.log(float((y - plain).square().mean() / plain.var())))
    right_before, errors_before = ([*map(float, values)] for values in BEFORE[run])
    logs = [math.log(error) for error in errors_before]
    assert mean(right) >= mean(right_before) - 0.002 * TEST_IMAGES - SURE * chance(right_before)
    assert mean(errors) <= mean(logs) + math.log(1.25) + SURE * chance(logs)
