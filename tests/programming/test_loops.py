"""Loops in C++ draw, decide and sum what tensors do, bit for bit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bitline.chip import Chip
from bitline.mapping.encode import encode, worth
from bitline.mapping.lower import Matmul
from bitline.mapping.place import LayerPlacement, dense
from bitline.mvm.native import _native
from bitline.physics import kernels
from bitline.physics.faults import stuck_levels
from bitline.physics.luck import luck
from bitline.physics.policy import Policy
from bitline.physics.program import effective_levels
from bitline.physics.readback import write_in_turn
from bitline.programming.cells import program_cells
from bitline.programming.remap import _errors
from bitline.programming.residual import residuals

pytestmark = pytest.mark.skipif(_native is None, reason="the native kernels are not built here")
ENCODINGS = [
    {"kind": "offset"},
    {"kind": "offset", "correction": "measured"},
    {"kind": "pair"},
    {"kind": "twos_complement"},
]
PROGRAMMING = [
    "ideal",
    {"kind": "lognormal", "sigma": 0.3, "centred": True},
    {"kind": "gaussian_absolute", "sigma": "5 uS"},
]


def both(made: Callable[[], Any]) -> tuple[Any, Any]:
    """What loops make, and what tensors do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "native", _native)
        loops = made()
        patch.setattr(kernels, "native", None)
        return loops, made()


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def equal(a: Tensor | None, b: Tensor | None) -> bool:
    return a is b if a is None or b is None else a.dtype == b.dtype and a.numpy().tobytes() == b.numpy().tobytes()


@st.composite
def chips(draw: st.DrawFn, make_chip: Callable[..., Chip], **mitigation: object) -> Chip:
    return make_chip(
        cell={
            "bits": draw(st.sampled_from([1, 2, 3])),
            "g_min": draw(st.sampled_from(["0 S", "7 uS"])),
            "leak": draw(st.sampled_from(["cancelled", "kept"])),
            "programming": draw(st.sampled_from(PROGRAMMING)),
            "faults": draw(st.sampled_from([{}, {"stuck_off": 0.1}, {"stuck_off": 0.09, "stuck_on": 0.2}])),
        },
        adc={"policy": "lossless"},
        crossbar={"rows": 16, "cols": 64},
        weights={"bits": draw(st.sampled_from([3, 5, 6])), "encoding": draw(st.sampled_from(ENCODINGS))},
        mitigation=mitigation,
    )


def case(chip: Chip, seed: int, rows: int = 40, cols: int = 70) -> tuple[Tensor, Tensor | None]:
    """Levels of random weights, many of them small, and stuck cells."""
    low, high = (-(2 ** (chip.weights.bits - 1)) + (chip.sides == 2), 2 ** (chip.weights.bits - 1) - 1)
    q = torch.randint(low, high + 1, (2, rows, cols), generator=rng(seed))
    q = torch.where(torch.rand(q.shape, generator=rng(seed + 1)) < 0.3, 0, q)
    levels = encode(q, dense(Matmul("it", "linear", rows, cols, groups=2), chip))
    return levels, stuck_levels(levels.shape, chip.cell, generator=rng(seed + 2))


def errors(levels: Tensor, stuck: Tensor, placement: LayerPlacement) -> tuple[Tensor, Tensor]:
    tables = residuals(placement.chip)
    return _errors(tables.states_of(stuck)[1], tables.values_of(levels)[1], placement)


@pytest.mark.parametrize("shape", [(0,), (1,), (7, 3), (300_001,)])
def test_luck_is_the_same(shape: tuple[int, ...]):
    (first, after), (second, then) = both(lambda: (luck(torch.Size(shape), generator=(g := rng(1))), g.get_state()))
    assert equal(first, second)
    assert equal(after, then)  # so is what is drawn next


@settings(max_examples=60)
@given(st.data(), st.integers(0, 2**32))
def test_what_is_written_is_the_same(make_chip, data, seed):
    chip = data.draw(chips(make_chip))
    levels, stuck = case(chip, seed)
    assert equal(*both(lambda: effective_levels(levels, stuck, chip.cell, generator=rng(seed))))
    turned = levels.transpose(3, 4), stuck if stuck is None else stuck.transpose(3, 4)
    assert equal(*both(lambda: effective_levels(*turned, chip.cell, generator=rng(seed))))


@settings(max_examples=150)
@given(st.data(), st.integers(0, 3), st.integers(0, 2**32))
def test_what_is_written_in_turn_is_the_same(make_chip, data, rewrites, seed):
    chip = data.draw(chips(make_chip))
    levels, stuck = case(chip, seed)
    loops, tensors = both(
        lambda: write_in_turn(levels, stuck, worth(chip), chip.cell, generator=rng(seed), rewrites=rewrites)
    )
    assert loops[2:] == tensors[2:]
    assert equal(loops.asked, tensors.asked)
    assert equal(loops.real, tensors.real)


@pytest.mark.parametrize("worth", [(64, 16, 4, 1), (16, -16, 4, -4, 1, -1), (-32, 8, 1)])
def test_what_is_tabulated_is_the_same(make_chip, worth):
    """Tables are kept: in other tests the first way that asks makes them."""
    cell = make_chip(cell={"programming": PROGRAMMING[1]}).cell

    def made() -> tuple[Tensor, ...]:
        return Policy(worth, cell, 3).all_tables([2 ** len(worth) - 1, 5, 2])

    for loops, tensors in zip(*both(made), strict=True):
        assert equal(loops, tensors)


@settings(max_examples=60)
@given(st.data(), st.booleans(), st.integers(0, 2**32))
def test_sums_of_errors_are_the_same(make_chip, data, mended, seed):
    chip = data.draw(chips(make_chip, remap=True, nearest=mended))
    levels, stuck = case(chip, seed)
    if stuck is None:
        return
    placement = dense(Matmul("it", "linear", 40, 70, groups=2), chip)
    loops, tensors = both(lambda: errors(levels[..., :70], stuck[..., :70], placement))
    assert all(equal(a, b) for a, b in zip(loops, tensors, strict=True))


@pytest.mark.parametrize("encoding", ENCODINGS[:3])
def test_sums_of_errors_of_weights_of_sixteen_bits_are_the_same(make_chip, encoding):
    """Squares beyond 32 bits, and more patterns than a table is made for at once."""
    chip = make_chip(
        weights={"bits": 16, "encoding": encoding},
        cell={"bits": 4, "faults": {"stuck_off": 0.2, "stuck_on": 0.2}},
        mitigation={"remap": True, "nearest": True},
    )
    levels, stuck = case(chip, 3, rows=12, cols=5)
    assert stuck is not None
    placement = dense(Matmul("it", "linear", 12, 5, groups=2), chip)
    loops, tensors = both(lambda: errors(levels, stuck, placement))
    assert float(loops[1].max()) > 2**32
    assert all(equal(a, b) for a, b in zip(loops, tensors, strict=True))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_chip_with_everything_on_is_the_same(make_chip, encoding):
    chip = make_chip(
        weights={"bits": 6, "encoding": encoding},
        cell={"bits": 2, "faults": {"stuck_off": 0.09, "stuck_on": 0.02}, "programming": PROGRAMMING[1]},
        mitigation={"remap": True, "flip": True, "readback": True, "rewrites": 2},
    )
    placement = dense(Matmul("it", "linear", 60, 90), chip)
    q = torch.randint(-31, 32, (1, 60, 90), generator=rng(0))
    loops, tensors = both(lambda: program_cells(q, placement, chip.cell, 5))
    for name in vars(tensors):
        assert equal(getattr(loops, name), getattr(tensors, name)), name
