"""The commands of the page on networks of one's own run as they stand there, in an empty folder."""

import shlex
from pathlib import Path

import pytest
from test_own_network import SOURCE, weights

from run_samples import bitline

PAGE = Path(__file__).parents[2] / "docs" / "own.md"
__all__ = ["weights"]


@pytest.mark.slow
def test_the_commands_of_the_page_run_in_an_empty_folder(weights, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = SOURCE.read_text().replace("width: int = 16", "width: int = 8")
    Path("mine.py").write_text(text)
    Path("mine.safetensors").write_bytes(weights.read_bytes())
    block = PAGE.read_text().split("<!-- transcript -->")[1].split("```")[1]
    commands = [shlex.split(line) for line in block.strip().splitlines()]
    assert {command[1] for command in commands} == {"import", "evaluate", "cost", "compare", "optimize", "export"}
    for name, *arguments in commands:
        assert name == "bitline"
        bitline(*arguments)
    for made in ("mine.html", "chips.html", "runs/psum-aware-mine/run.json", "runs/group-mine/run.json", "cells"):
        assert Path(made).exists()
