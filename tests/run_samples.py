"""Run directories small enough to make in a second: LeNet-5 on the digits."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from bitline.recipes import checked as checked_recipe
from bitline.recipes.run import optimize
from bitline.train import TrainConfig, checked
from bitline.train.run import train
from bitline.train.rundir import IfExists


def settings(out: Path, **other: Any) -> TrainConfig:
    """A training of an epoch of 23 steps, with checkpoints at every 5th."""
    values: dict[str, Any] = {"model": "lenet5", "data": "digits", "epochs": 1, "batch_size": 62, "threads": 1}
    return checked(**{**values, "precision": "32-true", "checkpoint_every": 5, "out": out, **other})


def trained(out: Path, **other: Any) -> Path:
    """A finished training."""
    return train(settings(out, **other))


def recipe(run: Path, out: Path, name: str = "conventional", if_exists: IfExists = "refuse", **other: Any) -> Path:
    """A finished recipe that trains nothing."""
    values: dict[str, Any] = {"recipe": name, "chips": 1, "images": 32, "calibration_images": 64, "threads": 1}
    return optimize(checked_recipe(run=run, out=out, **{**values, **other}), if_exists=if_exists)


def copied(run: Path, to: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(run, to))


def bitline(*arguments: object, status: int = 0, **environment: str) -> tuple[str, str]:
    """Run the command as a user does, and return what it prints on stdout and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "bitline", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout, done.stderr
