"""A small trained network, as a run directory and as weights."""

from pathlib import Path

import pytest

from bitline.train import checked
from bitline.train.run import train

SETTINGS = {"model": "lenet5", "data": "digits", "width": 0.5, "epochs": 2, "batch_size": 64, "threads": 1}


@pytest.fixture(scope="session")
def run(once) -> Path:
    """A LeNet-5 of half width that has seen the digits twice; not to be changed."""
    return once("fuzz-run", lambda folder: train(checked(**SETTINGS, precision="32-true", out=folder)))


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the user's is read or written."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
