"""What is stopped, and what finds the disk full, says so in a line and can be gone on with."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bitline.cli.stop import Terminated, terminable
from bitline.files import CONFIG, WEIGHTS
from bitline.train.run import train
from run_samples import settings, trained


@pytest.fixture(scope="module")
def run(once) -> Path:
    return once("refused", trained)


@pytest.mark.slow
def test_sigterm_ends_a_training_with_143_and_a_line_and_it_can_be_resumed(tmp_path, run):
    told = settings(tmp_path / "run").model_dump(exclude={"model", "crop", "flip", "distill", "temperature"})
    options = [f"--{key.replace('_', '-')}={value}" for key, value in told.items() if value is not None]
    process = subprocess.Popen(
        [sys.executable, "-m", "bitline", "train", "lenet5", *options], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / CONFIG).exists():
        time.sleep(0.01)
    process.terminate()
    _, said = process.communicate()

    assert process.returncode == 143
    assert "stopped; the same command with --resume goes on from the last checkpoint" in said
    assert "Traceback" not in said
    train(settings(tmp_path / "run"), if_exists="resume")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()


def test_sigterm_that_comes_while_an_object_ends_is_not_lost():
    class Ends:
        def __del__(self):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0)

    def work() -> None:
        Ends()
        time.sleep(10)

    began = time.monotonic()
    with pytest.raises(Terminated), terminable():
        work()
    assert time.monotonic() - began < 5


@pytest.mark.slow
@pytest.mark.parametrize("most", [2_000, 60_000, 100_000])
def test_a_disk_without_space_is_one_line_and_the_run_goes_on_where_there_is_some(tmp_path, run, most):
    told = settings(tmp_path / "run").model_dump(exclude={"model", "crop", "flip", "distill", "temperature"})
    options = [f"--{key.replace('_', '-')}={value}" for key, value in told.items() if value is not None]
    full = subprocess.run(
        [sys.executable, "-m", "bitline", "train", "lenet5", *options],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    )

    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert len([line for line in full.stderr.splitlines() if line.startswith("error: ")]) == 1
    train(settings(tmp_path / "run"), if_exists="resume")
    assert (tmp_path / "run" / WEIGHTS).read_bytes() == (run / WEIGHTS).read_bytes()
