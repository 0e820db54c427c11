"""A study measures what `evaluate` measures, and goes on where it was killed."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bitline import chip as chips
from bitline.chip.variants import ideal, with_cells
from bitline.differences import differences
from bitline.errors import ChipError, DataError
from bitline.evaluation import put_on_chip, sweep
from bitline.nn import crossbar_layers
from bitline.nn.range_training import save_ranges
from bitline.report import study_tables
from bitline.study import Plan, Runs, grid, layers, partial_sums, training
from bitline.study.record import Record
from bitline.study.runs import chip_for
from bitline.study.subject import Subject
from study_samples import CHIP, network

PLAN = Plan(
    chips=2,
    images=60,
    calibration_images=60,
    layer_images=4,
    tile_rows=(64, 128, 256),
    rows=(64, 128),
    bits=(3, 5),
    ranges=("full", "slice_digit"),
)
RUNS = Runs(network())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return partial_sums(RUNS, CHIP, PLAN, tmp_path_factory.mktemp("study") / "study.json")


def test_every_point_asked_for_is_measured_once(whole: dict[str, Any]):
    assert [point["layer"] for point in whole["layers"]] == ["0", "4", "6"]
    assert [(point["layer"], point["rows"]) for point in whole["tiles"]] == [
        (name, rows) for name in ("0", "4", "6") for rows in (64, 128, 256)
    ]
    assert len(whole["grid"]) == 8
    assert [point["training"] for point in whole["training"]] == ["unaware"]
    assert whole["finished"]
    assert whole["findings"]
    assert whole["not_measured"] == [
        "lesson 3, quantization-aware training: no run was given",
        "lesson 3, partial-sum-aware training: no run was given",
    ]


def test_the_grid_says_what_a_sweep_over_the_same_chips_says(whole: dict[str, Any]):
    on_chip = put_on_chip(network().model, network().data, CHIP, PLAN.settings)
    keys = ["crossbar.rows=64", "crossbar.active_rows=64", "adc.bits=3", "adc.granularity=slice_digit"]
    row = sweep(on_chip, CHIP, [keys])[0].model_dump(mode="json")
    point = next(p for p in whole["grid"] if (p["rows"], p["bits"], p["ranges"]) == (64, 3, "slice_digit"))
    for key in ("chips", "mean", "std", "worst", "energy_J", "latency_s", "area_m2", "conversions", "crossbars"):
        assert point[key] == row[key], key


def test_layers_that_are_all_exact_lose_nothing(whole: dict[str, Any]):
    exact = whole["training"][0]["ideal_integer"]
    assert exact > 85, "the network is no good, so this test shows nothing"
    assert Subject(network(), CHIP, PLAN, lambda _: None).alone("4", ideal(CHIP), -1) == exact


def test_adc_and_programming_error_together_leave_less_than_either_alone(whole: dict[str, Any]):
    for layer in whole["layers"]:
        sqnr = layer["sqnr_dB"]
        assert sqnr["both"] < min(sqnr["adc"], sqnr["programming"]) + 0.3


def test_cells_that_cannot_err_have_no_programming_error_to_measure():
    chip = with_cells(CHIP)
    subject = Subject(network(), chip, PLAN, lambda _: None)
    found = layers.measure(subject, "4")
    assert set(found["sqnr_dB"]) == {"adc"}
    assert found["alone"]["chips"] == []


def test_a_layer_alone_leaves_the_network_on_its_chip():
    subject = Subject(network(), CHIP, PLAN, lambda _: None)
    before = subject.accuracies(CHIP)
    subject.alone("0", CHIP, 0)
    assert subject.accuracies(CHIP) == before


class Killed(BaseException):
    """What no handler catches."""


def killed_after(points: int, monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Run the study until so many points are written."""
    left, add = points, Record.add

    def count(self: Record, lesson: str, point: dict[str, Any]) -> None:
        nonlocal left
        if left == 0:
            raise Killed
        left -= 1
        add(self, lesson, point)

    with monkeypatch.context() as patch:
        patch.setattr(Record, "add", count)
        with pytest.raises(Killed):
            partial_sums(RUNS, CHIP, PLAN, path, resume=True)


