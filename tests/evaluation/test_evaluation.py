"""An evaluation says what it claims: paired seeds, causes that add up, parts that sum, no trace of the batch size."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from digits_samples import digits, network, printed

from bitline import chip as chips
from bitline.errors import ChipError, DataError
from bitline.evaluation import Evaluation, Settings, accuracy, assess, cheapest, load, put_on_chip, stages, sweep
from bitline.evaluation.on_chip import calibration_batches
from bitline.report import html
from evaluation_files import check

CHIP = chips.load("example-128", ["adc.bits=4", "cell.programming.sigma=0.1"])
SETTINGS = Settings(chips=3, cause_chips=2, images=100, calibration_images=100, diagnose_images=4)


@cache
def evaluated() -> Evaluation:
    return assess(network(), digits(), CHIP, SETTINGS, name="small")


def test_the_losses_by_cause_add_up_to_the_whole_loss_on_the_same_chips():
    result = evaluated()
    same_chips = result.accuracy.chips[: SETTINGS.cause_chips]
    lost = result.accuracy.float - sum(same_chips) / len(same_chips)
    assert math.isclose(sum(loss.points for loss in result.causes), lost, abs_tol=1e-9)
    assert [loss.cause for loss in result.causes] == ["quantization", "adc", "programming", "faults", "read_noise"]
    assert lost > 1, "the chip spoils nothing, so this test shows nothing"


def test_mean_spread_and_worst_are_those_of_the_chips():
    accuracies = evaluated().accuracy
    values = torch.tensor(accuracies.chips, dtype=torch.float64)
    assert len(values) == SETTINGS.chips
    assert math.isclose(accuracies.mean, float(values.mean()))
    assert math.isclose(accuracies.std, float(values.std()))
    assert accuracies.worst == float(values.min())


def test_cost_parts_and_layers_sum_to_the_total():
    result = evaluated()
    total = result.cost.energy_J
    assert math.isclose(sum(result.cost.energy_parts.values()), total, rel_tol=1e-9)
    assert math.isclose(sum(layer.energy_J for layer in result.layers), total, rel_tol=1e-9)
    assert math.isclose(sum(result.cost.area_parts.values()), result.cost.area_m2, rel_tol=1e-9)


def test_each_layer_has_its_statistics_and_one_error_part_a_cause():
    result = evaluated()
    causes = {"quantization", "adc", "programming", "faults", "read_noise"}
    for layer in result.layers:
        assert set(layer.error_parts) == causes
        assert all(part >= 0 for part in layer.error_parts.values())
        assert 0 <= layer.adc_clip_fraction <= 1
        assert layer.partial_sum_sqnr_dB > 0
        assert sum(layer.partial_sums.counts) > 0
        assert len(layer.partial_sums.counts) <= 96


def test_the_histogram_counts_every_conversion_of_the_images_looked_at():
    for layer in evaluated().layers:
        assert sum(layer.partial_sums.counts) == SETTINGS.diagnose_images * layer.conversions


def test_an_evaluation_is_repeatable_with_another_batch_size():
    first = evaluated()
    other = assess(network(), digits(), CHIP, replace(SETTINGS, batch_size=7), name="small")
    assert first.accuracy == other.accuracy
    assert first.causes == other.causes


def test_its_file_fits_the_schema_and_shows_as_what_was_just_evaluated(tmp_path):
    content = check(evaluated(), tmp_path)
    assert list(content)[:4] == ["format", "bitline", "commit", "chip"]
    read = load(tmp_path / "checked.json")
    assert html.render(read) == html.render(evaluated())
    assert printed(read) == printed(evaluated())


def test_a_figure_that_is_not_finite_is_refused_and_named(monkeypatch):
    from bitline.evaluation import on_chip

    price = on_chip.price
    monkeypatch.setattr(on_chip, "price", lambda *a, **k: replace(price(*a, **k), energy_J=math.inf))
    settings = replace(SETTINGS, chips=0, images=10)
    with pytest.raises(DataError, match="small on example-128: energy_J = inf: input should be a finite number"):
        assess(network(), digits(), CHIP, settings, name="small")


def test_the_model_given_is_not_changed():
    before = {name: tensor.clone() for name, tensor in network().state_dict().items()}
    evaluated()
    assert all(torch.equal(before[name], tensor) for name, tensor in network().state_dict().items())


def test_a_chip_without_departures_answers_as_ideal_integers_do():
    ideal = chips.replace(
        CHIP,
        "adc.policy=lossless",
        "cell.programming={kind='ideal'}",
        "cell.read_noise={kind='none'}",
        "cell.faults={stuck_off=0.0, stuck_on=0.0}",
    )
    result = assess(network(), digits(), ideal, SETTINGS)
    assert [loss.cause for loss in result.causes] == ["quantization", "adc"]
    assert set(result.accuracy.chips) == {result.accuracy.ideal_integer}
    assert result.causes[1].points == 0
    for layer in result.layers:
        assert layer.error_parts["adc"] == 0
        assert layer.partial_sum_sqnr_dB is None
        assert layer.adc_clip_fraction == 0


def test_stages_end_with_the_chip_itself():
    assert stages(CHIP)[-1].chip == CHIP
    assert [stage.seeded for stage in stages(CHIP)] == [False, False, True, True, True]


def test_zero_chips_leave_out_what_they_would_have_shown():
    result = assess(network(), digits(), CHIP, replace(SETTINGS, chips=0))
    assert result.accuracy.chips == ()
    assert result.accuracy.mean is None
    assert "mean" not in result.to_json()["accuracy"]
    assert [loss.cause for loss in result.causes] == ["quantization", "adc"]


def test_more_adc_bits_cost_more_and_lose_less():
    on_chip = put_on_chip(network(), digits(), CHIP, Settings(chips=2, images=100, calibration_images=100))
    rows = sweep(on_chip, CHIP, [["adc.bits=2"], ["adc.bits=7"], ["crossbar.rows=16", "crossbar.active_rows=16"]])
    assert rows[0].mean < rows[1].mean
    assert rows[0].energy_J < rows[1].energy_J
    assert rows[2].conversions > rows[1].conversions
    assert cheapest(rows, within=0.0).mean == max(row.mean for row in rows)
    assert cheapest(rows, within=100.0).energy_J == min(row.energy_J for row in rows)


def test_sweeping_back_and_forth_gives_the_same_rows():
    on_chip = put_on_chip(network(), digits(), CHIP, Settings(chips=1, images=50, calibration_images=50))
    keys = ["crossbar.rows=64", "crossbar.active_rows=64"]
    first, _, again = sweep(on_chip, CHIP, [keys, ["adc.bits=3"], keys])
    assert first == again


def test_accuracy_does_not_depend_on_the_batch_size():
    assert accuracy(network(), digits(), batch_size=3, images=50) == accuracy(network(), digits(), images=50)


@pytest.mark.parametrize("key", ["batch_size", "calibration_images", "cause_chips"])
def test_settings_that_make_no_sense_are_refused(key: str):
    with pytest.raises(DataError, match=f"{key} is 0; allowed: 1 or more"):
        Settings(**{key: 0})


def test_where_there_are_fewer_training_images_than_by_default_all_set_the_ranges_and_it_says_so(caplog):
    few = replace(digits(), train_images=digits().train_images[:70], train_labels=digits().train_labels[:70])
    with caplog.at_level("INFO", logger="bitline"):
        batches = calibration_batches(few, Settings())
    assert sum(map(len, batches)) == 70
    assert "all 70 training images set the ranges, not 256" in caplog.text
    with pytest.raises(DataError, match="calibration_images is 71; allowed: 1 to 70"):
        calibration_batches(few, Settings(calibration_images=71))


def test_a_sweep_over_an_unknown_key_is_refused():
    on_chip = put_on_chip(network(), digits(), CHIP, Settings(chips=1, images=10, calibration_images=10))
    with pytest.raises(ChipError, match="did you mean 'bits'"):
        sweep(on_chip, CHIP, [["adc.bit=3"]])
