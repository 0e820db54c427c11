"""What memory keeps of cells gives back their levels."""

import pytest
import torch

from bitline.physics.program import effective_levels, written_levels
from bitline.physics.steps import RESOLUTION, in_levels, keep


def test_whole_levels_stay_bytes():
    levels = torch.arange(256, dtype=torch.uint8)

    assert in_levels(keep(levels)) is levels


def test_multiples_of_the_resolution_take_two_bytes_and_come_back_as_they_were():
    levels = torch.arange(-(2**15) + 1, 2**15) * RESOLUTION

    kept = keep(levels)

    assert kept.dtype == torch.int16
    assert in_levels(kept).dtype == torch.float32
    assert torch.equal(in_levels(kept), levels)


@pytest.mark.parametrize("far", [2**15 * RESOLUTION, -(2**15) * RESOLUTION])
def test_what_16_bits_do_not_hold_stays_as_it_is(far):
    levels = torch.tensor([0.5, far])

    assert keep(levels).dtype == torch.float32
    assert torch.equal(in_levels(keep(levels)), levels)


@pytest.mark.parametrize(("bits", "sigma", "kept"), [(2, 0.1, torch.int16), (8, 1.0, torch.float32)])
def test_written_cells_are_kept_in_the_type_that_holds_every_outcome(make_chip, bits, sigma, kept):
    cell = make_chip(cell={"bits": bits, "programming": {"kind": "lognormal", "sigma": sigma}}).cell
    levels = torch.randint(0, 2**bits, (50, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stuck = torch.full(levels.shape, -1, dtype=torch.int16)
    stuck[::7] = cell.max_level

    written = written_levels(levels, stuck, cell, generator=torch.Generator().manual_seed(1))
    real = effective_levels(levels, stuck, cell, generator=torch.Generator().manual_seed(1))

    assert written.dtype == kept
    assert torch.equal(in_levels(written), real)
    assert bool((real[::7] == cell.max_level).all())