def test_a_killed_study_goes_on_where_it_was_and_ends_as_if_it_had_not_been(
    whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "study.json"
    killed_after(7, monkeypatch, path)
    kept = json.loads(path.read_text())
    assert "finished" not in kept
    killed_after(9, monkeypatch, path)
    assert json.loads(path.read_text())["tiles"][:2] == kept["tiles"][:2]
    found = partial_sums(RUNS, CHIP, PLAN, path, resume=True)
    assert found == whole == json.loads(path.read_text())
    assert [entry.name for entry in tmp_path.iterdir()] == ["study.json"]


def test_a_finished_study_is_not_measured_again(whole: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(whole))
    monkeypatch.setattr("bitline.study.subject.put_on_chip", lambda *_: pytest.fail("measured again"))
    assert partial_sums(RUNS, CHIP, PLAN, path, resume=True) == whole


def test_a_study_that_exists_is_neither_overwritten_nor_mixed_with_other_settings(
    whole: dict[str, Any], tmp_path: Path
):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(whole))
    with pytest.raises(DataError, match=r"study\.json holds a finished study; add --resume to go on with it"):
        partial_sums(RUNS, CHIP, PLAN, path)
    with pytest.raises(DataError, match=r"with other settings: images 50 \(was 60\); bits \[3\] \(was \[3, 5\]\)"):
        partial_sums(RUNS, CHIP, replace(PLAN, images=50, bits=(3,)), path, resume=True)
    with pytest.raises(DataError, match=r"chip\.adc\.bits 5 \(was 4\)"):
        partial_sums(RUNS, chips.replace(CHIP, "adc.bits=5"), PLAN, path, resume=True)
    with pytest.raises(DataError, match=r"weights\.partial-sum-aware 'abc' \(was None\)"):
        partial_sums(Runs(network(), None, replace(network(), digest="abc")), CHIP, PLAN, path, resume=True)
    assert json.loads(path.read_text()) == whole
    path.write_text('{"study": "sweep"}')
    with pytest.raises(DataError, match="is no study of partial sums"):
        partial_sums(RUNS, CHIP, PLAN, path, resume=True)
    path.write_text('{"study": "partial')
    with pytest.raises(DataError, match="cannot read"):
        partial_sums(RUNS, CHIP, PLAN, path, resume=True)


def test_batch_size_and_progress_are_no_settings_of_the_result():
    assert differences(replace(PLAN, batch_size=3, progress=True).decides, PLAN.decides) == []


def test_a_grid_with_an_impossible_chip_is_refused_before_anything_is_measured(tmp_path: Path):
    chip = chips.replace(CHIP, "adc.model=survey")
    with pytest.raises(ChipError, match="holds for 4 to 12 bits"):
        grid.check(Subject(network(), chip, PLAN, lambda _: None))
    with pytest.raises(ChipError):
        partial_sums(RUNS, chip, PLAN, tmp_path / "study.json")
    assert not (tmp_path / "study.json").exists()


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bits": (0,)}, "bits has 0; allowed: 1 to 12"),
        ({"rows": (64, -1)}, "rows has -1"),
        ({"ranges": ("fall",)}, "ranges has 'fall'; allowed: full, layer, slice, slice_digit, column"),
        ({"layer_images": 0}, "layer_images is 0; allowed: 1 or more"),
        ({"chips": -1}, "chips is -1; allowed: 0 or more"),
    ],
)
def test_plans_that_make_no_sense_are_refused(wrong: dict[str, Any], words: str):
    with pytest.raises(DataError, match=words):
        Plan(**wrong)


def test_more_images_than_there_are_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="images is 100000; allowed: 1 to 355"):
        partial_sums(RUNS, CHIP, replace(PLAN, images=100000), tmp_path / "study.json")


def test_values_given_twice_are_measured_once():
    assert replace(PLAN, rows=(64, 64, 128)).rows == (64, 128)


def test_without_chips_ideal_cells_are_all_there_is(tmp_path: Path):
    plan = replace(PLAN, chips=0, rows=(64,), bits=(4,), ranges=("full",), tile_rows=())
    found = partial_sums(RUNS, CHIP, plan, tmp_path / "study.json")
    assert found["grid"][0]["chips"] == []
    assert "mean" not in found["grid"][0]
    assert "programmed chips: none was asked for" in found["not_measured"]
    assert "lesson 1, row tiles at one LSB: no numbers of rows were given" in found["not_measured"]


def test_trained_ranges_bring_their_policy_and_refuse_another_chip():
    ranges = Path("ranges.safetensors")
    adc = CHIP.adc.model_copy(update={"policy": "trained", "granularity": "column"})
    other = replace(network(), ranges=ranges, chip=CHIP.model_copy(update={"adc": adc}))
    used, notes = chip_for(other, CHIP)
    assert (used.adc.policy, used.adc.granularity, notes) == ("trained", "column", [])
    assert used.model_copy(update={"adc": CHIP.adc}) == CHIP
    noisy = chips.replace(CHIP, "cell.programming.sigma=0.2")
    assert chip_for(other, noisy)[1] == ["cell.programming.sigma 0.05 instead of 0.2"]
    with pytest.raises(DataError, match=r"trained for another chip: adc\.bits 4 \(the study's chip: 5\)"):
        chip_for(other, chips.replace(CHIP, "adc.bits=5"))
    assert chip_for(replace(other, ranges=None), chips.replace(CHIP, "adc.bits=5"))[0].adc.policy == "calibrated"
    assert chip_for(replace(other, chip=None), CHIP)[0].adc.policy == "trained"


