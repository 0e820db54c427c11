"""The README's example runs, and what it says of the command line is there."""

import re
import subprocess
import sys
from pathlib import Path

import torch
from torch import nn

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def test_the_python_example_runs_as_printed():
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()
    names = {"net": net, "images": torch.randn(4, 3, 8, 8)}
    exec(compile(example, "README.md", "exec"), names)
    assert names["logits"].shape == (4, 10)
    assert not torch.equal(names["logits"], net(names["images"]))


def test_every_command_of_the_readme_exists():
    shown = set(re.findall(r"^    bitline (\w+)", README, flags=re.MULTILINE))
    helped = subprocess.run([sys.executable, "-m", "bitline", "--help"], capture_output=True, text=True, check=True)
    assert shown == {
        "train",
        "evaluate",
        "sweep",
        "optimize",
        "report",
        "compare",
        "study",
        "export",
        "cost",
        "chips",
        "doctor",
        "import",
    }
    assert all(re.search(rf"\b{name}\b", helped.stdout) for name in shown | {"demo"})
