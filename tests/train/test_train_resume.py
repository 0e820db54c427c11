import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from bitline.errors import DataError
from bitline.train import TrainConfig, checked
from bitline.train import run as run_module
from bitline.train.run import train
from training_samples import KilledError, assert_same_weights, until

STEPS = 1442 // 32  # an epoch of digits
SETTINGS = {"model": "lenet5", "data": "digits", "epochs": 4, "batch_size": 32, "threads": 1, "checkpoint_every": 20}


def config(out: Path, **other: object) -> TrainConfig:
    return checked(**{**SETTINGS, "precision": "32-true", "out": out, **other})


@pytest.fixture(scope="module")
def undisturbed(once) -> Path:
    return once("undisturbed", lambda folder: train(config(folder)))


def assert_same(run: Path, other: Path) -> None:
    """Compare weights bit for bit, and the curves but for the seconds."""
    assert_same_weights(run, other)
    assert curve(run) == curve(other)


def curve(run: Path) -> list[dict[str, float]]:
    points = json.loads((run / "metrics.json").read_text())["curve"]
    return [{key: value for key, value in point.items() if key != "seconds"} for point in points]


def train_until(monkeypatch, run: Path, hook: str, call: int, if_exists: str = "refuse", **other: object) -> None:
    """Train, and die as a killed process does at the given call of a hook."""
    until(monkeypatch, hook, call, lambda: train(config(run, **other), if_exists=if_exists))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("hook", "call"),
    [
        ("training_step", 5),  # before the first checkpoint
        ("training_step", 31),  # in mid-epoch, between two checkpoints
        ("training_step", STEPS + 1),  # at the first batch of an epoch
        ("training_step", 2 * STEPS),  # at the last
        ("training_step", 3 * STEPS + 21),  # right after a checkpoint
        ("validation_step", 4),  # while testing
        ("on_train_epoch_end", 2),  # before the checkpoint of an epoch
        ("on_train_epoch_end", 4),  # at the very end
    ],
)
def test_a_run_that_dies_anywhere_resumes_to_the_same_weights(tmp_path, monkeypatch, undisturbed, hook, call):
    train_until(monkeypatch, tmp_path / "run", hook, call)

    resumed = train(config(tmp_path / "run"), if_exists="resume")

    assert_same(resumed, undisturbed)


@pytest.mark.slow
def test_a_run_that_dies_twice_in_one_epoch_resumes_to_the_same_weights(tmp_path, monkeypatch, undisturbed):
    train_until(monkeypatch, tmp_path / "run", "training_step", STEPS + 25)
    train_until(monkeypatch, tmp_path / "run", "training_step", 10, if_exists="resume")

    resumed = train(config(tmp_path / "run"), if_exists="resume")

    assert_same(resumed, undisturbed)


@pytest.mark.slow
def test_a_run_that_dies_between_its_last_epoch_and_its_results_resumes_to_the_same_weights(
    tmp_path, monkeypatch, undisturbed
):
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_network", lambda *_: (_ for _ in ()).throw(KilledError))
        with pytest.raises(KilledError):
            train(config(tmp_path / "run"))

    assert_same(train(config(tmp_path / "run"), if_exists="resume"), undisturbed)


def test_threads_and_checkpoints_may_change_at_a_resume(tmp_path, monkeypatch):
    train_until(monkeypatch, tmp_path / "run", "training_step", 31, epochs=1)

    resumed = train(config(tmp_path / "run", epochs=1, threads=2, checkpoint_every=10), if_exists="resume")

    assert json.loads((resumed / "metrics.json").read_text())["hardware"]["threads"] == 2
    assert json.loads((resumed / "config.json").read_text())["threads"] == 1


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".config.json.1.tmp").write_text("half")

    run = train(config(tmp_path / "run", epochs=1), if_exists="resume")

    assert not list(run.rglob("*.tmp"))


@pytest.mark.slow
def test_a_run_killed_with_signal_9_resumes_to_the_same_weights(tmp_path, undisturbed):
    run = tmp_path / "run"
    options = [f"--{key.replace('_', '-')}={value}" for key, value in SETTINGS.items() if key != "model"]
    command = [sys.executable, "-c", "from bitline.cli import main; main()", "train", "lenet5", *options]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--precision=32-true", "--out", str(run)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    try:
        deadline = time.monotonic() + 120
        while not (run / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, "no checkpoint"
            time.sleep(0.005)
        time.sleep(0.1 + 0.2 * (time.time_ns() % 1000) / 1000)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "metrics.json").exists()

    assert_same(train(config(run), if_exists="resume"), undisturbed)


def test_a_finished_run_is_left_as_it_is_by_resume_and_refused_without_it(tmp_path):
    run = train(config(tmp_path / "run", epochs=1))
    written = (run / "model.safetensors").stat().st_mtime_ns

    assert train(config(run, epochs=1), if_exists="resume") == run
    assert (run / "model.safetensors").stat().st_mtime_ns == written
    with pytest.raises(DataError, match=r"holds a finished run; add --resume .* or --overwrite"):
        train(config(run, epochs=1))


def test_a_resume_with_another_configuration_names_what_differs(tmp_path):
    run = train(config(tmp_path / "run", epochs=1))

    with pytest.raises(DataError, match=r"epochs 2 \(was 1\), seed 5 \(was 0\)"):
        train(config(run, epochs=2, seed=5), if_exists="resume")


def test_a_damaged_checkpoint_is_refused_and_not_unpickled(tmp_path, monkeypatch):
    train_until(monkeypatch, tmp_path / "run", "training_step", 31)
    torch.save({"harm": KilledError()}, tmp_path / "run" / "checkpoints" / "last.ckpt")

    with pytest.raises(DataError, match=r"last\.ckpt is damaged, or holds more than tensors and plain values"):
        train(config(tmp_path / "run"), if_exists="resume")


def test_a_directory_that_is_no_run_is_never_overwritten(tmp_path):
    (tmp_path / "precious.txt").write_text("mine")

    with pytest.raises(DataError, match="is not a run directory"):
        train(config(tmp_path), if_exists="overwrite")
    assert (tmp_path / "precious.txt").read_text() == "mine"
