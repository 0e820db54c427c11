"""The code of docs/python.md runs from top to bottom, and it shows the layouts that data may have."""

import re
from pathlib import Path

import torch
from torch import nn

import bitline

TEXT = (Path(__file__).parent.parent / "docs" / "python.md").read_text(encoding="utf-8")


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.blood, self.out = nn.Linear(4, 8), nn.Linear(6, 8), nn.Linear(16, 1)

    def forward(self, body: torch.Tensor, blood: torch.Tensor) -> torch.Tensor:
        return self.out(torch.cat([self.body(body), self.blood(blood)], 1).relu())


def test_the_code_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names = {
        "net": nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)).eval(),
        "images": torch.rand(100, 1, 8, 8),
        "labels": torch.randint(0, 10, (100,)),
        "training_images": [torch.rand(64, 1, 8, 8)],
        "two_inputs": TwoInputs().eval(),
        "body": torch.randn(60, 4),
        "blood": torch.randn(60, 6),
        "outcome": 100 * torch.randn(60, 1),
        "known_patients": [((torch.randn(64, 4), torch.randn(64, 6)), None)],
    }
    for example in re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL):
        exec(compile(example, "python.md", "exec"), names)
    assert {path.name for path in tmp_path.iterdir()} == {"net.html", "net.json", "bits.html", "runs"}
    assert isinstance(names["result"], bitline.Evaluation)
    assert names["result"].metric.label == "median error [points]"
    assert "RMSE" in capsys.readouterr().out


def test_the_layouts_are_those_that_the_command_line_and_errors_show():
    (shown,) = re.findall(r"<!-- layouts -->\n(.*?)<!-- end -->", TEXT, flags=re.DOTALL)
    assert [line[4:] for line in shown.splitlines()] == bitline.data.LAYOUTS.splitlines()


def test_every_metric_with_a_name_is_listed():
    from bitline.evaluation.metrics import METRICS

    assert all(f"`{name}`" in TEXT for name in METRICS)
