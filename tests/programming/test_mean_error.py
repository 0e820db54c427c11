"""What the digital sum takes out of results: the same numbers as by loops, and less error."""

import copy
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from bitline.chip import replace
from bitline.errors import ChipError
from bitline.mapping.encode import together_again
from bitline.mvm import native
from bitline.mvm.product import Product
from bitline.mvm.results import tile_sums
from bitline.nn import calibrate, crossbar_layers, program, set_chip, to_crossbar
from bitline.nn.cells import IDEAL
from bitline.nn.layer import CrossbarLayer
from bitline.programming.mean_error import STEP

ERRING = {
    "bits": 2,
    "programming": {"kind": "lognormal", "sigma": 0.3},
    "faults": {"stuck_off": 0.09, "stuck_on": 0.02},
}
LAYERS = {
    "linear": (lambda: nn.Linear(21, 6), (5, 21)),
    "linear, three axes": (lambda: nn.Linear(21, 6), (4, 3, 21)),
    "conv2d": (lambda: nn.Conv2d(3, 5, 3, padding=1), (2, 3, 6, 5)),
    "strided": (lambda: nn.Conv2d(3, 4, (3, 2), stride=(2, 1), dilation=(1, 2), padding=(0, 1)), (2, 3, 7, 6)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(5, 5, 3, groups=5, padding=1), (2, 5, 5, 5)),
    "conv1d": (lambda: nn.Conv1d(5, 5, 3, dilation=2, bias=False), (2, 5, 9)),
}


def corrected_chip(make_chip, correction="measured", *, height=8, **sections):
    sections = {"adc": {"policy": "lossless"}, "cell": ERRING} | sections
    weights = {"bits": 6, "encoding": {"kind": "offset", "correction": correction}}
    return make_chip(crossbar={"rows": height, "cols": 64}, weights=weights, **sections)


def on_chip(kind: str, chip, strategy="dense") -> tuple[nn.Module, CrossbarLayer, Tensor]:
    torch.manual_seed(3)
    make, shape = LAYERS[kind]
    layer, x = make(), torch.rand(shape)
    model = to_crossbar(nn.Sequential(layer), chip, example=x, mapping={"*": strategy}).model
    calibrate(model, [x])
    program(model, 4)
    return model, crossbar_layers(model)["0"], x


def without(layer: CrossbarLayer):
    return replace(layer.chip, "weights.encoding.correction=none")


def product(layer: CrossbarLayer, x: Tensor, chip=None, seed: int = 4) -> Tensor:
    q = layer.integers(x)
    return layer.multiply(q, layer.read(q, chip, seed))


@torch.no_grad()
@pytest.mark.parametrize("path", [*native.paths(), native.TENSOR])
@pytest.mark.parametrize("correction", ["expected", "measured"])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_a_correction_takes_the_mean_error_times_the_inputs_of_each_tile(
    make_chip, monkeypatch, kind, correction, path
):
    monkeypatch.setenv(native.VARIABLE, path)
    model, layer, x = on_chip(kind, corrected_chip(make_chip, correction))
    away = layer.crossbars(layer.chip, 4).correction
    rows, bounds = layer.input_vectors(layer.integers(x)).double(), layer.placement.row_bounds
    wanted = product(layer, x, without(layer))
    assert layer.crossbars(without(layer), 4).correction is None
    for tile, (a, b) in enumerate(pairwise(bounds)):
        wanted = wanted - rows[..., a:b].sum(-1, keepdim=True) * away[min(tile, away.shape[0] - 1)]
    got = product(layer, x)
    assert torch.equal(got, wanted)
    torch.testing.assert_close(model(x), layer.real(wanted, x, layer.read(layer.integers(x))), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_measured_error_is_that_of_the_cells_within_what_a_read_can_tell(make_chip):
    _, layer, _ = on_chip("conv2d", corrected_chip(make_chip))
    crossbars = layer.crossbars(layer.chip, 4)
    wrong = (crossbars.weights.double() - layer.crossbars(without(layer), IDEAL).weights.double())[0]
    for tile, (a, b) in enumerate(pairwise(layer.placement.row_bounds)):
        # A read rounds the sum of each slice to a level; slices weigh 1, 4, 16.
        off = (crossbars.correction[tile, 0] - wrong[a:b].mean(0)).abs().max()
        assert float(off) <= 0.5 * 21 / (b - a) + STEP


@torch.no_grad()
def test_the_expected_error_is_the_mean_error_of_many_chips(make_chip):
    _, layer, _ = on_chip("linear", corrected_chip(make_chip, "expected", height=32))
    away = layer.crossbars(layer.chip, 0).correction
    assert away.shape == (1, 1, 1)
    target = layer.crossbars(without(layer), IDEAL).weights.double()
    errors = torch.stack([layer.crossbars(without(layer), s).weights.double() - target for s in range(300)])
    spread = float(errors.std()) / errors.numel() ** 0.5
    assert float(away) == pytest.approx(float(errors.mean()), abs=STEP / 2 + 5 * spread)


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["dense", "naive", "packed", "strip"])
def test_every_strategy_is_corrected_on_the_columns_that_it_is_wired_as(make_chip, strategy):
    model, layer, x = on_chip("depthwise", corrected_chip(make_chip, height=32), strategy)
    away = layer.crossbars(layer.chip, 4).correction
    placement = layer.placement
    sums = tile_sums(layer, layer.integers(x), Product(placement.merged), placement.together)
    rows = layer.input_vectors(layer.integers(x))
    parts = [rows[..., a:b].sum(-1) for a, b in pairwise(placement.merged.row_bounds)]
    assert torch.equal(sums.long(), torch.stack(parts, -1).long())
    taken = together_again(torch.einsum("bvgt,tgc->bvgc", sums.double(), away), placement)
    assert torch.equal(product(layer, x), product(layer, x, without(layer)) - taken)
    model(x)


