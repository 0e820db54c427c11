"""What a layer answers however its groups are laid out, against plain products of cells and digits."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from bitline.chip import replace
from bitline.errors import ConversionError, MappingError
from bitline.evaluation.explain import explain
from bitline.mapping.encode import in_use
from bitline.mapping.lower import input_rows, weight_matrix
from bitline.mapping.quantize import digits
from bitline.mapping.strategies import STRATEGIES
from bitline.nn import (
    IDEAL,
    CrossbarLayer,
    calibrate,
    crossbar_layers,
    keep_ranges,
    load_ranges,
    placement,
    program,
    save_ranges,
    set_chip,
    to_crossbar,
    train_ranges,
)

ENCODINGS: dict[str, dict[str, Any]] = {
    "offset": {"kind": "offset"},
    "column": {"kind": "offset", "sum": "column"},
    "zero point": {"kind": "offset", "zero_point": 5},
    "pair": {"kind": "pair"},
    "digital pair": {"kind": "pair", "subtract": "digital"},
    "two's complement": {"kind": "twos_complement"},
}
CELLS: dict[str, dict[str, Any]] = {
    "ideal": {},
    "leaky": {"leak": "kept"},
    "stuck": {"faults": {"stuck_off": 0.2, "stuck_on": 0.2}},
    "programmed": {"programming": {"kind": "lognormal", "sigma": 0.3}, "faults": {"stuck_on": 0.1}, "leak": "kept"},
}


def one_layer(module: nn.Module, chip, strategy: str, x: Tensor, *, seed: int = IDEAL) -> CrossbarLayer:
    model = to_crossbar(nn.Sequential(module), chip, example=x, mapping={"*": strategy}).model
    calibrate(model, [x])
    program(model, seed)
    return crossbar_layers(model)["0"]


@st.composite
def layers(draw, make_chip, *, cells=tuple(CELLS), policies=("lossless", "full", "calibrated")):
    """A small group convolution on a small chip under some strategy, and inputs of it."""
    chip = make_chip(
        crossbar={
            "rows": 24,
            "cols": 40,
            "active_rows": draw(st.sampled_from([9, 13, 24])),
            **draw(st.sampled_from([{}, {"segment_rows": 4}])),
        },
        cell={"bits": draw(st.sampled_from([1, 2, 3])), **CELLS[draw(st.sampled_from(cells))]},
        dac={"bits": draw(st.sampled_from([1, 2]))},
        weights={"bits": 4, "encoding": ENCODINGS[draw(st.sampled_from(list(ENCODINGS)))]},
        adc={
            "bits": draw(st.sampled_from([3, 6])),
            "policy": draw(st.sampled_from(policies)),
            "granularity": draw(st.sampled_from(["slice_digit", "column"])),
        },
    )
    groups, channels, outputs = draw(st.integers(2, 6)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    seed = draw(st.integers(0, 2**31))
    torch.manual_seed(seed)
    if draw(st.booleans()):
        module: nn.Module = nn.Conv2d(
            groups * channels, groups * outputs, (2, 2), padding=draw(st.integers(0, 1)), groups=groups
        )
        x = torch.randn(2, groups * channels, 3, 3)
    else:
        module = nn.Conv1d(groups * channels, groups * outputs, 3, padding=1, padding_mode="circular", groups=groups)
        x = torch.randn(2, groups * channels, 4)
    x = x if draw(st.booleans()) else x.abs()
    return one_layer(module, chip, draw(st.sampled_from(STRATEGIES)), x, seed=seed % 5), x


def by_hand(layer: CrossbarLayer, q: Tensor) -> Tensor:
    """Cells on wires, digit by digit; what encodes the sign is taken off each group by itself."""
    placed, groups = layer.placement, layer.matmul.groups
    if placed.strategy == "digital":
        rows = input_rows(layer, q).double()
        scale = layer.cells.weights(layer).scale(layer.chip.weights).double()
        return torch.einsum("ipgr,grc->ipgc", rows, (weight_matrix(layer).detach().double() / scale).round())
    crossbars = layer.crossbars(layer.chip, int(layer.chip_seed))
    product, merged = crossbars.product, crossbars.product.placement
    scale, levels = layer.read(q).scale, crossbars.levels.double()
    levels = levels[:, :1] - levels[:, 1:] if product.subtracts else levels
    own = input_rows(layer, q)
    together = placed.together
    lacking = -groups % together
    vectors = torch.cat([own, own.new_zeros(*own.shape[:2], lacking, own.shape[3])], 2)
    vectors = vectors.unflatten(2, (-1, together)).flatten(3)  # (images, positions, merged groups, rows)
    planes = digits(vectors, product.form, layer.chip.dac.bits).double()
    y = torch.zeros(*vectors.shape[:3], merged.stored_columns, dtype=torch.float64)
    for top, bottom in zip(merged.row_bounds[:-1], merged.row_bounds[1:], strict=True):
        for p, digit_weight in enumerate(product.digit_weights):
            for s, slice_weight in enumerate(product.slice_weights):
                lsb = scale.lsb.expand(merged.matmul.groups, len(planes), layer.chip.slices, -1)[:, p, s]
                offset = scale.offset.expand(merged.matmul.groups, len(planes), layer.chip.slices, -1)[:, p, s]
                for k, side_weight in enumerate(product.side_weights):
                    cells = levels[:, k, s, top:bottom]
                    code = ((torch.einsum("ipgr,grc->ipgc", planes[p][..., top:bottom], cells) - offset) / lsb).round()
                    code = code if scale.low is None else code.clamp(scale.low, scale.high)
                    y += digit_weight * slice_weight * side_weight * (code * lsb + offset)
    cols = merged.matmul.cols
    results, references = y[..., :cols], y[..., cols:]
    results = results.flatten(2)[..., : groups * layer.matmul.cols].unflatten(-1, (groups, -1))
    if layer.chip.reference_columns:
        bounds = torch.tensor(merged.col_bounds[1:-1])
        home = torch.bucketize(torch.arange(cols), bounds, right=True)
        away = references[..., home].flatten(2)[..., : groups * layer.matmul.cols]
        return results - away.unflatten(-1, (groups, -1))
    over = own.double().sum(-1, keepdim=True)  # naive: zeros are weights, so Z stands on the rows of all groups
    over = over.sum(2, keepdim=True) if placed.strategy == "naive" else over
    return results - layer.chip.weights.zero_point * over


@given(st.data())
@torch.no_grad()
def test_a_layer_answers_what_its_cells_and_digits_make(make_chip, data):
    layer, x = data.draw(layers(make_chip, cells=("ideal", "stuck")))
    q = layer.integers(x)
    assert torch.equal(layer.multiply(q, layer.read(q, layer.chip, int(layer.chip_seed))), by_hand(layer, q))


@given(st.data())
@torch.no_grad()
def test_real_cells_beside_the_diagonal_err_and_leak(make_chip, data):
    layer, x = data.draw(layers(make_chip, cells=("leaky", "programmed"), policies=("lossless",)))
    q = layer.integers(x)
    assert torch.equal(layer.multiply(q, layer.read(q, layer.chip, int(layer.chip_seed))), by_hand(layer, q))


@given(st.data())
@torch.no_grad()
def test_ideal_cells_and_a_lossless_adc_give_the_exact_product_under_every_strategy(make_chip, data):
    layer, x = data.draw(layers(make_chip, cells=("ideal",), policies=("lossless",)))
    exact = layer._plain(layer.fake_input(x).value, layer.fake_weight().value, layer.bias)
    torch.testing.assert_close(layer(x), exact, rtol=1e-4, atol=1e-5)


@given(st.data())
@torch.no_grad()
def test_the_arithmetic_converts_as_often_as_the_placement_counts(make_chip, data):
    layer, x = data.draw(layers(make_chip))
    q, seen = layer.integers(x), 0
    used = in_use(layer.placement)

    def count(a: Tensor, code: Tensor) -> None:
        nonlocal seen
        seen += (a if used is None else a.movedim(5, 1)[used]).numel()

    layer.multiply(q, layer.read(q, layer.chip, int(layer.chip_seed)), observer=count)
    positions = layer.multiply(q, layer.read(q, layer.chip, int(layer.chip_seed))).shape[:2].numel()
    assert seen == positions * layer.placement.conversions_per_vector


@given(st.data(), st.sampled_from(["tensor", None]))
def test_gradients_are_those_of_the_plain_layer_under_every_strategy(make_chip, data, path):
    with pytest.MonkeyPatch.context() as patch:
        if path:
            patch.setenv("BITLINE_PATH", path)
        layer, x = data.draw(layers(make_chip))
        mine = x.clone().requires_grad_()
        grad = torch.ones_like(layer(x))
        layer(mine).backward(grad)
    inputs, weights = layer.fake_input(x), layer.fake_weight()
    leaf_x, leaf_w = inputs.value.clone().requires_grad_(), weights.value.clone().requires_grad_()
    layer._plain(leaf_x, leaf_w, None).backward(grad)
    torch.testing.assert_close(mine.grad, leaf_x.grad * inputs.inside)
    torch.testing.assert_close(layer.weight.grad, leaf_w.grad * weights.inside)


def depthwise(make_chip, strategy: str, **sections: Any) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(4, 6, 5, 5)
    chip = make_chip(**{"crossbar": {"rows": 30, "cols": 32}, **sections})
    model = to_crossbar(nn.Sequential(nn.Conv2d(6, 6, 3, groups=6)), chip, example=x, mapping={"depthwise": strategy})
    calibrate(model.model, [x])
    return model.model, x


@torch.no_grad()
def test_a_strip_makes_the_sums_of_dense_groups(make_chip):
    noisy = {"cell": {"programming": {"kind": "lognormal", "sigma": 0.2}}, "adc": {"bits": 4, "policy": "calibrated"}}
    (a, x), (b, _) = depthwise(make_chip, "dense", **noisy), depthwise(make_chip, "strip", **noisy)
    program(a, 3), program(b, 3)
    assert torch.equal(a(x), b(x))
    assert placement(b).layers[0].strategy == "strip"


@torch.no_grad()
def test_a_digital_layer_knows_no_adc_no_cell_and_no_seed(make_chip):
    poor = {
        "cell": {"faults": {"stuck_on": 0.5}, "read_noise": {"kind": "absolute", "sigma": "10 uS"}},
        "adc": {"bits": 1, "policy": "calibrated"},
    }
    model, x = depthwise(make_chip, "digital", **poor)
    exact, _ = depthwise(make_chip, "dense", adc={"policy": "lossless"})
    program(model, 7)
    assert torch.equal(model(x), exact(x))
    assert placement(model).conversions == placement(model).crossbars == 0
    assert crossbar_layers(model)["0"].ranges.known(placement(model).chip)


@torch.no_grad()
def test_stuck_cells_beside_the_diagonal_reach_packed_groups_alone(make_chip):
    """All cells stuck at the highest level: a column adds up the rows of its group, or of every group beside it."""
    full = {"cell": {"faults": {"stuck_on": 1.0}}, "adc": {"policy": "lossless"}}
    (a, x), (b, _) = depthwise(make_chip, "dense", **full), depthwise(make_chip, "packed", **full)
    program(a, 0), program(b, 0)
    layer = crossbar_layers(b)["0"]
    q = layer.integers(x)
    rows = input_rows(layer, q).sum(-1, dtype=torch.int64)
    assert layer.placement.per_crossbar == 3
    both = 15 * rows.unflatten(-1, (2, 3)).sum(-1).repeat_interleave(3, -1) - 8 * rows
    assert torch.equal(layer.multiply(q, layer.read(q, layer.chip, 0))[..., 0], both.double())
    other = crossbar_layers(a)["0"]
    assert torch.equal(other.multiply(q, other.read(q, layer.chip, 0))[..., 0], (7 * rows).double())


def test_columns_that_no_group_has_are_not_calibrated_on(make_chip):
    """Seven groups, three a crossbar: the last two columns of the third crossbar are never read."""
    torch.manual_seed(0)
    x = torch.rand(4, 7, 5, 5)
    chip = make_chip(crossbar={"rows": 30, "cols": 32}, adc={"bits": 3, "policy": "calibrated"})
    layer = one_layer(nn.Conv2d(7, 7, 3, groups=7), chip, "packed", x)
    assert layer.placement.per_crossbar == 3
    assert layer.ranges.sums is not None
    vectors = float(layer.ranges.sums.by_digit[0, 0].sum()) / 7
    assert vectors == 4 * 9


def test_names_win_over_kinds_and_kinds_over_everything(make_chip):
    net = nn.Sequential(
        nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 2, groups=4), nn.Conv2d(4, 4, 2, groups=4), nn.Conv2d(4, 4, 1, groups=2)
    )
    mapping = {"*": "naive", "depthwise": "packed", "2": "strip"}
    model, report = to_crossbar(net, make_chip(), example=torch.rand(1, 2, 4, 4), mapping=mapping)
    assert [p.strategy for p in report.layers] == ["dense", "packed", "strip", "naive"]
    assert [layer.strategy for layer in crossbar_layers(model).values()] == ["dense", "packed", "strip", "naive"]
    assert "1: conv2d 4 x 1 x 4 groups, packed" in str(report)
    set_chip(model, make_chip(adc={"bits": 5}))
    assert [p.strategy for p in placement(model).layers] == ["dense", "packed", "strip", "naive"]


def test_everything_may_stay_digital(make_chip):
    _, report = to_crossbar(
        nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 2, groups=2)), make_chip(), mapping={"*": "digital"}
    )
    assert [p.strategy for p in report.layers] == ["digital", "digital"]


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        (
            {"depthwide": "strip"},
            "mapping names 'depthwide', which is no layer and no kind; did you mean 'depthwise'?; "
            "kinds: depthwise, group, *; layers: 0",
        ),
        (
            {"0": "stripe"},
            "mapping of 0 = 'stripe'; did you mean 'strip'?; allowed: dense, naive, packed, strip, digital",
        ),
    ],
)
def test_an_unknown_key_or_strategy_is_refused_with_the_nearest(make_chip, mapping, message):
    with pytest.raises(ConversionError) as error:
        to_crossbar(nn.Sequential(nn.Conv2d(4, 4, 3, groups=4)), make_chip(), mapping=mapping)
    assert str(error.value) == message


@pytest.mark.parametrize("strategy", ["packed", "strip"])
def test_a_group_that_no_single_read_takes_is_refused(make_chip, strategy):
    with pytest.raises(MappingError, match=r"layer 0: a group of 18 x 2 does not fit .* \(8 wordlines, 8 weight col"):
        to_crossbar(nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), make_chip(), mapping={"group": strategy})


@torch.no_grad()
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_state_goes_back_into_the_same_mapping_only(make_chip, strategy):
    policy = {"adc": {"bits": 4, "policy": "calibrated"}}
    model, x = depthwise(make_chip, strategy, **policy)
    twin, _ = depthwise(make_chip, strategy, **policy)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin(x), model(x))
    dense, _ = depthwise(make_chip, "dense", **policy)
    if strategy in ("dense", "strip"):
        dense.load_state_dict(model.state_dict())
    else:
        with pytest.raises(ConversionError, match=f"mapping = '{strategy}' there, 'dense' here"):
            dense.load_state_dict(model.state_dict())


@torch.no_grad()
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_exported_layer_answers_as_the_layer_does(make_chip, strategy):
    model, x = depthwise(make_chip, strategy, adc={"bits": 4, "policy": "calibrated"})
    program(model, 2)
    exported = torch.export.export(model, (x,)).module()
    assert torch.equal(exported(x), model(x))


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["naive", "packed"])
def test_an_image_does_not_depend_on_its_batch_where_groups_share_bitlines(make_chip, strategy):
    noisy = {"cell": {"read_noise": {"kind": "absolute", "sigma": "5 uS"}}, "adc": {"bits": 5, "policy": "calibrated"}}
    model, x = depthwise(make_chip, strategy, **noisy)
    program(model, 1)
    whole = model(x)
    program(model, 1)
    assert torch.equal(torch.cat([model(part) for part in x.split([1, 3])]), whole)


def test_a_layer_says_how_it_computes_under_every_strategy(make_chip):
    for strategy in STRATEGIES:
        model, _ = depthwise(make_chip, strategy, adc={"bits": 4, "policy": "calibrated"})
        assert explain(model)[0].falls_back is False


@torch.no_grad()
def test_a_sweep_over_chips_keeps_the_mapping_and_its_ranges(make_chip):
    model, x = depthwise(make_chip, "packed", adc={"bits": 4, "policy": "calibrated"})
    chip = crossbar_layers(model)["0"].chip
    before = model(x)
    set_chip(model, replace(chip, "adc.bits=6"))
    set_chip(model, chip)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("channels", [6, 7])
def test_trained_ranges_get_gradients_however_groups_are_wired(make_chip, strategy, channels, tmp_path):
    torch.manual_seed(0)
    x = torch.rand(4, channels, 5, 5)
    chip = make_chip(crossbar={"rows": 30, "cols": 32}, adc={"bits": 3, "policy": "trained"})
    net = nn.Sequential(nn.Conv2d(channels, channels, 3, groups=channels), nn.Flatten(), nn.Linear(9 * channels, 2))
    model = to_crossbar(net, chip, example=x, mapping={"depthwise": strategy}).model
    calibrate(model, [x])
    assert len(train_ranges(model)) == (1 if strategy == "digital" else 2)
    model(x).square().sum().backward()
    layer = crossbar_layers(model)["0"]
    if strategy != "digital":
        assert bool(layer.ranges.log2_lsb.grad.isfinite().all())
        assert bool(layer.ranges.log2_lsb.grad.any())
    keep_ranges(model)
    save_ranges(model, tmp_path / "ranges.safetensors")
    twin = to_crossbar(net, chip, example=x, mapping={"depthwise": strategy}).model
    load_ranges(twin, tmp_path / "ranges.safetensors")
    assert torch.equal(twin(x), model(x))
    other = to_crossbar(net, chip, example=x, mapping={"depthwise": "naive" if strategy != "naive" else "packed"}).model
    with pytest.raises(ConversionError, match="was written for layer 0 mapped"):
        load_ranges(other, tmp_path / "ranges.safetensors")


@torch.no_grad()
def test_the_gradient_of_ranges_is_the_same_for_strips_and_dense_groups(make_chip):
    grads: list[Tensor] = []
    for strategy in ("dense", "strip"):
        with torch.enable_grad():
            model, x = depthwise(make_chip, strategy, adc={"bits": 3, "policy": "trained"})
            train_ranges(model)
            model(x).square().sum().backward()
        grads.append(crossbar_layers(model)["0"].ranges.log2_lsb.grad)
    assert torch.equal(*grads)
