"""A run knows the Python file that its network came from, whatever text tools do to ends of lines."""

from pathlib import Path

import pytest

from bitline.errors import DataError
from bitline.files import RECORD, RUN_MANIFEST, read_json, write_json
from bitline.models.files import load_run
from bitline.train.module import Classifier
from bitline.train.run import train
from run_samples import bitline, settings, trained

NET = """
from torch import nn


class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
"""


class KilledError(Exception):
    pass


@pytest.fixture
def net(tmp_path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(NET)
    return path


@pytest.fixture
def run(tmp_path, net) -> Path:
    return trained(tmp_path / "run", model=f"{net}:Net")


def test_a_python_file_that_was_changed_is_named_refused_unrun_and_accepted_on_purpose(tmp_path, net, run):
    net.write_text(
        NET.replace("nn.ReLU", "nn.Tanh") + f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    )

    _, error = bitline("evaluate", run, "--trust-code", status=1)
    assert f"{net} is not as it was when {run} was trained from it" in error
    assert f"bitline accept {run}" in error
    assert not (tmp_path / "ran").exists()

    told, _ = bitline("accept", run)
    assert told.splitlines() == [f"{net} was changed", f"{run}: accepted"]
    load_run(run, trust_code=True)
    assert (tmp_path / "ran").exists()
    assert read_json(run / RUN_MANIFEST)["edited"] == [RECORD]


def test_ends_of_lines_are_no_change(net, run):
    net.write_bytes(net.read_bytes().replace(b"\n", b"\r\n"))
    for path in run.glob("*.json"):
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")

    load_run(run, trust_code=True)

    assert bitline("accept", run)[0] == f"{run} is as it was written\n"


def test_another_number_in_a_json_file_is_a_change(run):
    (run / "metrics.json").write_text((run / "metrics.json").read_text().replace('"epochs": 1', '"epochs": 2'))

    with pytest.raises(DataError, match=r"metrics\.json was changed"):
        load_run(run, trust_code=True)


def test_a_run_that_does_not_know_its_file_is_read_and_said_to_be_unchecked(net, run):
    record = read_json(run / RECORD)
    del record["code_sha256"]
    write_json(run / RECORD, record)
    (run / RUN_MANIFEST).unlink()
    bitline("accept", run)  # writes it down
    assert read_json(run / RECORD)["code_sha256"] is not None

    write_json(run / RECORD, record)
    for path in ("config.json",):
        write_json(run / path, {k: v for k, v in read_json(run / path).items() if k != "manifest"})
    (run / RUN_MANIFEST).unlink()
    _, said = bitline("cost", run, "--trust-code")
    assert f"did not write down what is in {net}: whether it is the same file is not checked" in said


def test_a_training_is_not_resumed_with_another_python_file(tmp_path, net, monkeypatch):
    def dying(*_):
        raise KilledError

    own = settings(tmp_path / "run", model=f"{net}:Net")
    with monkeypatch.context() as patch:
        patch.setattr(Classifier, "training_step", dying)
        with pytest.raises(KilledError):
            train(own)
    net.write_text(NET.replace("nn.ReLU", "nn.Tanh"))

    with pytest.raises(DataError, match=r"net\.py:Net is not as it was when the training in .* began"):
        train(own, if_exists="resume")

    net.write_text(NET)
    assert load_run(train(own, if_exists="resume"), trust_code=True)
