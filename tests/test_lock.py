"""One process at a time writes in a run directory, and nobody's lock is taken away."""

import errno
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bitline.errors import DataError, ExportError
from bitline.files import CONFIG, read_json
from bitline.lock import locked
from bitline.models.files import load_run
from bitline.train.run import train
from run_samples import bitline, copied, recipe, settings, trained

SMALL = ("--chips", 1, "--images", 32, "--threads", 1)


@pytest.fixture(scope="module")
def run(once) -> Path:
    return once("refused", trained)


def test_a_run_directory_in_use_is_refused_with_the_process_that_holds_it(tmp_path, run):
    held = copied(run, tmp_path / "run")
    words = ("--data", "digits", "--epochs", 1, "--threads", 1)

    with locked(held):
        for command in (
            ("train", "lenet5", *words, "--out", held, "--overwrite"),
            ("optimize", "psum-aware", run, "--out", held),
            ("study", "partial-sums", run, "--out", held),
            ("demo", "--out", held),
            ("evaluate", held, *SMALL, "--json", held / "evaluation.json"),
            ("export", run, "--to", "conductances", "--out", held),
            ("accept", held),
        ):
            _, error = bitline(*command, status=1)
            if command[0] != "export":  # refuses a run directory as such
                assert f"{held} is in use by process {os.getpid()} on " in error
    assert load_run(held)
    assert not (held / ".lock").exists()


def test_of_two_trainings_started_together_one_ends_and_one_is_refused(tmp_path):
    command = [
        sys.executable,
        "-m",
        "bitline",
        "train",
        "lenet5",
        "--data",
        "digits",
        "--epochs",
        "2",
        "--threads",
        "1",
    ]
    both = [
        subprocess.Popen(
            [*command, "--seed", str(seed), "--out", str(tmp_path / "run")],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in (0, 5)
    ]
    said = [process.communicate()[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1], said

    first = next(seed for seed, process in zip((0, 5), both, strict=True) if process.returncode == 0)
    assert read_json(tmp_path / "run" / CONFIG)["seed"] == first
    assert load_run(tmp_path / "run")
    assert "Traceback" not in "".join(said)


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    code = (
        "import os, pathlib, sys\n"
        "from bitline.lock import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "run")], check=False)
    assert killed.returncode == -signal.SIGKILL

    with locked(tmp_path / "run"):
        pass


NO_FLOCK = """
import errno, fcntl

def missing(*_):
    raise OSError(errno.ENOSYS, "Function not implemented")

fcntl.flock = missing
"""
KILLED = """
import os, pathlib, sys
from bitline.lock import locked

with locked(pathlib.Path(sys.argv[1])):
    os.kill(os.getpid(), 9)
"""


def test_without_locks_of_the_file_system_a_killed_process_leaves_the_directory_free(tmp_path, monkeypatch, caplog):
    killed = subprocess.run([sys.executable, "-c", NO_FLOCK + KILLED, str(tmp_path / "run")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / "run" / ".lock").is_file()

    def missing(*_):
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", missing)
    with caplog.at_level("INFO", "bitline"), locked(tmp_path / "run"):
        assert "this file system has no locks" in caplog.text
        with pytest.raises(DataError, match=f"in use by process {os.getpid()} on "), locked(tmp_path / "run"):
            pass
    assert not (tmp_path / "run" / ".lock").exists()


def test_a_lock_of_another_user_is_named_and_stays(tmp_path, monkeypatch):
    folder = tmp_path / "run"

    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    with locked(folder):
        before = (folder / ".lock").read_text()
        monkeypatch.setattr("bitline.lock.FileLock.acquire", denied)
        with pytest.raises(ExportError) as refused, locked(folder):
            pass
        assert (folder / ".lock").read_text() == before
    said = str(refused.value)
    assert said.startswith(f"cannot write in {folder}: Permission denied; {folder / '.lock'} belongs to ")
    assert said.endswith(f"and names process {os.getpid()} on {socket.gethostname()}")


def test_whoever_may_write_in_the_folder_may_take_its_lock(tmp_path):
    with locked(tmp_path):
        assert (tmp_path / ".lock").stat().st_mode & 0o777 == 0o666


def test_a_folder_that_nobody_may_write_in_is_refused_and_nothing_is_left(tmp_path, monkeypatch):
    def denied(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("bitline.lock.FileLock.acquire", denied)

    with pytest.raises(ExportError, match=f"^cannot write in {tmp_path / 'a' / 'b'}: Permission denied$"):
        locked(tmp_path / "a" / "b").__enter__()
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_resumed_where_nothing_can_be_written(run, monkeypatch):
    def refused(*_):
        raise AssertionError("the folder was locked")

    monkeypatch.setattr("bitline.train.run.locked", refused)
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}

    assert train(settings(run), if_exists="resume") == run
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files
    with pytest.raises(DataError, match=r"cannot resume .* with another configuration: epochs"):
        train(settings(run, epochs=2), if_exists="resume")


def test_a_finished_recipe_is_resumed_where_nothing_can_be_written(tmp_path, run, monkeypatch):
    out = recipe(run, tmp_path / "out")

    def refused(*_):
        raise AssertionError("the folder was locked")

    monkeypatch.setattr("bitline.recipes.run.locked", refused)
    assert recipe(run, out, if_exists="resume") == out
    with pytest.raises(DataError, match=r"cannot resume .* with another configuration: images"):
        recipe(run, out, if_exists="resume", images=16)
