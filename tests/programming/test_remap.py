"""Kernels on other columns, columns of the other sign, cells written with care: exact without errors, better with."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from bitline.chip import Chip, replace
from bitline.errors import ChipError
from bitline.mapping.encode import encode, slice_weights
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.nn import IDEAL, calibrate, crossbar_layers, to_crossbar
from bitline.nn.layer import CrossbarLayer
from bitline.physics.faults import stuck_levels
from bitline.physics.program import effective_levels, exact_levels
from bitline.physics.verify import most_sensitive
from bitline.programming.cells import program_cells
from bitline.programming.nearest import nearest_levels
from bitline.programming.remap import MEAN_SQUARE, _errors, arrange
from bitline.programming.residual import Residuals, residuals

pytestmark = pytest.mark.usefixtures("way")
ENCODINGS = {
    "offset": {"kind": "offset"},
    "zero point": {"kind": "offset", "zero_point": 20},
    "column": {"kind": "offset", "sum": "column"},
    "measured": {"kind": "offset", "correction": "measured"},
    "pair": {"kind": "pair"},
    "digital pair": {"kind": "pair", "subtract": "digital"},
    "two's complement": {"kind": "twos_complement"},
}
FAULTS = {"stuck_off": 0.09, "stuck_on": 0.02}


def chip_with(make_chip, encoding="offset", *, faults=FAULTS, sigma=0.0, cols=64, **mitigation) -> Chip:
    return make_chip(
        cell={"bits": 2, "g_min": "0 S", "faults": faults, "programming": {"kind": "lognormal", "sigma": sigma}},
        adc={"policy": "lossless"},
        crossbar={"rows": 16, "cols": cols},
        mitigation=mitigation,
        weights={"bits": 6, "encoding": ENCODINGS[encoding]},
    )


def on_chip(chip: Chip, model: nn.Module, x: Tensor, **mapping: str) -> CrossbarLayer:
    converted = to_crossbar(nn.Sequential(model), chip, example=x, mapping=mapping or None).model
    calibrate(converted, [x])
    return crossbar_layers(converted)["0"]


@torch.no_grad()
def squared_error(layer: CrossbarLayer, x: Tensor, chip: Chip, chips: int = 6) -> float:
    """Mean square of what a layer answers wrongly, less what all its kernels share."""
    q = layer.integers(x)
    wanted = layer.multiply(q, layer.read(q, chip, IDEAL))
    wrong = [layer.multiply(q, layer.read(q, chip, seed)) - wanted for seed in range(chips)]
    return sum(float((w - w.mean(-1, keepdim=True)).square().mean()) for w in wrong)


@torch.no_grad()
@settings(max_examples=30)
@given(st.sampled_from(list(ENCODINGS)), st.booleans(), st.booleans(), st.integers(0, 2**32))
def test_the_answer_is_that_of_the_weights_that_the_cells_hold(make_chip, encoding, remap, flip, seed):
    torch.manual_seed(seed)
    linear, x = nn.Linear(20, 30), torch.randn(5, 20)
    layer = on_chip(chip_with(make_chip, encoding, remap=remap, flip=flip and encoding != "column"), linear, x)
    plain = replace(layer.chip, "weights.encoding.correction=none") if encoding == "measured" else layer.chip
    q = layer.integers(x)
    crossbars = layer.crossbars(plain, seed)
    held = crossbars.weights[0].double()
    if crossbars.flipped is not None:
        # Three cells of two bits hold up to 63; five bits and a sign cell of -32 take as many.
        both = 31 if encoding == "two's complement" else 63 - 2 * layer.chip.weights.zero_point
        held = torch.where(crossbars.flipped[0], both - held, held)
    assert torch.equal(layer.multiply(q, layer.read(q, plain, seed))[:, 0, 0], q.double() @ held)
    working = (held == layer.crossbars(plain, IDEAL).weights[0].double()).double().mean()
    assert float(working) > 0.4


@torch.no_grad()
@pytest.mark.parametrize("strategy", ["dense", "naive", "packed", "strip"])
@pytest.mark.parametrize("encoding", ["offset", "measured", "pair", "two's complement"])
def test_faults_of_no_consequence_leave_the_exact_product(make_chip, encoding, strategy):
    torch.manual_seed(0)
    conv, x = nn.Conv2d(6, 12, 3, groups=6), torch.rand(2, 6, 5, 5)
    chip = chip_with(make_chip, encoding, faults={"stuck_off": 1e-9}, remap=True, flip=True)
    layer = on_chip(chip, conv, x, **{"*": strategy})
    q = layer.integers(x)
    assert torch.equal(layer.multiply(q, layer.read(q, chip, 3)), layer.multiply(q, layer.read(q, chip, IDEAL)))


@pytest.mark.parametrize("encoding", ["offset", "measured", "pair", "two's complement"])
def test_each_switch_takes_some_of_the_error_of_stuck_cells(make_chip, encoding):
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 24), torch.rand(50, 40)
    layer = on_chip(chip_with(make_chip, encoding), linear, x)
    error = {
        (remap, flip): squared_error(layer, x, chip_with(make_chip, encoding, remap=remap, flip=flip))
        for remap in (False, True)
        for flip in (False, True)
    }
    assert error[True, False] < 0.8 * error[False, False]
    assert error[True, True] < 1.02 * error[True, False]
    if encoding in ("measured", "pair"):
        assert error[False, True] < 0.9 * error[False, False]


def test_kernels_keep_to_their_column_tile_where_tiles_differ(make_chip):
    chip = replace(chip_with(make_chip, remap=True), "crossbar.cols=30")  # 10 weight columns
    placement = dense(Matmul("it", "linear", 20, 30), chip)
    q = torch.randint(-32, 32, (1, 20, 30), generator=torch.Generator().manual_seed(0))
    targets = encode(q, placement)
    stuck = stuck_levels(targets.shape, chip.cell, generator=torch.Generator().manual_seed(1))
    free = arrange(targets, stuck, placement).order[0]
    assert sorted(free.tolist()) == list(range(30))
    assert (free.div(10, rounding_mode="floor") != torch.arange(30).div(10, rounding_mode="floor")).any()
    pruned = dataclasses.replace(placement, absent=frozenset({(0, 0, 1)}))
    kept = arrange(targets, stuck, pruned).order[0]
    assert torch.equal(kept.div(10, rounding_mode="floor"), torch.arange(30).div(10, rounding_mode="floor"))
    assert not torch.equal(kept, torch.arange(30))


@pytest.mark.parametrize("encoding", ["measured", "pair"])
def test_faults_of_crossbars_that_are_not_built_move_no_kernel(make_chip, encoding, monkeypatch):
    """Five row tiles, of which only the first is there and has no faults."""
    chip = chip_with(make_chip, encoding, remap=True, flip=True, nearest=True, sigma=0.2, verify=0.3)
    absent = frozenset((0, tile, 0) for tile in range(1, 5))
    placement = dataclasses.replace(dense(Matmul("it", "linear", 80, 10), chip), absent=absent)
    q = torch.randint(-31, 32, (1, 80, 10), generator=torch.Generator().manual_seed(0))
    q[:, 16:] = 0

    def elsewhere(shape, cell, *, generator):
        stuck = stuck_levels(shape, cell, generator=generator)
        stuck[..., :16, :] = -1
        return stuck

    monkeypatch.setattr("bitline.programming.cells.stuck_levels", elsewhere)
    written = program_cells(q, placement, chip.cell, 1)
    assert torch.equal(written.order, torch.arange(10)[None])
    assert not written.turned.any()
    monkeypatch.setattr("bitline.programming.cells.stuck_levels", lambda *_, **__: None)
    assert torch.equal(written.levels, program_cells(q, placement, chip.cell, 1).levels)


def test_the_share_that_is_verified_is_of_cells_that_are_built(make_chip):
    chip = chip_with(make_chip, faults={}, sigma=0.3, verify=0.25, tolerance=0.1)
    placement = dense(Matmul("it", "linear", 160, 20), chip)
    absent = dataclasses.replace(placement, absent=frozenset((0, tile, 0) for tile in range(1, 10)))
    q = torch.randint(-32, 32, (1, 160, 20), generator=torch.Generator().manual_seed(0))
    q[:, 16:] = 0
    unverified = dataclasses.replace(absent, chip=replace(chip, "mitigation.verify=0.0"))
    verified, plain = (program_cells(q, p, chip.cell, 1).levels[..., :16, :] for p in (absent, unverified))
    assert 0.05 < float((verified != plain).double().mean()) < 0.25


def test_the_chip_decides_and_nothing_else(make_chip):
    chip = chip_with(make_chip, remap=True, flip=True, sigma=0.2, verify=0.3)
    placement = dense(Matmul("it", "linear", 20, 30), chip)
    q = torch.randint(-32, 32, (1, 20, 30), generator=torch.Generator().manual_seed(0))
    first, again, other = (program_cells(q, placement, chip.cell, seed) for seed in (1, 1, 2))
    assert torch.equal(first.levels, again.levels)
    assert torch.equal(first.order, again.order)
    assert not torch.equal(first.order, other.order)


def test_nothing_is_drawn_otherwise_where_nothing_is_mitigated(make_chip):
    chip = chip_with(make_chip, sigma=0.2)
    placement = dense(Matmul("it", "linear", 20, 30), chip)
    q = torch.zeros(1, 20, 30)
    from bitline import seeds

    levels = encode(q, placement)
    stuck = stuck_levels(levels.shape, chip.cell, generator=seeds.generator(7, "it", "faults"))
    wanted = effective_levels(levels, stuck, chip.cell, generator=seeds.generator(7, "it", "programming"))
    assert torch.equal(program_cells(q, placement, chip.cell, 7).levels, wanted)


def test_verified_cells_are_close_to_their_level_and_the_share_is_kept(make_chip):
    chip = chip_with(make_chip, faults={}, sigma=0.3, verify=0.25, tolerance=0.1)
    placement = dense(Matmul("it", "linear", 160, 100), chip)
    q = torch.randint(-32, 32, (1, 160, 100), generator=torch.Generator().manual_seed(0))
    written = program_cells(q, placement, chip.cell, 1)
    plain = program_cells(q, dense(placement.matmul, replace(chip, "mitigation.verify=0.0")), chip.cell, 1)
    off = (written.levels - exact_levels(chip.cell)[written.targets.int()]).abs()
    moved = written.levels != plain.levels
    assert float((off[moved] <= 0.1).double().mean()) > 0.999
    # The highest slice has a third of the cells, and those of its highest levels come first.
    assert not moved[:, :, :2].any()
    assert float((off[:, :, 2] <= 0.1).double().mean()) > 0.7
    assert not moved[written.targets == 0].any()


def test_stuck_cells_take_nothing_from_the_share_that_is_verified(make_chip):
    cell = chip_with(make_chip, sigma=0.2).cell
    generator = torch.Generator().manual_seed(0)
    levels = torch.randint(1, 4, (1, 1, 2, 50, 40), generator=generator)
    working = torch.rand(levels.shape, generator=generator) > 0.3
    chosen = most_sensitive(levels, working, 0.4 * levels.numel(), (1, 4), cell, generator=generator)
    assert not chosen[~working].any()
    assert float(chosen.double().mean()) == pytest.approx(0.4, abs=0.02)
    assert chosen[:, :, 1][working[:, :, 1]].all()  # the higher slice's working cells are fewer than the share


def test_verification_takes_some_of_the_error_of_programming_and_moves_no_stuck_cell(make_chip):
    torch.manual_seed(0)
    linear, x = nn.Linear(40, 24), torch.rand(50, 40)
    layer = on_chip(chip_with(make_chip, faults={}, sigma=0.2), linear, x)
    errors = [
        squared_error(layer, x, chip_with(make_chip, faults={}, sigma=0.2, verify=share)) for share in (0.0, 0.25, 1.0)
    ]
    assert errors[1] < 0.5 * errors[0]
    assert errors[2] < 0.5 * errors[1]
    chip = chip_with(make_chip, sigma=0.2, verify=1.0)
    placement = dense(Matmul("it", "linear", 40, 24), chip)
    q = torch.zeros(1, 40, 24)
    plain = program_cells(q, dense(placement.matmul, replace(chip, "mitigation.verify=0.0")), chip.cell, 1)
    stuck = (plain.levels == 3) | (plain.levels == 0)
    assert torch.equal(program_cells(q, placement, chip.cell, 1).levels[stuck], plain.levels[stuck])


def test_a_pair_leaves_the_cells_of_zero_weights_empty_and_free_of_programming_error(make_chip):
    chip = chip_with(make_chip, "pair", faults={}, sigma=0.5)
    placement = dense(Matmul("it", "linear", 40, 24), chip)
    assert not program_cells(torch.zeros(1, 40, 24), placement, chip.cell, 1).levels.any()
    offset = chip_with(make_chip, "offset", faults={}, sigma=0.5)
    placement = dense(Matmul("it", "linear", 40, 24), offset)
    assert program_cells(torch.zeros(1, 40, 24), placement, offset.cell, 1).levels.any()


@torch.no_grad()
def test_ideal_cells_know_of_no_faults(make_chip):
    torch.manual_seed(0)
    linear, x = nn.Linear(20, 30), torch.rand(5, 20)
    layer = on_chip(chip_with(make_chip, remap=True, flip=True, verify=1.0), linear, x)
    assert layer.crossbars(layer.chip, IDEAL).flipped is None


def test_reference_columns_allow_no_flip(make_chip):
    with pytest.raises(ChipError, match=r"mitigation\.flip = true with a reference column"):
        chip_with(make_chip, "column", flip=True)


@pytest.mark.parametrize("nearest", [False, True])
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_the_cost_counts_the_errors_that_stuck_cells_leave(make_chip, rng, encoding, nearest, monkeypatch):
    chip = chip_with(make_chip, encoding, remap=True, nearest=nearest)
    placement = dense(Matmul("it", "linear", 20, 12), chip)
    q = torch.randint(-20, 20, (1, 20, 12), generator=rng)
    targets = encode(q, placement)
    stuck = stuck_levels(targets.shape, chip.cell, generator=rng)
    kernels, cells = targets[0, ..., :12], stuck[0, ..., :12]
    total, power = errors(kernels, cells, placement)
    monkeypatch.setattr(Residuals, "columns_at_once", lambda *_: 5)
    assert torch.equal(errors(kernels, cells, placement)[1], power)

    for column in range(12):
        error = errors_on_column(kernels, cells[..., column, None], placement)
        torch.testing.assert_close(total[:, column], error.sum(0))
        left = error.square().sum(0)
        if encoding == "measured":  # row tiles of 16 and 4
            left = sum(((tile - tile.mean(0)) ** 2).sum(0) for tile in (error[:16], error[16:]))
        torch.testing.assert_close(power[:, column], left)


def errors(kernels, cells, placement):
    tables = residuals(placement.chip)
    return _errors(tables.states_of(cells[None])[0], tables.values_of(kernels[None])[0], placement)


def errors_on_column(kernels, cells, placement):
    chip = placement.chip
    worth = torch.tensor(slice_weights(chip)).double()
    signs = torch.tensor([1.0, -1.0][: chip.sides]).double()
    there = cells.expand(kernels.shape)
    nearest = chip.mitigation.nearest or chip.mitigation.readback
    asked = (
        nearest_levels(kernels[None], there[None], slice_weights(chip), chip.cell.max_level)[0] if nearest else kernels
    )
    wrong = torch.where(there >= 0, there, asked).double() - kernels.double()
    return torch.einsum("ksrc,s,k->rc", wrong, worth, signs)


@pytest.mark.parametrize("switch", ["", "nearest", "readback"])
@pytest.mark.parametrize("encoding", ["offset", "pair", "two's complement"])
def test_no_order_costs_less_than_the_one_found_beside_what_all_kernels_share(make_chip, rng, encoding, switch):
    switches = {"remap": True} | ({switch: True} if switch else {})
    chip = replace(chip_with(make_chip, encoding, **switches), "cell.faults={stuck_off=0.05, stuck_on=0.15}")
    placement = dense(Matmul("it", "linear", 30, 12), chip)
    targets = encode(torch.randint(4, 20, (1, 30, 12), generator=rng), placement)
    stuck = stuck_levels(targets.shape, chip.cell, generator=rng)
    kernels, cells = targets[0], stuck[0]
    found = torch.stack([errors_on_column(kernels, cells[..., column, None], placement) for column in range(12)])
    total, power = found.sum(1).T, found.square().sum(1).T
    moved = total - total.diagonal().mean()
    cost = MEAN_SQUARE[1] * power + MEAN_SQUARE[0] * moved.square()
    best = cost[linear_sum_assignment(cost.numpy())].sum()
    order = arrange(targets, stuck, placement).order[0]
    torch.testing.assert_close(cost.gather(1, order[:, None]).sum(), best)


def test_remapping_for_the_nearest_values_leaves_less_error_than_for_those_asked(make_chip, rng):
    chip = chip_with(make_chip, "pair", nearest=True, remap=True)
    placement = dense(Matmul("it", "linear", 64, 60), chip)
    plain = dense(Matmul("it", "linear", 64, 60), replace(chip, "mitigation.nearest=false"))
    left = {"nearest": 0.0, "asked": 0.0}
    for _ in range(8):
        targets = encode(torch.randint(-31, 32, (1, 64, 60), generator=rng), placement)
        stuck = stuck_levels(targets.shape, chip.cell, generator=rng)
        _, cost = errors(targets[0], stuck[0], placement)
        for name, where in (("nearest", placement), ("asked", plain)):
            order = arrange(targets, stuck, where).order[0]
            left[name] += float(cost.gather(1, order[:, None]).sum())
    assert left["nearest"] < 0.95 * left["asked"]
