"""`bitline sweep` as a user starts it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_model
from typer.testing import CliRunner

from bitline.cli import app
from bitline.cli.sweep import read_vary
from bitline.errors import DataError
from bitline.evaluation.on_chip import OnChip

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.each = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.out = nn.Linear(8 * 64, 10)

    def forward(self, x):
        return self.out(self.each(self.conv(x).relu()).flatten(1))
"""


def bitline(*arguments: object, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bitline", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> tuple[object, ...]:
    """Options that name a network of one's own, its data, and few chips and images."""
    folder: Path = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(NET)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(NET, scope)
    torch.manual_seed(0)
    save_model(scope["Net"](), str(folder / "net.safetensors"))
    model = ("--model", f"{folder / 'net.py'}:Net", "--weights", folder / "net.safetensors", "--data", "digits")
    return (*model, "--chips", 2, "--images", 40, "--calibration-images", 40)


VARY = ("--vary", "adc.bits=3,6", "--vary", "cell.programming.sigma=0,0.2")


def test_a_grid_is_measured_kept_and_shown_and_its_points_are_those_of_evaluate(own, tmp_path):
    out, _ = bitline("sweep", *own, *VARY, "--out", tmp_path / "s", "--html", tmp_path / "s.html")
    content = json.loads((tmp_path / "s" / "sweep.json").read_text())
    assert [v["label"] for v in content["variants"]] == [
        f"adc.bits={bits}, cell.programming.sigma={sigma}" for bits in (3, 6) for sigma in (0, 0.2)
    ]
    assert "●" in out
    assert all(len(line) <= 80 for line in out.splitlines() if str(tmp_path) not in line)
    assert "accuracy [%]" in (tmp_path / "s.html").read_text()

    keys = ("--set", "adc.bits=6", "--set", "cell.programming.sigma=0.2")
    alone, _ = bitline("evaluate", *own, *keys, "--cause-chips", 1, "--workers", 2, "--json", "-")
    assert content["variants"][3]["chips"] == json.loads(alone)["accuracy"]["chips"]
    assert content["variants"][3]["energy_J"] == json.loads(alone)["cost"]["energy_J"]

    again, _ = bitline("sweep", *own, *VARY, "--out", tmp_path / "s", "--resume", "--json", "-")
    assert json.loads(again) == content
    _, error = bitline("sweep", *own, *VARY, "--out", tmp_path / "s", status=1)
    assert "is not empty; resume=True (--resume) goes on with the sweep in it" in error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "nothing varies; give --vary KEY=VALUE,VALUE"),
        (("--vary", "adc.bits"), "--vary adc.bits: expected KEY=VALUE,VALUE"),
        (("--vary", "adc.bits=3,,4"), "--vary adc.bits=3,,4: expected KEY=VALUE,VALUE"),
        (("--vary", "adc.bits=3", "--vary", "adc.bits=4"), "--vary adc.bits is given twice"),
        (("--vary", "adc.bits=3,3"), "values of adc.bits are"),
        (("--vary", "adc.bitts=3"), "did you mean 'bits'"),
        (("--vary", "adc.bits=3,40"), "40"),
    ],
)
def test_what_is_no_sweep_is_one_line(own, options, words):
    _, error = bitline("sweep", *own, *options, status=1)
    assert words in error
    assert len([line for line in error.splitlines() if line.startswith("error:")]) == 1
    assert "Traceback" not in error


def test_commas_within_a_value_are_part_of_it():
    assert read_vary(["cell.read_noise={kind='none'},{kind='absolute', sigma='1 uS'}"]) == {
        "cell.read_noise": ["{kind='none'}", "{kind='absolute', sigma='1 uS'}"]
    }
    with pytest.raises(DataError, match="expected KEY=VALUE,VALUE"):
        read_vary(["=3"])


def here(*arguments: object, status: int = 0) -> str:
    """What the command prints that is run in this process; what it refuses is raised."""
    done = CliRunner().invoke(app, [*map(str, arguments)])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == status
    return done.output


def test_a_sweep_in_a_folder_goes_on_only_where_it_measures_the_same_and_says_what_differs(own, tmp_path):
    vary = ("--vary", "adc.bits=3,6", "--out", tmp_path / "s")
    here("sweep", *own, *vary)
    file = tmp_path / "s" / "sweep.json"
    before = file.read_text()
    for options, words in (
        (("--in-turn",), "in_turn True (was False)"),
        (("--mapping", "depthwise=strip"), "mapping.depthwise 'strip' (was None)"),
        (("--set", "cell.programming.sigma=0.3"), "chip.cell.programming.sigma 0.3 (was"),
        (("--seed", 5), "seeds [5, 6] (was [0, 1])"),
        (("--images", 41), "data.count 41 (was 40)"),
        (("--simulation", "surrogate"), "simulation 'surrogate' (was 'exact')"),
    ):
        with pytest.raises(DataError, match=re.escape(words)) as refused:
            here("sweep", *own, *vary, *options, "--resume")
        assert "choose another folder (--out)" in str(refused.value)
    assert file.read_text() == before

    content = json.loads(before)
    del content["measured"]  # as in files of earlier versions
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"in_turn False \(was None\)"):
        here("sweep", *own, *vary, "--resume")


def stop(monkeypatch: pytest.MonkeyPatch, *arguments: object, after: int) -> str:
    """What a sweep says that is stopped, as by Ctrl-C, after so many points."""
    moves: list[OnChip] = []
    before = OnChip.placed_on

    def placed_on(self: OnChip, *given: Any) -> None:
        moves.append(self)
        if len(moves) > after:
            raise KeyboardInterrupt
        before(self, *given)

    with monkeypatch.context() as patched:
        patched.setattr(OnChip, "placed_on", placed_on)
        return here(*arguments, status=130)


@pytest.mark.parametrize("place", ["cache", "folder"])
def test_points_of_a_sweep_that_was_stopped_are_kept_and_those_after_them_are_as_if_it_had_not_been(
    own, tmp_path, monkeypatch, place
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    grid = ("sweep", *own, "--vary", "crossbar.active_rows=64,128", "--vary", "adc.bits=4,6", "--in-turn")
    here(*grid, "--json", tmp_path / "whole.json")
    whole = json.loads((tmp_path / "whole.json").read_text())
    assert not list(tmp_path.glob("cache/bitline/sweeps/*"))

    out = ("--out", tmp_path / "s") if place == "folder" else ()
    said = stop(monkeypatch, *grid, *out, after=2)
    assert "the same command with --resume goes on after them" in said
    kept = tmp_path / "s" / "sweep.json" if out else next(tmp_path.glob("cache/bitline/sweeps/*.json"))
    content = json.loads(kept.read_text())
    assert content["variants"] == whole["variants"][:2]

    content["variants"][0]["mean"] = 12.5  # tells whether it is taken or measured again
    kept.write_text(json.dumps(content))
    here(*grid, *out, "--resume", "--json", tmp_path / "resumed.json")
    resumed = json.loads((tmp_path / "resumed.json").read_text())
    assert resumed["variants"][0]["mean"] == 12.5
    assert resumed["variants"][1:] == whole["variants"][1:]
    assert kept.exists() == bool(out)


def test_a_sweep_that_was_stopped_before_its_first_point_goes_on(own, tmp_path, monkeypatch):
    grid = ("sweep", *own, "--vary", "adc.bits=4,6", "--out", tmp_path / "s")
    stop(monkeypatch, *grid, after=0)
    here(*grid, "--resume")
    assert len(json.loads((tmp_path / "s" / "sweep.json").read_text())["variants"]) == 2
