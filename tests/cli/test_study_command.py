"""`bitline study partial-sums` and `bitline compare` as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bitline.cli import main
from bitline.train import checked
from bitline.train.run import train

SMALL = (
    "--images",
    40,
    "--chips",
    1,
    "--calibration-images",
    40,
    "--layer-images",
    2,
    "--tile-rows",
    "32,64,128",
    "--rows",
    "32,64",
    "--bits",
    "4",
    "--ranges",
    "full,slice_digit",
)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["bitline", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lenet"
    return train(checked(model="lenet5", data="digits", epochs=2, threads=1, out=out), if_exists="overwrite")


def test_a_study_writes_numbers_and_a_page_and_says_what_it_found(monkeypatch, capsys, network, tmp_path):
    out = tmp_path / "study"
    assert run(monkeypatch, "study", "partial-sums", network, "--out", out, *SMALL) == 0
    printed = capsys.readouterr().out
    assert "lesson 2" in printed
    assert "not measured: lesson 3, quantization-aware training: no run was given" in " ".join(printed.split())
    found = json.loads((out / "study.json").read_text())
    assert len(found["grid"]) == 4
    assert "Partial sums: lenet5 on rram-22nm" in (out / "study.html").read_text()

    assert run(monkeypatch, "study", "partial-sums", network, "--out", out, *SMALL) == 1
    assert "add --resume" in capsys.readouterr().err
    again = ("study", "partial-sums", network, "--out", out, *SMALL, "--resume", "--json", "-", "--batch-size", 7)
    assert run(monkeypatch, *again) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert run(monkeypatch, *again, "--seed", 5) == 1
    assert "with other settings: seed 5 (was 0)" in capsys.readouterr().err


def test_the_same_run_twice_is_a_study_of_training_too(monkeypatch, capsys, network, tmp_path):
    arguments = ("--rows", "none", "--tile-rows", "none", "--quantization-aware", network, "--psum-aware", network)
    command = ("study", "partial-sums", network, "--out", tmp_path, *SMALL, *arguments, "--json", "-")
    assert run(monkeypatch, *command) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["training"] for point in found["training"]] == ["unaware", "quantization-aware", "partial-sum-aware"]
    assert len({tuple(point["chips"]) for point in found["training"]}) == 1
    assert found["not_measured"] == [
        "lesson 2: the grid has no point",
        "lesson 1, row tiles at one LSB: no numbers of rows were given",
    ]


def test_a_killed_command_says_how_to_go_on(monkeypatch, capsys, network, tmp_path):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bitline.study.layers.measure", interrupt)
    assert run(monkeypatch, "study", "partial-sums", network, "--out", tmp_path, *SMALL) == 130
    assert "--resume goes on from the last point" in capsys.readouterr().err


def test_wrong_numbers_and_policies_are_errors_of_one_line(monkeypatch, capsys, network, tmp_path):
    for option, given, words in (
        ("--bits", "3,x", "--bits is '3,x'; expected whole numbers"),
        ("--ranges", "fall", "ranges has 'fall'; allowed: full, layer, slice, slice_digit, column"),
        ("--rows", "0", "rows has 0; allowed: 1 to 65536"),
    ):
        assert run(monkeypatch, "study", "partial-sums", network, "--out", tmp_path, option, given) == 1
        assert words in " ".join(capsys.readouterr().err.split())


def test_help_has_examples(monkeypatch, capsys):
    assert run(monkeypatch, "study", "partial-sums", "--help") == 0
    assert "bitline study partial-sums runs/vgg8-cifar10 --chip rram-22nm" in capsys.readouterr().out
    assert run(monkeypatch, "compare", "--help") == 0
    assert "bitline compare before.json after.json --json compare.json" in capsys.readouterr().out


def test_runs_are_compared_in_the_terminal_as_data_and_as_a_page(monkeypatch, capsys, network, tmp_path):
    common = ("evaluate", network, "--chips", 2, "--images", 40, "--calibration-images", 40)
    assert run(monkeypatch, "compare", network, network) == 1
    assert f"bitline evaluate {network} --chip NAME" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, *common, "--json", network / "evaluation.json") == 0
    assert run(monkeypatch, *common, "--set", "adc.bits=4", "--json", tmp_path / "four.json") == 0
    capsys.readouterr()

    page, data = tmp_path / "compare.html", tmp_path / "compare.json"
    assert run(monkeypatch, "compare", network, tmp_path / "four.json", "--html", page, "--json", data) == 0
    shown = capsys.readouterr()
    assert "Runs; equal work" in shown.out
    assert shown.err == "", "one network on two chips, whose difference is what is compared"
    assert "Where the chips differ" in shown.out
    found = json.loads(data.read_text())
    assert found["runs"][1]["work_efficiency"] > 1
    assert "on 2 chips" in page.read_text()
    assert found["differences"] == ["chip, adc.bits: 5 in lenet; 4 in four.json"]

    assert run(monkeypatch, "compare", network, tmp_path / "four.json", "--json", "-") == 0
    assert json.loads(capsys.readouterr().out) == found


def test_asking_for_help_loads_neither_torch_nor_jinja():
    program = "import sys, bitline.cli; print([m for m in ('torch', 'jinja2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_page_of_something_else_is_not_replaced_by_that_of_a_study(monkeypatch, capsys, network, tmp_path):
    (tmp_path / "study.html").write_text("mine")
    assert run(monkeypatch, "study", "partial-sums", network, "--out", tmp_path, *SMALL) == 1
    assert f"{tmp_path / 'study.html'} is the page of something else" in capsys.readouterr().err
    assert (tmp_path / "study.html").read_text() == "mine"