def test_a_network_with_trained_ranges_is_measured_with_them(tmp_path: Path):
    calibrated = put_on_chip(network().model, network().data, CHIP, PLAN.settings)
    adc = CHIP.adc.model_copy(update={"policy": "trained"})
    trained = CHIP.model_copy(update={"adc": adc})
    calibrated.placed_on(trained)
    for layer in crossbar_layers(calibrated.model).values():
        layer.ranges.adc_lsb *= 2
    save_ranges(calibrated.model, tmp_path / "ranges.safetensors")
    with_ranges = replace(network(), ranges=tmp_path / "ranges.safetensors", chip=trained)

    plain = training.measure(network(), CHIP, PLAN, lambda _: None)
    found = training.measure(with_ranges, CHIP, PLAN, lambda _: None)

    assert found["ranges"] == "trained"
    assert found["ideal_integer"] == plain["ideal_integer"]
    assert found["adc"] == calibrated.accuracy(with_cells(trained), -1)
    assert found["adc"] < plain["adc"], "an LSB of twice the size costs nothing, so this test shows nothing"


def test_progress_goes_to_stderr_and_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    plan = replace(PLAN, chips=1, rows=(64,), bits=(4,), ranges=("full",), tile_rows=(64,))
    quiet = partial_sums(RUNS, CHIP, plan, tmp_path / "quiet.json")
    assert partial_sums(RUNS, CHIP, replace(plan, progress=True), tmp_path / "shown.json") == quiet
    assert capsys.readouterr().out == ""


def test_a_surrogate_discards_heights_and_the_exact_simulation_decides_among_the_rest(tmp_path, whole, monkeypatch):
    plan = replace(PLAN, simulation="surrogate", tile_rows=())
    path = tmp_path / "study.json"
    monkeypatch.setattr(grid, "SLACK", 0.0)
    monkeypatch.setattr("bitline.surrogate.statistics.Surrogate.holds", True)

    result = partial_sums(RUNS, CHIP, plan, path)

    names = ("rows", "ranges", "bits")
    keys = [tuple(point[name] for name in names) for point in whole["grid"]]
    assert [tuple(point[name] for name in names) for point in result["estimates"]] == keys
    exact = {tuple(point[name] for name in names): point for point in whole["grid"]}
    estimates = {tuple(point[name] for name in names): point for point in result["estimates"]}
    kinds = []
    for point in result["grid"]:
        key = tuple(point[name] for name in names)
        mine = estimates[key]["mean"]
        best = max(each["mean"] for each in result["estimates"] if (each["ranges"], each["bits"]) == key[1:])
        kinds.append(point["simulation"])
        assert point["simulation"] == ("surrogate" if mine < best - 1 else "exact")
        source = estimates if point["simulation"] == "surrogate" else exact
        assert point["chips"] == source[key]["chips"]
        assert point["energy_J"] == exact[key]["energy_J"]
    assert {"exact", "surrogate"} == set(kinds)
    for adc in result["best_heights"]:
        assert adc["most_accurate"]["simulation"] == adc["cheapest"]["simulation"] == "exact"
    count = kinds.count("surrogate")
    assert (
        f"lesson 2: {count} of 8 chips are not simulated exactly: estimates of a surrogate"
        in result["not_measured"][-1]
    )
    assert study_tables.grid(result).rows
    assert "simulated" in [head.name for head in study_tables.grid(result).heads]
    assert partial_sums(RUNS, CHIP, plan, path, resume=True) == result


def test_a_point_that_an_estimate_does_not_hold_for_is_not_discarded_by_it():
    good = {"ranges": "full", "bits": 4, "rows": 64, "adc": 90.0, "holds": True}
    bad = {"ranges": "full", "bits": 4, "rows": 128, "adc": 20.0, "holds": True}
    assert grid.discarded({"ranges": "full", "bits": 4, "rows": 128}, [good, bad]) is not None
    assert grid.discarded({"ranges": "full", "bits": 4, "rows": 64}, [good, bad]) is None
    assert grid.discarded({"ranges": "full", "bits": 4, "rows": 128}, [good, bad | {"holds": False}]) is None
    assert grid.discarded({"ranges": "full", "bits": 4, "rows": 128}, [good | {"holds": False}, bad]) is None
    assert grid.discarded({"ranges": "full", "bits": 4, "rows": 128}, [good | {"bits": 5}, bad]) is None
