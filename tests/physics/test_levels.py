"""Levels to siemens and back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bitline.chip import load
from bitline.chip.cell import Cell
from bitline.physics.levels import effective, level_current, siemens, target


@st.composite
def cells(draw: st.DrawFn) -> Cell:
    g_min = draw(st.one_of(st.just(0.0), st.floats(1e-9, 1e-4)))
    g_max = draw(st.floats(max(1.01 * g_min, 1e-9), 1e-2))
    bits, leak = draw(st.integers(1, 8)), draw(st.sampled_from(["cancelled", "kept"]))
    return Cell(bits=bits, g_min=g_min, g_max=g_max, read_voltage=0.2, leak=leak)


@given(cell=cells())
def test_levels_to_siemens_and_back_are_the_same_levels_plus_the_leak_that_is_kept(cell):
    levels = torch.arange(cell.max_level + 1, dtype=torch.float64)
    g = target(levels, cell)
    torch.testing.assert_close(effective(g, cell), levels + cell.leak_levels, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(siemens(effective(g, cell), cell), g, rtol=1e-12, atol=0)


@given(cell=cells())
def test_the_lowest_level_is_g_min_and_the_highest_g_max(cell):
    assert target(0.0, cell) == cell.g_min
    assert target(float(cell.max_level), cell) == pytest.approx(cell.g_max, rel=1e-12)
    assert effective(cell.zero, cell) == 0
    if cell.leak == "cancelled":
        assert cell.leak_levels == 0
        assert effective(cell.g_min, cell) == 0
        assert effective(cell.g_max, cell) == pytest.approx(cell.max_level, rel=1e-9)


def test_a_full_scale_digit_on_the_highest_level_drives_the_read_voltage_through_the_span_of_a_cell():
    chip = load("rram-22nm")
    span = chip.cell.read_voltage * (chip.cell.g_max - chip.cell.g_min)
    assert level_current(chip) * chip.cell.max_level * (2**chip.dac.bits - 1) == pytest.approx(span, rel=1e-12)
