"""The demonstration measures every step against the best before it, and says what the numbers say."""

import copy
import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bitline import chip as chips
from bitline import data as datasets
from bitline.cli import main
from bitline.cli.demo_steps import Gain, Step, best_free, outcome, table
from bitline.evaluation import Evaluation, Settings, put_on_chip
from bitline.train import checked
from bitline.train.run import train
from evaluation_samples import evaluation, record
from study_samples import network


def measured(*accuracies: float, energy: float = 1e-6, area: float = 1e-7) -> Evaluation:
    found = copy.deepcopy(evaluation(chips=len(accuracies)))
    mean = sum(accuracies) / len(accuracies)
    std = math.sqrt(sum((a - mean) ** 2 for a in accuracies) / (len(accuracies) - 1))
    found["accuracy"] |= {"chips": list(accuracies), "mean": mean, "std": std, "worst": min(accuracies)}
    found["accuracy"]["float"] = 99.0
    found["cost"] |= {"energy_J": energy, "area_m2": area}
    found["data"]["count"] = 400
    return record(found)


def test_a_gain_has_the_standard_error_of_paired_chips_and_of_the_images():
    gain = Gain.of(measured(82, 86, 90), measured(80, 80, 80))
    assert gain.points == pytest.approx(6)
    of_chips = 4 / math.sqrt(3)  # differences 2, 6, 10
    of_images = 100 * math.sqrt((0.86 * 0.14 + 0.8 * 0.2) / 400)
    assert gain.error == pytest.approx(math.hypot(of_chips, of_images))
    assert not Gain(1.9, 1.0).shows
    assert Gain(2.1, 1.0).shows
    assert not Gain(-9.0, 1.0).shows


def steps(trained: float) -> list[Step]:
    found = Step("as found", measured(69, 71))
    ranged = Step("ranges", measured(94, 96), found)
    paired = Step("pairs", measured(97, 99, area=2e-7), ranged)
    few = Step("few", measured(40, 42, energy=0.7e-6), paired)
    return [found, ranged, paired, few, Step("trained", measured(trained - 1, trained + 1), few)]


def test_the_outcome_follows_from_the_numbers():
    lines = outcome(steps(90), "psum-aware", 2)
    assert lines[0] == "Lost at first: 29.0 points of 99.00 %."
    assert lines[1].startswith("Better ranges alone: +25.0 ± ")
    assert lines[1].endswith("at 1.00 times the energy and 1.00 times the area.")
    assert lines[2].endswith("at 1.00 times the energy and 2.00 times the area.")
    assert "2-bit ADCs need 0.70 times the energy and 0.50 times the area of those pairs" in lines[3]
    assert lines[4].startswith("There psum-aware training gives +49.0 ± ")
    assert lines[5] == "Most accurate: pairs."


def test_a_recipe_that_does_not_win_is_not_praised():
    for trained in (40, 43):
        line = outcome(steps(trained), "psum-aware", 2)[4]
        assert "wins nothing" in line
        assert "gives" not in line


def test_the_table_names_the_step_that_each_is_measured_against():
    sheet = table(steps(90))
    over = [head.name for head in sheet.heads].index("over step")
    assert [row[over].text for row in sheet.rows] == ["", "1", "2", "3", "4"]


def test_the_best_free_setting_is_chosen_without_a_test_image_and_is_the_best_of_those_tried():
    small = network()
    chip = chips.load("example-128", ["adc.bits=3", "cell.read_noise.kind=none"])
    free = best_free(small.model, small.data, chip)
    assert len(free.tried) == 17
    assert len({variant.label for variant in free.tried}) == 17
    assert (
        chips.replace(free.chip, "adc.granularity=layer", "adc.calibration=mse").adc
        == chips.replace(chip, "adc.granularity=layer").adc
    )
    blank = torch.zeros_like(small.data.test_images)
    other = datasets.DataSet(**{**vars(small.data), "test_images": blank})
    assert best_free(small.model, other, chip).tried == free.tried
    settings = Settings(chips=2, seed=1000, in_turn=free.in_turn, bias_correction=free.bias_correction)
    kept = {"test_images": small.data.train_images[-300:], "test_labels": small.data.train_labels[-300:]}
    on_chip = put_on_chip(small.model, datasets.DataSet(**{**vars(small.data), **kept}), free.chip, settings)
    reached = sum(on_chip.accuracy(free.chip, seed) for seed in settings.seeds) / 2
    assert reached == pytest.approx(max(variant.mean for variant in free.tried))


def demo(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """The status of a demonstration whose steps are left out."""
    monkeypatch.setattr("bitline.cli.demo._Demo.run", lambda _: {"steps": []})
    monkeypatch.setattr(sys, "argv", ["bitline", "demo", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_network_of_ones_own_is_not_taken_for_that_of_the_demonstration(monkeypatch, capsys, tmp_path):
    out = tmp_path / "d"
    train(checked(model="lenet5", data="digits", epochs=1, threads=1, out=out / "network"))
    before = files(out)
    assert demo(monkeypatch, "--out", out) == 1
    error = capsys.readouterr().err
    assert f"cannot resume {out / 'network'} with another configuration: model 'vgg8' (was 'lenet5')" in error
    assert "--overwrite" in error
    assert files(out) == before
    assert demo(monkeypatch, "--out", out, "--overwrite") == 0


def test_the_same_demonstration_may_begin_again_and_one_of_other_options_may_not(monkeypatch, capsys, tmp_path):
    out, own = tmp_path / "d", {"model": "vgg8", "data": "digits", "width": 0.125, "seed": 0, "threads": 1}
    train(checked(**own, epochs=1, out=out / "network"))
    assert demo(monkeypatch, "--out", out, "--epochs", 1) == 0
    assert demo(monkeypatch, "--out", out, "--epochs", 2) == 1
    assert "epochs 2 (was 1)" in capsys.readouterr().err


def test_a_page_that_lies_there_is_not_replaced(monkeypatch, capsys, tmp_path):
    (tmp_path / "compare.html").write_text("mine")
    assert demo(monkeypatch, "--out", tmp_path) == 1
    assert f"{tmp_path / 'compare.html'} is of no demonstration" in capsys.readouterr().err


@pytest.mark.slow
def test_the_demonstration_runs_and_its_lines_fit_a_terminal(tmp_path: Path):
    command = [sys.executable, "-m", "bitline", "demo", "--out", str(tmp_path / "d"), "--epochs", "4", "--chips", "2"]
    done = subprocess.run([*command, "--json", "-"], capture_output=True, text=True, check=True)
    content = json.loads(done.stdout)
    assert [step["over"] for step in content["steps"]][1] == content["steps"][0]["name"]
    assert max(map(len, done.stderr.splitlines())) <= 80
    for words in ("read noise is switched off", "best of 17 settings", "Every step against the best before it"):
        assert words in done.stderr
    assert {path.name for path in (tmp_path / "d").iterdir() if path.suffix} >= {
        "compare.html",
        "conventional.html",
        "demo.json",
    }
