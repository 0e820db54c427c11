"""Ranges are fitted to samples: vectors from all of them, and some columns as the whole layer has them."""

import pytest
import torch
from torch import nn

from bitline.mapping.part import part
from bitline.mvm.sum_histogram import VectorSample
from bitline.mvm.torch_fast import analog_sums
from bitline.network.images import Images
from bitline.nn import IDEAL, calibrate, crossbar_layers, to_crossbar
from bitline.nn.ranges import quiet


def test_a_sample_of_vectors_comes_from_all_of_them_evenly():
    sample, drawn, start = VectorSample(1000, 50), list[int](), 0
    for size in (1, 0, 199, 7, 793):
        drawn += [start + at for at in sample.of_next(size).tolist()]
        start += size
    assert [at // 20 for at in drawn] == list(range(50))
    assert len({at % 20 for at in drawn}) > 10
    whole = VectorSample(1000, 50)
    assert whole.of_next(1000).tolist() == drawn
    assert VectorSample(7, 50).of_next(7).tolist() == list(range(7))
    assert VectorSample(0, 50).of_next(3).tolist() == []


def test_the_sample_of_a_convolution_holds_the_vectors_that_its_crossbars_read(make_chip):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2))
    images = torch.rand(5, 4, 9, 9)
    model = to_crossbar(net, make_chip(), example=images[:1]).model
    calibrate(model, list(images.split(2)))
    layer = model[0]
    kept = layer.ranges.sums.vectors
    assert kept.shape == (1, 125, 2, 18)  # 5 images of 25 positions are fewer than a sample holds
    q = layer.integers(torch.cat(list(Images([images]).runs(images.device))))
    assert torch.equal(kept[0], layer.input_vectors(q).flatten(0, 1))


@pytest.mark.parametrize("strategy", ["dense", "naive", "packed", "strip"])
@pytest.mark.parametrize("encoding", ["offset", {"kind": "offset", "sum": "column"}])
def test_a_part_of_a_layer_makes_the_sums_that_the_whole_makes_there(make_chip, strategy, encoding):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(12, 12 * 9, 1, groups=12))
    chip = make_chip(crossbar={"rows": 16, "cols": 32}, weights={"encoding": encoding})
    x = torch.rand(3, 12, 2, 2)
    model = to_crossbar(net, chip, example=x, mapping={"*": strategy}).model
    calibrate(model, [x])
    layer = crossbar_layers(model)["0"]
    weights, whole = layer.cells.weights(layer), layer.whole_placement
    some = part(whole, 20)
    cells = weights.part(some, chip.weights).crossbars(quiet(chip), IDEAL, signed=False)
    everything = weights.crossbars(quiet(chip), IDEAL, signed=False)
    assert (cells.levels.numel() < everything.levels.numel()) == (strategy in ("dense", "strip"))
    assert torch.equal(cells.levels, everything.levels[some.groups][..., some.stored])
    rows = layer.ranges.sums.vectors
    mine, all_of_them = analog_sums(rows[:, :, some.groups], cells), analog_sums(rows, everything)
    for a, b in zip(mine, all_of_them, strict=True):
        assert torch.equal(a, b[some.groups][..., some.stored])
