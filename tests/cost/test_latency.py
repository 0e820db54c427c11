import pytest

from bitline.chip import load, replace
from bitline.cost.model import price
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place

LAYER = Matmul("m", "conv2d", 256, 32, positions=10, inputs=1000)


def parts(preset: str, *overrides: str) -> dict[str, float]:
    return price(place([LAYER], replace(load(preset), *overrides))).latency_parts


def test_sample_and_hold_hides_conversions_behind_the_next_read():
    assert parts("crimp-32nm")["read"] == pytest.approx(10 * 8 * 100e-9)


def test_a_slow_adc_sets_the_pace_of_held_reads():
    assert parts("crimp-32nm", "adc.sample_rate=0.64 GHz")["read"] == pytest.approx(10 * 8 * 200e-9)


def test_without_it_every_column_of_an_adc_reads_again():
    assert parts("rram-22nm")["read"] == pytest.approx(10 * 8 * 8 * 2.05141e-9)
    own = parts("rram-22nm", "adc.model=isaac")["read"]
    assert own == pytest.approx(10 * 8 * 8 * (2.05141e-9 + 1 / 1.28e9))


def test_row_tiles_of_one_crossbar_are_read_one_after_the_other():
    assert parts("crimp-32nm", "crossbar.active_rows=32")["read"] == pytest.approx(10 * 8 * 4 * 100e-9)


def test_transfers_that_reads_hide_take_no_time_and_others_do():
    hidden = parts("crimp-32nm")
    narrow = parts("crimp-32nm", "system.bus_bits=1")

    assert hidden["transfer"] == 0
    # 256 inputs of 8 bits and 32 sums of 23 bits (255 x 255 x 85) over one wire at 1 GHz, less the time of eight reads.
    assert narrow["transfer"] == pytest.approx(10 * ((256 * 8 + 32 * 23) * 1e-9 - 800e-9))


def test_the_adder_tree_adds_its_stages_once():
    assert parts("crimp-32nm")["merge"] == pytest.approx(2e-9)
