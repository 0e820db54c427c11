"""ADC ranges as parameters: where they begin, their gradient, their training, and which chips they stay on."""

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip import replace
from bitline.errors import ConversionError
from bitline.mapping.encode import column_tiles
from bitline.mapping.quantize import digits
from bitline.mvm.adc import code_range, snap
from bitline.mvm.results import sort_results
from bitline.nn import (
    calibrate,
    crossbar_layers,
    keep_ranges,
    program,
    save_ranges,
    set_chip,
    to_crossbar,
    train_ranges,
)
from bitline.nn.layer import CrossbarLayer

GRANULARITIES = ("layer", "slice", "slice_digit", "column")
ENCODINGS = (
    {"kind": "offset"},
    {"kind": "offset", "sum": "column"},
    {"kind": "pair"},
    {"kind": "pair", "subtract": "digital"},
    {"kind": "twos_complement"},
)
LAYERS = {
    "linear": (lambda: nn.Linear(20, 5), (6, 20)),
    "linear of sequences": (lambda: nn.Linear(20, 5, bias=False), (3, 2, 20)),
    "conv": (lambda: nn.Conv2d(3, 4, 3, padding=1, stride=2), (2, 3, 5, 6)),
    "grouped": (lambda: nn.Conv2d(4, 6, (3, 2), groups=2), (2, 4, 5, 4)),
    "circular": (lambda: nn.Conv1d(3, 4, 3, padding=1, padding_mode="circular"), (2, 3, 6)),
}
ALL = {"vectors": 10**6, "sums": 10**9}


def on_chip(make_chip, net: nn.Module, x: Tensor, *, mapping=None, **sections) -> nn.Module:
    adc = {"policy": "trained", "bits": 3, **sections.pop("adc", {})}
    chip = make_chip(**{"crossbar": {"rows": 8, "cols": 32}, **sections}, adc=adc)
    model = to_crossbar(net, chip, example=x, mapping=mapping).model
    calibrate(model, [x * 0.8])
    return model


def network(make_chip, **sections) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(6, 2, 6, 6)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    return on_chip(make_chip, net, x, **sections), x


def through(x: Tensor, value: Tensor) -> Tensor:
    return x + (value - x).detach()


def learned_step(layer: CrossbarLayer, x: Tensor, lsb: Tensor, offset: Tensor) -> Tensor:
    """What a layer answers, in plain loops over its conversions, differentiable in the ranges."""
    q, crossbars = layer.integers(x), layer.crossbars(layer.chip, int(layer.chip_seed))
    product, levels, rows = crossbars.product, crossbars.levels.double(), layer.input_vectors(q)
    low, high = code_range(layer.chip.adc, product)
    planes = digits(rows, product.form, layer.chip.dac.bits).double()
    stored = product.placement.stored_columns
    shape = (rows.shape[2], len(product.digit_weights), len(product.slice_weights), stored)
    lsb, offset = lsb.expand(shape), offset.expand(shape)
    y = torch.zeros(*rows.shape[:3], stored, dtype=torch.float64)
    for first, last in pairwise(product.placement.row_bounds):
        for p, digit_weight in enumerate(product.digit_weights):
            for s, slice_weight in enumerate(product.slice_weights):
                cells = levels[:, :, s, first:last]
                cells = cells[:, :1] - cells[:, 1:] if product.subtracts else cells
                for side, side_weight in enumerate(product.side_weights):
                    a = torch.einsum("ipgr,grc->ipgc", planes[p, ..., first:last], cells[:, side])
                    code = (a - offset[:, p, s]) / lsb[:, p, s]
                    code = through(code, code.round()).clamp(low, high)
                    y = y + digit_weight * slice_weight * side_weight * (code * lsb[:, p, s] + offset[:, p, s])
    cols = product.placement.matmul.cols
    if stored > cols:
        y = y[..., :cols] - y[..., cols:].index_select(-1, column_tiles(product.placement))
    else:
        y = y - product.digital_offset * rows.sum(-1, keepdim=True)
    read = layer.read(q)
    return layer.real(sort_results(layer, y, q, read.crossbars, layer.whole_placement), x, read)


