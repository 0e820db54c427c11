import re
import tomllib

import pytest

from bitline.chip import load, presets
from bitline.chip.files import source


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_a_doi_or_says_that_it_is_made_up(name):
    chip = load(name)
    made_up = any("not a published chip" in deviation for deviation in chip.deviations)
    assert (chip.doi is None) == made_up
    if chip.doi is not None:
        assert re.fullmatch(r"10\.\d{4,9}/\S+", chip.doi)


@pytest.mark.parametrize("name", presets())
def test_every_preset_says_what_it_is_and_where_it_departs_from_its_source(name):
    chip = load(name)
    assert chip.name == name
    assert chip.about
    assert chip.deviations


@pytest.mark.parametrize("name", presets())
def test_the_source_of_a_preset_is_the_file_it_is_read_from(name):
    assert tomllib.loads(source(name))["name"] == name


def test_the_four_presets_are_there():
    assert {"isaac-32nm", "crimp-32nm", "rram-22nm", "example-128"} <= set(presets())


def test_crimp_is_as_published():
    chip = load("crimp-32nm")
    assert (chip.cell.bits, chip.crossbar.rows, chip.crossbar.cols) == (2, 128, 128)
    assert (chip.cell.faults.stuck_off, chip.cell.faults.stuck_on) == (0.0904, 0.0175)
    assert (chip.cell.programming.kind, chip.cell.programming.sigma) == ("lognormal", 0.1)
    assert chip.adc.policy == "lossless"


def test_rram_is_the_published_setting():
    chip = load("rram-22nm")
    assert (chip.cell.bits, chip.crossbar.rows, chip.crossbar.cols) == (2, 128, 128)
    assert (chip.adc.bits, chip.adc.columns_per_adc) == (5, 8)
    assert (chip.weights.bits, chip.inputs.bits, chip.dac.bits) == (8, 8, 1)
    assert chip.cell.g_max / chip.cell.g_min == pytest.approx(100)


def test_isaac_has_eight_cells_a_weight_and_sixteen_weights_a_crossbar():
    chip = load("isaac-32nm")
    assert (chip.slices, chip.weight_columns) == (8, 16)


def test_the_strip_chip_is_the_rram_chip_with_bitline_segments():
    strip, plain = load("strip-22nm"), load("rram-22nm")
    assert strip.crossbar.segment_rows == 9
    assert strip.crossbar.whole == plain.crossbar
    own = {"name", "about", "doi", "deviations", "crossbar"}
    assert strip.model_dump(exclude=own) == plain.model_dump(exclude=own)
