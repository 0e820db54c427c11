"""What a fresh process is asked first does not show in what it answers next."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from bitline.mvm import native

SCRIPT = """
import sys, torch
from safetensors.torch import save_file
from torch import nn
from bitline import calibrate, load_chip, program, to_crossbar

first, out = int(sys.argv[1]), {}
torch.manual_seed(0)
x = torch.rand(64, 3, 6, 6)
layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(32, 5)]
net = nn.Sequential(*layers).eval()
quiet = ["adc.bits=4", "cell.programming={kind='lognormal', sigma=0.1}"]
noisy = [*quiet, "cell.read_noise={kind='absolute', sigma='0.05 uS'}"]
for name, overrides in {"exact": ["adc.policy=lossless"], "quiet": quiet, "noisy": noisy}.items():
    model = to_crossbar(net, load_chip("rram-22nm", overrides), example=x[:2]).model
    calibrate(model, [x])
    program(model, 1)
    with torch.no_grad():
        if first:
            model(x[:first])
            program(model, 1)
        out[name] = model(x)
save_file(out, sys.argv[2])
"""


def answers(folder: Path, path: str, first: int) -> dict[str, torch.Tensor]:
    file = folder / f"{first}.safetensors"
    environment = {**os.environ, native.VARIABLE: path, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", SCRIPT, str(first), str(file)], check=True, env=environment)
    return load_file(file)


@pytest.mark.slow
@pytest.mark.parametrize("path", [*native.paths(), native.TENSOR])
def test_a_first_call_of_one_image_and_then_of_many_answers_as_one_of_many(tmp_path, path):
    expected = answers(tmp_path, path, 0)
    got = answers(tmp_path, path, 1)
    for name, answer in expected.items():
        assert torch.equal(got[name], answer), name
    assert not torch.equal(expected["exact"], expected["quiet"])
    assert not torch.equal(expected["quiet"], expected["noisy"])
