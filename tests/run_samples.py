"""Run directories small enough to make in a second: LeNet-5 on the digits."""

import io
import logging
import shutil
import signal
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from bitline.cli import main
from bitline.recipes import checked as checked_recipe
from bitline.recipes.run import optimize
from bitline.train import TrainConfig, checked
from bitline.train.run import train
from bitline.train.rundir import IfExists

NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 10))
"""
"""a network of the digits' images, as a file of a user's own"""


def settings(out: Path, **other: Any) -> TrainConfig:
    """A training of an epoch of 23 steps, with checkpoints at every 5th."""
    values: dict[str, Any] = {"model": "lenet5", "data": "digits", "epochs": 1, "batch_size": 62, "threads": 1}
    return checked(**{**values, "precision": "32-true", "checkpoint_every": 5, "out": out, **other})


def trained(out: Path, **other: Any) -> Path:
    """A finished training."""
    return train(settings(out, **other))


def trained_from_file(folder: Path) -> None:
    """A network from a file, ``net.py``, and its finished training, ``run``."""
    folder.mkdir()
    (folder / "net.py").write_text(NET)
    trained(folder / "run", model=f"{folder / 'net.py'}:Net")


def recipe(
    run: Path,
    out: Path,
    name: str = "conventional",
    if_exists: IfExists = "refuse",
    trust_code: bool = False,
    **other: Any,
) -> Path:
    """A finished recipe that trains nothing."""
    values: dict[str, Any] = {"recipe": name, "chips": 1, "images": 32, "calibration_images": 64, "threads": 1}
    return optimize(checked_recipe(run=run, out=out, **{**values, **other}), if_exists=if_exists, trust_code=trust_code)


def copied(run: Path, to: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(run, to))


def bitline(*arguments: object, status: int = 0) -> tuple[str, str]:
    """Run the command within this process, and return what it prints on stdout and stderr, with what is logged."""
    out, err, handler = io.StringIO(), io.StringIO(), logging.StreamHandler()
    handler.setStream(err)
    log = logging.getLogger("bitline")
    log.addHandler(handler)
    before = sys.argv, signal.getsignal(signal.SIGTERM), torch.get_num_threads()
    sys.argv = ["bitline", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        log.removeHandler(handler)
        sys.argv, on_term, threads = before
        signal.signal(signal.SIGTERM, on_term)
        torch.set_num_threads(threads)
    assert code == status, out.getvalue() + err.getvalue()
    return out.getvalue(), err.getvalue()
