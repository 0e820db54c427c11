import pytest

from bitline.chip import load, replace
from bitline.cost.circuits import bitline_energy, cell_energy, dac_energy, prices, wire_energy
from bitline.cost.events import mean_conductance
from bitline.cost.sram import sram
from bitline.cost.table import load as load_table
from bitline.cost.table import scale
from bitline.errors import ChipError


def test_a_cell_and_its_transistor_heat_as_in_the_circuit_library(published):
    on = cell_energy(0.4, 1e-6, 10e-9, 20e3)
    off = cell_energy(0.4, 0.1e-6, 10e-9, 20e3)

    assert on == pytest.approx(0.4**2 * 10e-9 / (1 / 1e-6 + 20e3))
    assert on == pytest.approx(published["cell"]["on_fJ"] * 1e-15, rel=0.002)
    assert (on + off) / 2 == pytest.approx(published["cell"]["mean_fJ"] * 1e-15, rel=0.002)


def test_the_mean_conductance_of_one_bit_cells_is_that_of_their_mixture():
    chip = replace(
        load("example-128"), "cell.bits=1", "cell.g_min=0.1 uS", "cell.g_max=1 uS", "cell.access_resistance=20 kohm"
    )
    on, off = 1e-6 / 1.02, 0.1e-6 / 1.002

    for share in (0, 0.25, 0.5, 1):
        assert mean_conductance(chip, share) == pytest.approx(share * on + (1 - share) * off)


def test_the_wordline_energy_of_the_table_is_that_of_the_row_drivers_it_was_fitted_to(published):
    table = load_table("neurosim-22nm")

    for columns, femtojoule in published["row_driver"]["points"]:
        chip = replace(load("rram-22nm"), f"crossbar.cols={columns}")
        assert prices(chip, table, "table", 1e-3).driven_wordline * 1e15 == pytest.approx(femtojoule, rel=0.005)


def test_closed_forms_of_wires_bitlines_and_dacs():
    assert wire_energy(1e-3, 0.2e-9, 1.0) == pytest.approx(0.25 * 2 * 200e-15)
    assert bitline_energy(0.5, 100e-6, 0.2e-9) == pytest.approx(20e-15 * 0.25)
    assert dac_energy(1, 0.9) == 0
    assert dac_energy(4, 0.9) == pytest.approx(50e-15 * 4 * 0.81)


def test_the_wire_model_gives_the_bus_of_isaac(vgg8):
    """54 fJ a bit over a tile of 0.372 mm2, from another source than the wire's capacitance."""
    assert wire_energy(0.372e-6**0.5, 0.2e-9, 1.0) == pytest.approx(54e-15, rel=0.15)


def test_at_its_own_node_an_energy_goes_with_the_square_of_the_supply():
    table, chip = load_table("isaac-32nm"), load("isaac-32nm")

    half = replace(chip, "vdd=0.5 V")

    assert scale(table.adc_energy, chip, table.vdd) == table.adc_energy.si
    assert scale(table.adc_energy, half, table.vdd) == pytest.approx(table.adc_energy.si / 4)
    assert scale(table.adc_area, half, table.vdd) == table.adc_area.si


def test_to_another_node_energies_and_areas_shrink():
    table = load_table("isaac-32nm")
    chip = replace(load("isaac-32nm"), "node=22 nm", "vdd=0.5 V")

    assert scale(table.adc_energy, chip, table.vdd) == pytest.approx(table.adc_energy.si * (22 / 32) ** 1.88)
    assert scale(table.adc_area, chip, table.vdd) == pytest.approx(table.adc_area.si * (22 / 32) ** 2)


def test_a_buffer_of_the_grid_is_the_grid_and_others_lie_between():
    small, between, large = (sram(22e-9, kib, 256) for kib in (16, 24, 32))

    assert small.read == pytest.approx(5.388e-12 / 256)
    assert small.write == pytest.approx(7.839e-12 / 256)
    assert small.leakage == pytest.approx(2.785e-6)
    assert small.area == pytest.approx(0.01415e-6)
    assert large.read == pytest.approx(7.136e-12 / 256)
    assert small.read < between.read < large.read
    assert not small.scaled
    assert sram(28e-9, 16, 256).scaled
    assert sram(22e-9, 1, 64).read == pytest.approx(0.3802e-12 / 64)


@pytest.mark.parametrize("kib", [1, 8192])
def test_a_buffer_outside_the_grid_is_refused(kib):
    with pytest.raises(ChipError, match=f"buffer_kib = {kib}: the SRAM grid covers 2 to 4096 KiB"):
        sram(22e-9, kib, 256)
