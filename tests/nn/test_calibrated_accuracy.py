"""Kept networks on images that they never saw: what calibration with far more sums reached is reached still."""

import pytest
import torch

from bitline import calibrate, load_chip, to_crossbar
from bitline.data import load
from bitline.models.files import load_run
from oracles.networks import HERE, NETWORKS

# Right answers of 400, and squared error of the answers over the variance of the plain ones, at commit 23a0adb, whose
# ranges were fitted to sixteen times as many sums of every column.
BEFORE = {"resnet20": (344, 0.0024373), "vgg8-half": (359, 0.0035100)}


@pytest.mark.parametrize("run", BEFORE)
def test_accuracy_on_six_bits_is_within_a_fifth_of_a_point_of_what_it_was(run):
    data, found = load("cifar10", data_dir=HERE / "cifar10-few"), load_run(NETWORKS / run)
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (found.record.mean, found.record.std))
    training, test = ((x / 255 - mean) / std for x in (data.train_images, data.test_images))
    chip = load_chip("rram-22nm", ["adc.bits=6", "cell.programming.sigma=0"])
    model = to_crossbar(found.model, chip, example=training[:1]).model
    calibrate(model, [training])
    with torch.no_grad():
        y, plain = (torch.cat([net(x) for x in test.split(50)]) for net in (model, found.model))
    right, error = BEFORE[run]
    assert int((y.argmax(1) == data.test_labels).sum()) >= right - 0.002 * len(test)
    assert float((y - plain).square().mean() / plain.var()) < 1.25 * error
