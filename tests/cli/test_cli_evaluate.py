"""`bitline evaluate` as a user starts it."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model

from evaluation_files import check_file

NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.out = nn.Linear(8 * 64, 10)

    def forward(self, x):
        return self.out(self.norm(self.conv(x)).relu().flatten(1))
"""


def bitline(*arguments: object, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "bitline", *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("net")
    (folder / "net.py").write_text(NET)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(NET, scope)
    torch.manual_seed(0)
    save_model(scope["Net"](), str(folder / "net.safetensors"))
    return folder


def test_a_model_of_the_users_own_is_evaluated(files: Path, tmp_path: Path):
    common = ("--data", "digits", "--chips", 2, "--images", 60, "--calibration-images", 60, "--set", "adc.bits=4")
    out, _ = bitline(
        "evaluate",
        "--model",
        f"{files / 'net.py'}:Net",
        "--weights",
        files / "net.safetensors",
        *common,
        "--json",
        "-",
        "--html",
        tmp_path / "page.html",
    )
    (tmp_path / "evaluation.json").write_text(out)
    result = check_file(tmp_path / "evaluation.json")
    assert result["chip"]["adc"]["bits"] == 4
    assert len(result["accuracy"]["chips"]) == 2
    assert result["folded"] == {"norm": "conv"}
    assert [layer["name"] for layer in result["layers"]] == ["conv", "out"]
    page = (tmp_path / "page.html").read_text()
    assert "rram-22nm" in page


def test_errors_are_one_line_and_name_what_is_allowed(files: Path):
    _, error = bitline("evaluate", "--data", "digits", status=1)
    assert error.strip() == (
        "error: give either a run directory or --model (with --weights and --data), not both or neither"
    )
    _, error = bitline("evaluate", "nowhere", "--chip", "rram-22nn", status=1)
    assert "did you mean 'rram-22nm'" in error
    weights = ("--weights", files / "net.safetensors", "--data", "digits")
    _, error = bitline("evaluate", "--model", "lenet5", *weights, status=1)
    assert "does not fit LeNet5" in error


def test_truncated_weights_are_refused(files: Path, tmp_path: Path):
    broken = tmp_path / "half.safetensors"
    whole = (files / "net.safetensors").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    _, error = bitline(
        "evaluate", "--model", f"{files / 'net.py'}:Net", "--weights", broken, "--data", "digits", status=1
    )
    assert "half.safetensors" in error
    assert "Traceback" not in error
