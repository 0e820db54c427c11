"""`bitline sweep` as a user starts it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model

from bitline.cli.sweep import read_vary
from bitline.errors import DataError

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.out = nn.Linear(8 * 64, 10)

    def forward(self, x):
        return self.out(self.conv(x).relu().flatten(1))
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
        (("--vary", "adc.bits=3", "--resume"), "resume needs the folder of a sweep: out (--out)"),
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
