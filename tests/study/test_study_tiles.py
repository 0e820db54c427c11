"""One LSB, more and more row tiles: what is predicted is what is measured."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from bitline.chip.description import Chip
from bitline.mapping.encode import encode
from bitline.mapping.lower import Matmul
from bitline.mapping.place import dense
from bitline.mvm.adc import AdcScale
from bitline.mvm.crossbars import Crossbars
from bitline.mvm.product import Product
from bitline.mvm.torch_fast import crossbar_mvm, integer_product
from bitline.study import Plan
from bitline.study.lesson_tiles import exponents
from bitline.study.plan import at_height, variant
from bitline.study.subject import Subject
from bitline.study.tiles import measure, predicted
from study_samples import CHIP, network

ENCODINGS = (
    {"kind": "offset"},
    {"kind": "offset", "sum": "column"},
    {"kind": "pair"},
    {"kind": "pair", "subtract": "digital"},
    {"kind": "twos_complement"},
)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=lambda e: "-".join(e.values()))
@pytest.mark.parametrize("dac_bits", [1, 2])
def test_random_inputs_and_weights_err_as_predicted_in_every_encoding(
    make_chip: Callable[..., Chip], encoding: dict[str, Any], dac_bits: int
):
    """The reference column's errors are common to all columns of a crossbar, hence one column tile a weight column."""
    rng = torch.Generator().manual_seed(1)
    crossbar = {"rows": 64, "cols": 12, "active_rows": 64}
    chip = make_chip(
        weights={"bits": 6, "encoding": encoding}, inputs={"bits": 6}, dac={"bits": dac_bits}, crossbar=crossbar
    )
    placed = dense(Matmul("layer", "linear", 256, 60, 1, 1, 256), chip)
    w = torch.randint(-31, 32, (1, 256, 60), generator=rng)
    crossbars = Crossbars(Product(placed), encode(w, placed))
    x = torch.randint(0, 64, (1, 400, 1, 256), generator=rng)
    lsb = torch.full((1, 1, 1, 1), 4.375, dtype=torch.float64)
    scale = AdcScale(lsb, torch.zeros_like(lsb), None, None)

    error = crossbar_mvm(x, crossbars, scale) - integer_product(x, crossbars)

    assert placed.row_tiles == 4
    assert float(error.square().mean()) == pytest.approx(predicted(scale, crossbars), rel=0.2)


def test_an_lsb_of_one_level_is_predicted_to_err_nothing(make_chip: Callable[..., Chip]):
    placed = dense(Matmul("layer", "linear", 16, 3, 1, 1, 16), make_chip())
    one = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    crossbars = Crossbars(Product(placed), encode(torch.ones(1, 16, 3, dtype=torch.int64), placed))
    assert predicted(AdcScale(one, one * 0, None, None), crossbars) == 0


def test_error_power_of_a_trained_layer_grows_in_proportion_to_its_row_tiles():
    subject = Subject(network(), CHIP, Plan(layer_images=100, calibration_images=100), lambda _: None)
    points = [{"layer": "4", "rows": rows, **measure(subject, "4", rows)} for rows in (16, 32, 64, 128, 256)]
    assert [point["row_tiles"] for point in points] == [16, 8, 4, 2, 1]
    assert len({point["lsb"] for point in points}) == 1
    assert exponents(points)["4"] == pytest.approx(1, abs=0.35)
    for point in points[2:]:
        assert point["power"] == pytest.approx(point["predicted"], rel=0.6)


def test_a_lossless_chip_errs_nothing_and_has_no_exponent():
    chip = variant(CHIP, 128, 4, "full").model_copy(update={"adc": CHIP.adc.model_copy(update={"policy": "lossless"})})
    subject = Subject(network(), chip, Plan(calibration_images=50), lambda _: None)
    points = [{"layer": "4", **measure(subject, "4", rows)} for rows in (32, 64, 128)]
    assert [(point["power"], point["predicted"]) for point in points] == [(0, 0)] * 3
    assert exponents(points) == {}


def test_a_variant_differs_in_height_bits_and_ranges_only():
    chip = variant(CHIP, 64, 6, "column")
    assert (chip.crossbar.rows, chip.crossbar.active_rows, chip.crossbar.cols) == (64, 64, 128)
    assert (chip.adc.bits, chip.adc.policy, chip.adc.granularity) == (6, "calibrated", "column")
    assert variant(chip, 128, 4, "slice_digit") == CHIP
    assert variant(CHIP, 64, 6, "full").adc.policy == "full"
    assert at_height(CHIP, 512).adc == CHIP.adc
    assert math.isclose(chip.cell.g_max, CHIP.cell.g_max)


def test_a_range_in_amperes_and_a_number_of_codes_stay_with_the_adc_they_belong_to():
    from bitline.chip import replace

    fixed = replace(CHIP, "adc.policy=fixed", "adc.range={low=0.0, high='1 mA'}", "adc.levels=11")
    chip = variant(fixed, 64, 3, "layer")
    assert chip.adc.range is None
    assert chip.adc.levels is None
    assert at_height(fixed, 64).adc == fixed.adc