@torch.no_grad()
def test_a_digital_layer_and_ideal_cells_have_nothing_to_correct(make_chip):
    _, digital, _ = on_chip("depthwise", corrected_chip(make_chip), "digital")
    assert digital.crossbars(digital.chip, 4).correction is None
    _, layer, _ = on_chip("conv2d", corrected_chip(make_chip))
    assert layer.crossbars(layer.chip, IDEAL).correction is None


@torch.no_grad()
def test_a_kept_leak_is_corrected_too(make_chip):
    cell = {"bits": 2, "g_min": "20 uS", "leak": "kept"}
    _, layer, x = on_chip("linear", corrected_chip(make_chip, "expected", cell=cell))
    q = layer.integers(x)
    exact = layer.multiply(q, layer.read(q, without(layer).model_copy(update={"cell": ideal_cell(layer)}), IDEAL))
    off = (product(layer, x, without(layer)) - exact).abs().mean()
    assert float((product(layer, x) - exact).abs().mean()) < 0.1 * float(off)


def ideal_cell(layer: CrossbarLayer):
    return layer.chip.cell.model_copy(update={"leak": "cancelled"})


@torch.no_grad()
@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sampled_from(["linear", "conv2d", "grouped"]))
def test_a_measured_correction_makes_results_err_less(make_chip, seed, kind):
    _, layer, x = on_chip(kind, corrected_chip(make_chip))
    exact = product(layer, x, without(layer), IDEAL)
    plain, taken = (product(layer, x, chip, seed) - exact for chip in (without(layer), layer.chip))
    assert float(taken.square().mean()) < float(plain.square().mean())


@torch.no_grad()
def test_a_copy_answers_the_same_and_the_batch_size_changes_no_bit(make_chip):
    model, _, x = on_chip("conv2d", corrected_chip(make_chip))
    y = model(x)
    assert torch.equal(copy.deepcopy(model)(x), y)
    assert torch.equal(torch.cat([model(x[:1]), model(x[1:])]), y)


@torch.no_grad()
def test_a_crossbar_that_is_not_built_takes_no_part(make_chip):
    torch.manual_seed(0)
    layer, x = nn.Linear(20, 32), torch.rand(4, 20)
    layer.weight[:16, 8:16] = 0
    for correction in ("expected", "measured"):
        chip = replace(corrected_chip(make_chip, correction), "crossbar.cols=48")
        model = to_crossbar(nn.Sequential(layer), chip, example=x).model
        calibrate(model, [x])
        mine = crossbar_layers(model)["0"]
        away = mine.crossbars(chip, 4).correction
        assert mine.placement.absent == {(0, 1, 0)}
        assert not away[1, 0, :16].any()
        assert away[0].any()
        assert away[1, 0, 16:].any()
        sums = tile_sums(mine, mine.integers(x), Product(mine.placement.merged), mine.placement.together).double()
        taken = torch.einsum("bvgt,tgc->bvgc", sums, away.expand(3, 1, 32))
        assert torch.equal(product(mine, x), product(mine, x, without(mine)) - taken)


@torch.no_grad()
def test_ranges_stay_where_only_the_correction_changes(make_chip):
    model, layer, _ = on_chip("conv2d", corrected_chip(make_chip, adc={"policy": "calibrated", "bits": 5}))
    lsb = layer.ranges.lsb.clone()
    set_chip(model, without(layer))
    assert torch.equal(layer.ranges.lsb, lsb)


def test_a_reference_column_allows_no_correction(make_chip):
    with pytest.raises(ChipError, match='correction = "measured" with sum = "column"'):
        make_chip(weights={"encoding": {"kind": "offset", "sum": "column", "correction": "measured"}})