def expected(layer: CrossbarLayer, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of log2_lsb and offset_shift by autograd."""
    log2, shift = (p.detach().double().requires_grad_() for p in (layer.ranges.log2_lsb, layer.ranges.offset_shift))
    lsb = through(log2.exp2(), snap(log2.detach().exp2()))
    offset = layer.ranges.adc_offset + shift * layer.ranges.adc_lsb
    out = learned_step(layer, x, lsb, through(offset, offset.round()))
    # A code of real levels may be the neighbouring one where a sum lies between the two.
    integral = layer.crossbars(layer.chip, int(layer.chip_seed)).integral
    torch.testing.assert_close(out, layer(x), rtol=0, atol=1e-4 if integral else 0.1)
    out.backward(grad)
    # What would make an LSB of one level less is not felt.
    held = (log2.detach().exp2() <= 1) & (log2.grad > 0)
    return log2.grad.masked_fill(held, 0), shift.grad


def check(model: nn.Module, x: Tensor) -> None:
    train_ranges(model, offsets=True, **ALL)
    layer = model[0]
    with torch.no_grad():
        layer.ranges.log2_lsb.add_(torch.rand_like(layer.ranges.log2_lsb) - 0.7).clamp_(min=0.2)
        layer.ranges.offset_shift.add_(torch.rand_like(layer.ranges.offset_shift) + 1)
    out = layer(x)
    grad = torch.randn_like(out)
    by_log2, by_shift = expected(layer, x, grad)
    out.backward(grad)
    assert float(by_log2.abs().max()) > 1e-3
    assert float(by_shift.abs().max()) > 1e-3
    for mine, wanted in ((layer.ranges.log2_lsb.grad, by_log2), (layer.ranges.offset_shift.grad, by_shift)):
        torch.testing.assert_close(mine, wanted.float(), rtol=1e-3, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: "-".join(map(str, e.values())))
@pytest.mark.parametrize("name", LAYERS)
def test_the_gradient_of_all_vectors_is_that_of_autograd(make_chip, name, encoding, granularity):
    torch.manual_seed(1)
    build, shape = LAYERS[name]
    x = torch.randn(shape) if "linear" in name else torch.rand(shape)
    check(
        on_chip(
            make_chip,
            nn.Sequential(build()),
            x,
            adc={"bits": 2, "granularity": granularity},
            weights={"bits": 4, "encoding": encoding},
        ),
        x,
    )


@pytest.mark.parametrize("mapping", ["dense", "naive", "packed"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_groups_that_share_bitlines_have_it_too(make_chip, mapping, granularity):
    torch.manual_seed(1)
    x = torch.rand(2, 5, 4, 4)
    model = on_chip(
        make_chip,
        nn.Sequential(nn.Conv2d(5, 10, 2, groups=5)),
        x,
        adc={"bits": 2, "granularity": granularity},
        mapping={"*": mapping},
    )
    check(model, x)


@pytest.mark.parametrize("adc", [{"bits": 1}, {"bits": 2, "levels": 3}])
@pytest.mark.parametrize("encoding", ["offset", "pair"])
def test_binary_and_ternary_sums_on_programmed_cells_have_it_too(make_chip, adc, encoding):
    torch.manual_seed(1)
    x = torch.rand(2, 3, 5, 5)
    cell = {"programming": {"kind": "lognormal", "sigma": 0.2}, "leak": "kept", "faults": {"stuck_on": 0.05}}
    model = on_chip(
        make_chip, nn.Sequential(nn.Conv2d(3, 4, 3)), x, adc=adc, cell=cell, weights={"bits": 4, "encoding": encoding}
    )
    program(model, 3)
    check(model, x)


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    for p in model.parameters():
        p.grad = None
    model(x).square().sum().backward()
    return torch.cat([layer.ranges.log2_lsb.grad.flatten() for layer in crossbar_layers(model).values()])


def test_the_estimate_from_few_vectors_is_unbiased(make_chip):
    model, x = network(make_chip, adc={"granularity": "slice"})
    twin = copy.deepcopy(model)
    train_ranges(model, **ALL)
    train_ranges(twin, vectors=5)
    whole = gradient(model, x)
    drawn = torch.stack([gradient(twin, x) for _ in range(300)])
    error = drawn.std(0) / len(drawn) ** 0.5
    assert bool((drawn.std(0) > 0).all())
    assert bool(((drawn.mean(0) - whole).abs() < 4 * error).all())


def test_ranges_begin_where_calibration_put_them_and_end_where_training_did(make_chip):
    model, x = network(make_chip)
    plain = {name for name, _ in model.named_parameters()}
    before = model(x)
    parameters = train_ranges(model, offsets=True)
    assert len(parameters) == 4
    assert torch.equal(model(x), before)
    with torch.no_grad():
        for p in parameters:
            p.add_(torch.rand_like(p))
    after = model(x)
    assert not torch.equal(after, before)
    keep_ranges(model)
    assert torch.equal(model(x), after)
    assert {name for name, _ in model.named_parameters()} == plain
    assert {key.rpartition(".")[2] for key in model.state_dict()}.isdisjoint({"log2_lsb", "range_steps"})


def test_ranges_to_be_trained_are_fitted_as_calibrated_ones(make_chip):
    for granularity in GRANULARITIES:
        trained, x = network(make_chip, adc={"granularity": granularity})
        calibrated, _ = network(make_chip, adc={"granularity": granularity, "policy": "calibrated"})
        assert torch.equal(trained(x), calibrated(x))


def test_frozen_weights_do_not_stop_ranges_from_training(make_chip):
    model, x = network(make_chip)
    model.requires_grad_(False)
    parameters = train_ranges(model)
    model(x).square().sum().backward()
    assert all(bool(p.grad.any()) for p in parameters)
    assert all(p.grad is None for p in (model[0].weight, model[3].bias))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, labels: Tensor) -> float:
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def adam(model: nn.Module) -> torch.optim.Adam:
    ranges = [p for n, p in model.named_parameters() if n.endswith(("log2_lsb", "offset_shift"))]
    weights = [p for n, p in model.named_parameters() if not n.endswith(("log2_lsb", "offset_shift"))]
    return torch.optim.Adam([{"params": weights, "lr": 5e-3}, {"params": ranges, "lr": 3e-2}])


def test_a_resumed_training_ends_where_an_unbroken_one_does(make_chip):
    labels = torch.arange(6) % 3

    def begun() -> tuple[nn.Module, Tensor, torch.optim.Adam]:
        model, x = network(make_chip)
        train_ranges(model, vectors=3)
        return model, x, adam(model)

    model, x, optimizer = begun()
    for _ in range(4):
        step(model, optimizer, x, labels)
    fresh, _, other = begun()
    for _ in range(2):
        step(fresh, other, x, labels)
    resumed, _, again = begun()
    resumed.load_state_dict(fresh.state_dict())
    again.load_state_dict(other.state_dict())
    for _ in range(2):
        step(resumed, again, x, labels)
    for (name, a), b in zip(model.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_state_of_ranges_in_training_goes_into_a_network_that_trains_none_yet(make_chip):
    model, x = network(make_chip)
    for p in train_ranges(model, offsets=True):
        p.data.add_(0.5)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
    blank = to_crossbar(net, model[0].chip, example=x).model
    blank.load_state_dict(model.state_dict())
    assert torch.equal(blank(x), model(x))
    assert isinstance(blank[0].ranges.log2_lsb, nn.Parameter)


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("adc", [{"bits": 1}, {"bits": 2, "levels": 3}, {"bits": 3}])
def test_training_lowers_the_loss_on_programmed_chips(make_chip, adc, offsets):
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    labels = (x[:, 0] > x[:, 1]).long()
    model = on_chip(
        make_chip,
        nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2)),
        x,
        adc={**adc, "granularity": "slice"},
        weights={"bits": 3, "encoding": "pair"},
        cell={"programming": {"kind": "lognormal", "sigma": 0.1}},
    )
    train_ranges(model, offsets=offsets, vectors=16)
    optimizer = adam(model)
    losses: list[float] = []
    for seed in range(90):
        program(model, seed)
        losses.append(step(model, optimizer, x, labels))
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters())
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_ranges_keep_their_precision_and_stay_the_parameters_of_their_optimizer(make_chip):
    model, x = network(make_chip)
    parameters = train_ranges(model)
    parameters[0].data.add_(1e-4)
    kept = [p.detach().clone() for p in parameters]
    model.bfloat16()
    assert all(p.dtype == torch.float32 and torch.equal(p, k) for p, k in zip(parameters, kept, strict=True))
    assert model[0].ranges.log2_lsb is parameters[0]
    assert model(x.bfloat16()).dtype == torch.bfloat16


def test_a_copy_trains_on_its_own(make_chip):
    model, x = network(make_chip)
    train_ranges(model)
    before = model(x)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        twin[0].ranges.log2_lsb.add_(1)
    assert not torch.equal(twin(x), before)
    assert torch.equal(model(x), before)


def test_calibrating_anew_starts_ranges_anew(make_chip):
    model, x = network(make_chip)
    before = model(x)
    parameters = train_ranges(model, offsets=True)
    for p in parameters:
        p.data.add_(1.0)
    calibrate(model, [x * 0.8])
    assert torch.equal(model(x), before)
    assert model[0].ranges.log2_lsb is parameters[0]


def moved(model: nn.Module, *overrides: str) -> None:
    set_chip(model, replace(next(iter(crossbar_layers(model).values())).chip, *overrides))


def trained(make_chip, **sections) -> tuple[nn.Module, Tensor]:
    model, x = network(make_chip, **sections)
    with torch.no_grad():
        for p in train_ranges(model):
            p.add_(0.4)
    keep_ranges(model)
    return model, x


def test_trained_ranges_stay_on_chips_of_the_same_formats_and_no_others(make_chip):
    model, x = trained(make_chip)
    wanted = model(x)
    moved(
        model, "cell.programming={kind='lognormal', sigma=0.3}", "adc.sample_rate=100 MHz", "adc.calibration=percentile"
    )
    assert torch.equal(model(x), wanted)
    moved(model, "adc.bits=4")
    refitted = model(x)
    calibrate(model, [x * 0.8])
    assert torch.equal(model(x), refitted)
    moved(model, "adc.bits=3")
    assert not torch.equal(model(x), wanted)
    for layer in crossbar_layers(model).values():
        layer.ranges.sums = None
    moved(model, "adc.levels=5")
    with pytest.raises(ConversionError, match="ADC range unknown; call calibrate"):
        model(x)


@pytest.mark.parametrize("change", ["adc.bits=4", "adc.granularity=layer", "adc.policy=lossless", "crossbar.rows=16"])
def test_ranges_in_training_do_not_change_their_form(make_chip, change):
    model, x = network(make_chip)
    train_ranges(model)
    before = model(x)
    with pytest.raises(ConversionError, match="would not be those of chip small; call keep_ranges"):
        moved(model, change)
    assert torch.equal(model(x), before)
    moved(model, "cell.faults.stuck_on=0.1")


def test_ranges_in_training_are_not_compiled(make_chip):
    model, x = network(make_chip)
    train_ranges(model)
    with pytest.raises(ConversionError, match=r"ADC ranges train for chip small, .* call keep_ranges\(model\) first$"):
        torch.export.export(model, (x,))


def test_what_cannot_train_is_refused(make_chip):
    model, _ = network(make_chip, adc={"policy": "calibrated"})
    with pytest.raises(ConversionError, match=r"^layer 0 is on chip small of adc.policy = 'calibrated'; ranges train"):
        train_ranges(model)
    blank = to_crossbar(nn.Sequential(nn.Linear(4, 4)), make_chip(adc={"policy": "trained"})).model
    with pytest.raises(ConversionError, match=r"^layer 0: its input or ADC range is unknown; call calibrate"):
        train_ranges(blank)
    model, x = network(make_chip)
    with pytest.raises(ConversionError, match=r"^vectors is 0; allowed: 1 or more$"):
        train_ranges(model, vectors=0)
    train_ranges(model)
    with pytest.raises(ConversionError, match=r"^layer 0: its ADC ranges train already$"):
        train_ranges(model)
    model[3].ranges.log2_lsb.data.fill_(float("nan"))
    for call in (lambda: keep_ranges(model), lambda: save_ranges(model, "x.safetensors")):
        with pytest.raises(ConversionError, match=r"^layer 3: .* is NaN or infinite; training has diverged$"):
            call()
    with pytest.raises(ConversionError, match="layer 3: ADC range"):
        model(x)
