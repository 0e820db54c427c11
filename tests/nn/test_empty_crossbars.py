"""Networks without the crossbars whose weights are all zero."""

from typing import Any, cast

import pytest
import torch
from torch import nn

from bitline.cost.model import price
from bitline.evaluation.causes import stages
from bitline.evaluation.densities import measure
from bitline.evaluation.diagnose import diagnose
from bitline.evaluation.explain import explain
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mvm import native
from bitline.mvm.product import Product
from bitline.mvm.reference import crossbar_mvm
from bitline.nn import calibrate, crossbar_layers, placement, program, to_crossbar

ENCODINGS: list[Any] = ["offset", {"kind": "offset", "sum": "column"}, "pair"]


def pruned(rows=24, cols=12) -> nn.Linear:
    """Three row tiles of 8 and, at 8 weight columns a crossbar, two column tiles: 4 of 6 blocks are zero."""
    torch.manual_seed(0)
    layer = nn.Linear(rows, cols)
    with torch.no_grad():
        layer.weight[:8, 8:] = 0
        layer.weight[8:, :16] = 0
    return layer


def chip(make_chip, **sections: Any):
    return make_chip(**{"crossbar": {"rows": 8, "cols": 16}, "weights": {"bits": 4}, **sections})


def on_chip(layer: nn.Module, chip_: Any, x: torch.Tensor, seed: int = -1):
    model, report = to_crossbar(nn.Sequential(layer), chip_, example=x)
    calibrate(model, [x])
    program(model, seed)
    return model, report


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("seed", [-1, 3])
def test_each_output_is_that_of_a_layer_of_the_rows_and_columns_left(make_chip, monkeypatch, encoding, seed):
    monkeypatch.setenv(native.VARIABLE, native.TENSOR)  # whose codes of real sums are those of the reference
    references = encoding == ENCODINGS[1]
    physics = {"programming": {"kind": "lognormal", "sigma": 0.1}, "faults": {"stuck_on": 0.05}}
    there = chip(
        make_chip,
        weights={"bits": 4, "encoding": encoding},
        cell=physics,
        adc={"bits": 3, "policy": "full"},
        crossbar={"rows": 8, "cols": 18 if references else 16 if encoding != "pair" else 32},
    )
    whole, x = pruned(), torch.rand(5, 24)
    x[0] = 1.0
    model, report = on_chip(whole, there, x, seed)
    assert (report.layers[0].crossbars, report.layers[0].removed) == (2, 4)
    assert "4 crossbars of zeros removed" in " ".join(str(report).split())
    layer = crossbar_layers(model)["0"]
    q = layer.integers(x)
    read = layer.read(q, layer.chip, seed)
    crossbars, y = read.crossbars, layer.multiply(q, read)[:, 0, 0]
    # The two blocks that are left, each as a product of its own, with the very cells that were written.
    for rows, cols, reference in ((slice(0, 8), slice(0, 8), 12), (slice(16, 24), slice(8, 12), 13)):
        width = cols.stop - cols.start
        columns = [*range(cols.start, cols.stop), *([reference] if references else [])]
        part = Product(dense(Matmul("part", "linear", 8, width), there))
        scale = read.scale
        alone = crossbar_mvm(q[:, None, None, rows], crossbars.levels[..., rows, columns], part, scale)
        assert torch.equal(y[:, cols], alone[:, 0, 0])


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("policy", ["lossless", "full", "calibrated", "batch_minmax"])
@pytest.mark.parametrize("granularity", ["slice_digit", "column"])
def test_a_layer_of_zeros_needs_no_crossbar_and_answers_its_bias(make_chip, encoding, policy, granularity):
    layer, x = pruned(), torch.rand(5, 24)
    nn.init.zeros_(layer.weight)
    there = chip(
        make_chip,
        weights={"bits": 4, "encoding": encoding},
        adc={"bits": 3, "policy": policy, "granularity": granularity},
        crossbar={"rows": 8, "cols": 18},
        cell={"programming": {"kind": "lognormal", "sigma": 0.3}, "read_noise": {"kind": "absolute", "sigma": "3 uS"}},
    )
    model, _ = on_chip(layer, there, x, 0)
    assert placement(model).crossbars == 0
    assert torch.equal(model(x).detach(), layer.bias.detach().expand(5, -1))


def test_the_placement_follows_the_weights(make_chip):
    x = torch.rand(5, 24)
    model, _ = on_chip(pruned(), chip(make_chip), x)
    layer = crossbar_layers(model)["0"]
    assert layer.placement.crossbars == 2
    with torch.no_grad():
        layer.weight[0, 23] = layer.weight.abs().max()
    assert layer.placement.crossbars == 3
    with torch.no_grad():
        layer.weight[0, 23] = layer.weight.abs().max() * 1e-3
    assert layer.placement.crossbars == 2, "it is rounded to zero"
    assert "crossbars=2" in repr(layer)


def test_a_zero_block_can_come_back_in_training(make_chip):
    x = torch.rand(5, 24)
    model, _ = on_chip(pruned(), chip(make_chip), x)
    layer = crossbar_layers(model)["0"]
    model(x).square().sum().backward()
    grad = cast("torch.Tensor", layer.weight.grad)
    assert bool((grad[:8, 8:] != 0).any())


@pytest.mark.parametrize("granularity", ["slice_digit", "column"])
def test_calibration_counts_the_sums_of_crossbars_that_there_are(make_chip, granularity):
    there = chip(make_chip, adc={"bits": 3, "policy": "calibrated", "granularity": granularity})
    x = torch.rand(5, 24)
    model, report = on_chip(pruned(), there, x)
    sums = crossbar_layers(model)["0"].ranges.sums
    assert sums is not None
    assert float(sums.by_digit.sum()) == 5 * report.layers[0].conversions_per_vector


def test_statistics_and_cost_count_the_conversions_that_there_are(make_chip):
    there = chip(make_chip, adc={"bits": 3, "policy": "calibrated"})
    x = torch.rand(5, 24)
    model, report = on_chip(pruned(), there, x)
    sums = diagnose(model, x, stages(there), 0)["0"].partial_sums
    where = placement(model)
    cost = price(where, densities=measure(model, x))
    assert sum(sums.counts) == 5 * report.layers[0].conversions_per_vector
    assert where.conversions == report.layers[0].conversions_per_vector == cost.conversions
    assert cost.layers[0].to_json()["crossbars_removed"] == 4
    assert cost.layers[0].crossbars == 2


def test_measured_densities_are_those_of_inputs_that_crossbars_read(make_chip):
    x = torch.zeros(5, 24)
    x[:, 8:16] = 1.0  # inputs of the row tile that no column has
    x[0, 0] = 1.0
    model, _ = on_chip(pruned(), chip(make_chip, inputs={"bits": 4, "calibration": "max"}), x)
    found = measure(model, x)["0"]
    assert found.digit_mean == pytest.approx([1 / (5 * 16)] * 4)


def test_a_pruned_layer_stays_on_the_path_that_it_takes_unpruned(make_chip):
    x = torch.rand(5, 24)
    there = chip(make_chip, adc={"bits": 3, "policy": "calibrated"})
    one, other = (explain(on_chip(layer, there, x)[0])[0] for layer in (pruned(), nn.Linear(24, 12)))
    assert (one.path, one.why) == (other.path, other.why)
