"""Writing in turn against plain recursion, against all that the cells could hold, and against cells written at once."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from bitline.chip.cell import Cell
from bitline.errors import ChipError
from bitline.physics.faults import stuck_levels
from bitline.physics.policy import GAIN, Policy
from bitline.physics.program import effective_levels
from bitline.physics.readback import write_in_turn

pytestmark = pytest.mark.usefixtures("way")
SLICES = torch.tensor([1, 4, 16, 64])
SIDES = {"offset": SLICES[None], "pair": torch.stack([SLICES, -SLICES]), "10 bits": torch.tensor([[1, 4, 16, 64, 256]])}
SMALL = {"offset": SLICES[None, :2], "pair": torch.stack([SLICES[:2], -SLICES[:2]])}


def cell(sigma: float = 0.0, off: float = 0.0, on: float = 0.0, **changes: object) -> Cell:
    programming = {"kind": "lognormal", "sigma": sigma, "centred": True} if sigma else {"kind": "ideal"}
    record = {"bits": 2, "g_min": 0.0, "g_max": 1e-4, "read_voltage": 0.2, "programming": programming, **changes}
    return Cell.model_validate({**record, "faults": {"stuck_off": off, "stuck_on": on}})


def levels_of(worth: Tensor, rows: int = 64, cols: int = 32, seed: int = 0) -> Tensor:
    """Levels of random weights, each on the side of its sign."""
    most = 4 ** worth.shape[1] // len(worth) - 1
    q = torch.randint(-most if len(worth) == 2 else 0, most + 1, (1, rows, cols), generator=rng(seed))
    sides = [q.clamp(min=0), (-q).clamp(min=0)][: len(worth)]
    return torch.stack([torch.stack([side >> 2 * s & 3 for s in range(worth.shape[1])], 1) for side in sides], 1).byte()


def rng(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def value(levels: Tensor, worth: Tensor) -> Tensor:
    return torch.einsum("gksrc,ks->grc", levels.double(), worth.double())


def faults(levels: Tensor, of: Cell) -> Tensor | None:
    return stuck_levels(levels.shape, of, generator=rng(1))


@pytest.mark.parametrize("encoding", SIDES)
def test_cells_without_error_take_the_levels_that_the_weight_has(encoding):
    levels = levels_of(SIDES[encoding])
    asked, real, *counts = write_in_turn(levels, None, SIDES[encoding], cell(), generator=rng(2), rewrites=2)
    assert counts == [int(levels.count_nonzero()), 0]
    assert asked.equal(levels)
    assert real.dtype == torch.uint8
    assert real.equal(levels)


@pytest.mark.parametrize("encoding", SMALL)
def test_around_stuck_cells_no_choice_of_levels_is_nearer(encoding):
    worth = SMALL[encoding]
    levels, broken = levels_of(worth, rows=20, cols=10), cell(off=0.2, on=0.2)
    stuck = faults(levels, broken)
    assert stuck is not None
    asked, real, *_ = write_in_turn(levels, stuck, worth, broken, generator=rng(2))
    assert real.short().equal(torch.where(stuck >= 0, stuck, asked.short()))
    assert asked[stuck >= 0].equal(levels[stuck >= 0])
    found, wanted = value(real, worth), value(levels, worth)
    for r, c in product(range(20), range(10)):
        cells = stuck[0, :, :, r, c].flatten().tolist()
        reachable = product(*(range(4) if state < 0 else (state,) for state in cells))
        best = min(
            abs(sum(w * level for w, level in zip(worth.flatten().tolist(), choice, strict=True)) - wanted[0, r, c])
            for choice in reachable
        )
        assert abs(found[0, r, c] - wanted[0, r, c]) == best


@pytest.mark.parametrize("rewrites", [0, 1, 2])
@pytest.mark.parametrize("leak", [{}, {"leak": "kept", "g_min": 7e-6}])
@pytest.mark.parametrize("worth", [(4, 1), (4, -4), (1, -1)])
def test_the_tabulated_square_error_is_that_of_a_plain_recursion(worth, leak, rewrites):
    policy = Policy(worth, cell(0.3, **leak), rewrites + 1)
    outcomes, shares = policy.samples.tolist(), policy.shares.tolist()

    def least(first: int, remainder: float, tries: int) -> float:
        if first == len(worth):
            return remainder**2
        again = least(first, remainder, tries - 1) + GAIN if tries > 1 else math.inf
        means = (
            sum(
                p * min(least(first + 1, remainder - worth[first] * reached, rewrites + 1), again)
                for p, reached in zip(shares, level, strict=True)
            )
            for level in outcomes
        )
        return min(means)

    left, _ = policy.table(0, 3, rewrites + 1)
    middle = (len(left) - 1) // 2
    for steps in (-19, -8, 0, 1, 2, 11, 23):
        remainder = steps * policy.edges[0] / middle
        # tables are straight between two remainders, where what is least has curves and corners
        assert float(left[middle + steps]) == pytest.approx(least(0, remainder, rewrites + 1), rel=0.03, abs=0.05)


@pytest.mark.parametrize(
    ("sigma", "encoding", "gain"), [(0.1, "pair", 30), (0.5, "pair", 3), (0.1, "offset", 4), (0.1, "10 bits", 4)]
)
def test_what_is_left_is_what_the_table_expects_and_far_less_than_at_once(sigma, encoding, gain):
    worth, varying = SIDES[encoding], cell(sigma)
    levels = levels_of(worth, rows=400, cols=100)
    asked, real, *_ = write_in_turn(levels, None, worth, varying, generator=rng(2))
    at_once = effective_levels(levels, None, varying, generator=rng(2))
    wanted = value(levels, worth)
    left = (value(real, worth) - wanted).square()
    assert gain * left.mean() < (value(at_once, worth) - wanted).square().mean()
    same = asked == levels
    assert real[same].equal(at_once[same])  # a cell has the same luck either way

    order = torch.argsort(-worth.flatten().abs(), stable=True)
    policy = Policy(tuple(worth.flatten()[order].tolist()), varying)
    table = policy.table(0, 2 ** worth.numel() - 1, 1)[0]
    middle = (len(table) - 1) // 2
    expected = table[(middle + wanted.abs() / policy.edges[0] * middle).round().long()]
    spread = float(left.std()) / left.numel() ** 0.5
    assert abs(float(left.mean() - expected.mean())) < 4 * spread + 0.06 * float(expected.mean())  # 6 %: of the bins


@pytest.mark.parametrize("encoding", ["pair", "offset"])
@pytest.mark.parametrize("off", [0.0, 0.1])
def test_what_rewriting_leaves_and_the_writes_it_takes_are_what_the_tables_expect(encoding, off):
    worth, varying, rewrites = SIDES[encoding], cell(0.5, off=off), 2
    levels = levels_of(worth, rows=600, cols=200)
    stuck = faults(levels, varying)
    once = write_in_turn(levels, stuck, worth, varying, generator=rng(2))
    real, again = write_in_turn(levels, stuck, worth, varying, generator=rng(2), rewrites=rewrites)[1::2]
    wanted = value(levels, worth)
    left, before = ((value(x, worth) - wanted).square() for x in (real, once.real))
    assert once.rewrites == 0
    assert 0 < GAIN * again < float((before - left).sum())

    if len(worth) == 2:  # the side that the weight is on comes first
        wanted = wanted.abs()
        negative = (levels[:, 1:] != 0).any(2, keepdim=True)
        stuck = stuck if stuck is None else torch.where(negative, stuck.flip(1), stuck)
    order = torch.argsort(-worth.flatten().abs(), stable=True)
    policy = Policy(tuple(worth.flatten()[order].tolist()), varying, rewrites + 1)
    works = (
        torch.ones(wanted.shape + order.shape)
        if stuck is None
        else (stuck < 0).flatten(1, 2).movedim(1, -1)[..., order]
    )
    patterns = (works.long() << torch.arange(len(order))).sum(-1).int()
    fixed = torch.zeros(()) if stuck is None else value(stuck.clamp(min=0), worth)  # stuck off: nothing
    expected = policy.left(0, patterns.flatten(), (wanted - fixed).float().flatten(), rewrites + 1)
    spent = float(left.mean()) + GAIN * again / left.numel()
    spread = float(left.std()) / left.numel() ** 0.5
    assert abs(spent - float(expected.mean())) < 4 * spread + 0.04 * float(expected.mean())  # 4 %: of the bins


def test_every_cell_holds_what_one_of_its_writes_of_the_level_asked_for_has_reached():
    worth, varying = SIDES["pair"], cell(0.5)
    levels = levels_of(worth)
    levels[:, 1] = 0  # on one side, so that writes are in the order of their luck
    asked, real, writes, rewrites = write_in_turn(levels, None, worth, varying, generator=rng(2), rewrites=2)
    same = rng(2)
    attempts = [effective_levels(asked, None, varying, generator=same) for _ in range(3)]
    assert torch.stack([real == reached for reached in attempts]).any(0).all()
    again = real != attempts[0]
    assert 0 < int(again.sum()) <= rewrites < writes


def test_a_cell_is_not_written_again_for_less_than_the_gain():
    """Of one cell, what is left is the square of what is missing."""
    policy = Policy((4,), cell(0.5), 2)
    wanted = torch.linspace(0.5, 12, 400).repeat(50)
    working = torch.ones(len(wanted), dtype=torch.int32)
    luck = [torch.randint(-(2**15), 2**15, wanted.shape, generator=rng(k)).short() for k in range(2)]
    once, again = (policy.write(0, working, wanted, luck[:tries]) for tries in (1, 2))
    gain = (wanted - 4 * once.real).square() - policy.left(0, working, wanted, 1)
    rewritten = again.real != once.real
    assert not rewritten[gain < GAIN - 0.05].any()
    assert rewritten[gain > GAIN + 0.05].float().mean() > 0.95  # some reach the same level again
    assert ((gain > 0.2) & (gain < GAIN - 0.05)).any()
    assert ((again.asked == 0) & (once.asked > 0)).sum() > 20  # which is a write, too
    assert again.rewrites == pytest.approx(int((gain > GAIN).sum()), abs=5)


@pytest.mark.parametrize("encoding", SIDES)
def test_cells_that_cannot_err_are_not_written_again(encoding):
    worth, exact = SIDES[encoding], cell(off=0.1, on=0.1, leak="kept", g_min=7e-6)
    levels = levels_of(worth, rows=600, cols=100)
    once, again = (
        write_in_turn(levels, faults(levels, exact), worth, exact, generator=rng(2), rewrites=rewrites)
        for rewrites in (0, 2)
    )
    assert again.rewrites == 0
    assert again.real.equal(once.real)


@pytest.mark.parametrize("rewrites", [0, 2])
def test_errors_of_a_pair_favour_no_sign(rewrites):
    worth, varying = SIDES["pair"], cell(0.5)
    levels = levels_of(worth, rows=400, cols=100)
    errors = [
        value(write_in_turn(x, None, worth, varying, generator=rng(seed), rewrites=rewrites).real, worth)
        - value(x, worth)
        for seed, x in enumerate((levels, levels.flip(1)))
    ]
    both = torch.cat(errors)
    assert abs(float(both.mean())) < 4 * float(both.std()) / both.numel() ** 0.5


def test_stuck_cells_and_errors_together_leave_less_than_either_way_at_once():
    worth, bad = SIDES["pair"], cell(0.1, off=0.09, on=0.0175)
    levels = levels_of(worth, rows=200)
    stuck = faults(levels, bad)
    assert stuck is not None
    real = write_in_turn(levels, stuck, worth, bad, generator=rng(2)).real
    at_once = effective_levels(levels, stuck, bad, generator=rng(2))
    left, before = ((value(x, worth) - value(levels, worth)).square().mean() for x in (real, at_once))
    assert 5 * left < before
    assert real[stuck >= 0].equal(stuck[stuck >= 0].float())


def test_a_kept_leak_is_part_of_what_is_wanted():
    leaky = cell(0.05, g_min=1e-5, leak="kept")
    levels = levels_of(SIDES["offset"])
    real = write_in_turn(levels, None, SIDES["offset"], leaky, generator=rng(2)).real
    leak = 1e-5 / leaky.step * float(SLICES.sum())
    assert float((value(real, SIDES["offset"]) - value(levels, SIDES["offset"])).mean()) == pytest.approx(
        leak, rel=0.05
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mitigation": {"readback": True, "verify": 0.5}}, "mitigation.verify = 0.5 with readback = true"),
        ({"mitigation": {"rewrites": 1}}, "mitigation.rewrites = 1 with readback = false"),
        (
            {"mitigation": {"readback": True}, "weights": {"encoding": {"kind": "offset", "correction": "expected"}}},
            'mitigation.readback = true with correction = "expected"',
        ),
        (
            {"mitigation": {"readback": True}, "weights": {"bits": 8, "slices": 7}, "cell": {"bits": 3}},
            "rewrites = 0 with 7 cells a weight that add up to 2097151: .*; use fewer weights.bits or cells of more",
        ),
        (
            {
                "mitigation": {"readback": True, "rewrites": 4},
                "weights": {"encoding": "pair", "bits": 8},
                "cell": {"bits": 1},
            },
            "rewrites = 4 with 14 cells a weight that add up to 254: .*; use fewer rewrites, fewer weights.bits",
        ),
    ],
)
def test_what_does_not_go_with_reading_back_is_refused(make_chip, changes, message):
    with pytest.raises(ChipError, match=message):
        make_chip(**changes)


def test_tables_made_between_are_found_with_all_others():
    first, fresh = (Policy((1, 4, 16), cell(0.3), 2) for _ in range(2))
    first.all_tables([7])
    first.table(0, 5, 1)  # as one weight, or a run that was interrupted, leaves it
    got, expected = first.all_tables([5]), fresh.all_tables([7, 5])
    for tries, k in ((1, 0), (0, 0)):
        at, wanted = int(got[2][tries, k, 5]), int(expected[2][tries, k, 5])
        assert at > 0
        size = len(first.table(k, 5, tries + 1)[0])
        assert torch.equal(got[0][at : at + size], expected[0][wanted : wanted + size])
