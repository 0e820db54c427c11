from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline import chip as chips
from bitline.mapping.encode import encode, slice_weights
from bitline.mapping.lower import Matmul
from bitline.mapping.place import placed
from bitline.programming.nearest import nearest_levels


def nearest(levels, stuck, placement):
    return nearest_levels(levels, stuck, slice_weights(placement.chip), placement.chip.cell.max_level)


ENCODINGS = ("{kind='offset'}", "{kind='offset', sum='column'}", "{kind='twos_complement'}", "{kind='pair'}")


def placement_of(encoding, bits=4, cell=2):
    overrides = (f"weights.encoding={encoding}", f"weights.bits={bits}", f"cell.bits={cell}")
    return placed(Matmul("layer", "linear", 5, 7), chips.load("example-128", list(overrides)))


def drawn(placement, seed, share=0.3, spread=1.0):
    rng = torch.Generator().manual_seed(seed)
    most = int(spread * (2 ** (placement.chip.weights.bits - 1) - 1))
    q = torch.randint(-most, most + 1, (1, 5, 7), generator=rng)
    levels = encode(q, placement)
    u = torch.rand(levels.shape, generator=rng)
    top = placement.chip.cell.max_level
    stuck = torch.where(u < share / 2, 0, torch.where(u > 1 - share / 2, top, -1)).short()
    return levels, stuck


def values(levels, stuck, placement):
    real = torch.where(stuck >= 0, stuck.long(), levels.long())
    return torch.einsum("gksrc,s->gkrc", real, torch.tensor(slice_weights(placement.chip)))


def errors(levels, stuck, target, placement):
    sides, wanted = values(levels, stuck, placement), values(target, torch.full_like(stuck, -1), placement)
    if placement.chip.sides == 2:
        return ((sides - wanted)[:, 0] - (sides - wanted)[:, 1]).abs()
    return (sides - wanted)[:, 0].abs()


@given(
    encoding=st.sampled_from(ENCODINGS[:3]), bits=st.integers(4, 6), cell=st.integers(1, 3), seed=st.integers(0, 10**6)
)
def test_no_choice_of_the_working_cells_is_nearer(encoding, bits, cell, seed):
    placement = placement_of(encoding, bits, cell)
    levels, stuck = drawn(placement, seed)

    found = errors(nearest(levels, stuck, placement), stuck, levels, placement)

    factors, top = slice_weights(placement.chip), placement.chip.cell.max_level
    for r, c in product(range(2), range(levels.shape[-1])):
        cells = stuck[0, 0, :, r, c].tolist()
        wanted = sum(f * int(level) for f, level in zip(factors, levels[0, 0, :, r, c], strict=True))
        choices = product(*(range(top + 1) if cell < 0 else (cell,) for cell in cells))
        best = min(abs(sum(f * k for f, k in zip(factors, choice, strict=True)) - wanted) for choice in choices)
        assert found[0, r, c] == best


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_errors_of_stuck_cells_shrink_and_none_grows(encoding):
    placement, powers = placement_of(encoding, bits=8), torch.zeros(2)
    for seed in range(10):
        levels, stuck = drawn(placement, seed, share=0.1, spread=0.25)
        before = errors(levels, stuck, levels, placement)
        after = errors(nearest(levels, stuck, placement), stuck, levels, placement)
        assert bool((after <= before).all())
        powers += torch.stack([before.square().sum(), after.square().sum()])
    assert powers[1] < 0.5 * powers[0]


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_weights_without_a_stuck_cell_stay(encoding):
    placement = placement_of(encoding)
    levels, _ = drawn(placement, 0)

    assert torch.equal(nearest(levels, torch.full(levels.shape, -1, dtype=torch.int16), placement), levels)


def test_the_other_cells_stand_in_for_the_highest_one():
    placement = placement_of(ENCODINGS[0], bits=8)
    levels = encode(torch.zeros(1, 5, 7, dtype=torch.int64), placement)  # 128 = 2 x 64
    stuck = torch.full(levels.shape, -1, dtype=torch.int16)
    stuck[:, :, 3] = 0

    assert errors(nearest(levels, stuck, placement), stuck, levels, placement).unique().tolist() == [128 - 63]
