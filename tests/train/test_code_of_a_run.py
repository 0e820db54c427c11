"""A run knows the Python file that its network came from, whatever text tools do to ends of lines."""

import shutil
from pathlib import Path

import pytest
import torch

from bitline import manifest
from bitline.errors import DataError
from bitline.files import RECORD, RUN_MANIFEST, read_json, write_json
from bitline.models.files import load_run
from bitline.train.module import Classifier
from bitline.train.run import train
from run_samples import bitline, copied, recipe, settings, trained

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


@pytest.fixture
def earlier(tmp_path, net, run) -> Path:
    """A run as earlier versions wrote one: its file lies elsewhere."""
    old = copied(run, tmp_path / "earlier")
    (old / "code" / "net.py").unlink()
    record = read_json(old / RECORD)
    (digest,) = record.pop("code").values()
    write_json(old / RECORD, {**record, "model": f"{net}:Net", "code_sha256": digest})
    manifest.write(old)
    return old


@pytest.mark.parametrize("version", ["run", "earlier"])
def test_a_python_file_that_was_changed_is_named_refused_unrun_and_accepted_on_purpose(tmp_path, net, request, version):
    folder = request.getfixturevalue(version)
    file, name = (net, str(net)) if version == "earlier" else (folder / "code" / "net.py", "code/net.py")
    file.write_text(
        NET.replace("nn.ReLU", "nn.Tanh") + f"import pathlib\npathlib.Path({str(tmp_path / 'ran')!r}).touch()\n"
    )

    _, error = bitline("evaluate", folder, "--trust-code", status=1)
    assert f"the code of {folder} is not as it was written: {name} was changed" in error
    assert f"bitline accept {folder}" in error
    assert not (tmp_path / "ran").exists()

    told, _ = bitline("accept", folder)
    assert told.splitlines() == [f"{name} was changed", f"{folder}: accepted"]
    load_run(folder, trust_code=True)
    assert (tmp_path / "ran").exists()
    assert read_json(folder / RUN_MANIFEST)["edited"] == [RECORD]


def test_a_file_beside_the_code_of_a_run_is_refused_since_the_code_could_import_it(run):
    (run / "code" / "more.py").write_text("")
    with pytest.raises(DataError, match=r"code/more\.py was added"):
        load_run(run, trust_code=True)
    (run / "code" / "more.py").unlink()
    (run / "code" / "net.py").unlink()
    with pytest.raises(DataError, match=r"code/net\.py is missing"):
        load_run(run, trust_code=True)


@pytest.mark.parametrize("version", ["run", "earlier"])
def test_ends_of_lines_are_no_change(net, request, version):
    folder = request.getfixturevalue(version)
    for path in [net, *folder.glob("*.json"), *folder.glob("code/*")]:
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n" * (path.suffix == ".json"))

    load_run(folder, trust_code=True)

    assert bitline("accept", folder)[0] == f"{folder} is as it was written\n"


def test_a_run_needs_its_folder_alone_and_so_does_what_a_recipe_makes_of_it(tmp_path, net, run):
    before = load_run(run, trust_code=True)
    moved = tmp_path / "elsewhere" / "run"
    moved.parent.mkdir()
    run.rename(moved)
    net.unlink()

    after = load_run(moved, trust_code=True)
    assert before.record.model_dump() == after.record.model_dump()
    for name, tensor in before.model.state_dict().items():
        assert torch.equal(tensor, after.model.state_dict()[name])

    made = recipe(moved, tmp_path / "made", trust_code=True)
    shutil.rmtree(moved)
    assert (made / "code" / "net.py").read_text() == NET
    load_run(made, trust_code=True)


def test_a_run_of_an_earlier_version_makes_runs_that_need_their_folder_alone(tmp_path, net, earlier):
    made = recipe(earlier, tmp_path / "made", trust_code=True)
    net.unlink()
    assert load_run(made, trust_code=True).record.model == "code/net.py:Net"


def test_another_number_in_a_json_file_is_a_change(run):
    (run / "metrics.json").write_text((run / "metrics.json").read_text().replace('"epochs": 1', '"epochs": 2'))

    with pytest.raises(DataError, match=r"metrics\.json was changed"):
        load_run(run, trust_code=True)


def test_a_run_that_does_not_know_its_file_is_read_and_said_to_be_unchecked(net, earlier):
    run = earlier
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
