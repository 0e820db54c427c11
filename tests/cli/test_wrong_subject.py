"""What was not meant is refused or said: other classes, another network's export, a folder that is not there."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from bitline.data import load
from bitline.errors import DataError
from bitline.files import RECORD
from bitline.models.files import load_run
from bitline.models.record import ModelRecord
from run_samples import bitline, trained

NAMES = ("nought", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
CELLS = ("--to", "conductances", "--chip", "example-128", "--calibration-images", 64)


def pictures(folder: Path, names: tuple[str, ...] = NAMES) -> Path:
    """The digits as class folders without a split."""
    digits = load("digits")
    for number, (image, label) in enumerate(zip(digits.train_images, digits.train_labels, strict=True)):
        place = folder / names[int(label)]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(image[0])).save(place / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def own(once) -> Path:
    """Class folders ``data``, and a run ``run`` of their classes."""

    def make(folder: Path) -> None:
        folder.mkdir()
        pictures(folder / "data")
        trained(folder / "run", data=str(folder / "data"), split=0.2)

    return once("class-folders", make)


def test_classes_are_matched_by_name_whatever_their_order(own):
    run = load_run(own / "run")
    data = run.record.load()
    turned = tuple(reversed(run.record.classes))
    content = run.record.model_dump(mode="json")
    other = ModelRecord.checked("record", {**content, "classes": list(turned)}).fed(data)
    assert other.classes == turned
    for split in ("train", "test"):
        names = [data.classes[int(label)] for label in data.split(split)[1]]
        assert [turned[int(label)] for label in other.split(split)[1]] == names
    assert torch.equal(other.test_images, data.test_images)


def test_classes_of_other_names_are_refused_with_those_of_both_sides(own, tmp_path):
    moved = Path(shutil.copytree(own / "data", tmp_path / "data"))
    (moved / "nought").rename(moved / "zero")
    _, error = bitline("evaluate", own / "run", "--data", moved, "--chip", "example-128", status=1)
    assert "zero there alone, nought in the network alone" in " ".join(error.split())


def test_data_that_number_their_classes_are_taken_in_that_order_with_a_warning(own, tmp_path, caplog):
    numbered = load(str(pictures(tmp_path / "numbered", tuple("0123456789"))), split=0.2)
    fed = load_run(own / "run").record.fed(numbered)
    assert torch.equal(fed.test_labels, numbered.test_labels)
    assert "the classes of numbered are numbers, and those of the other have names" in caplog.text


def test_moved_data_are_divided_as_they_were(own, tmp_path):
    moved = Path(shutil.copytree(own / "data", tmp_path / "elsewhere"))
    record = load_run(own / "run").record
    there, here = record.load(), record.load(data=str(moved))
    assert record.source == {"split": 0.2}
    assert torch.equal(there.test_images, here.test_images)
    assert torch.equal(there.test_labels, here.test_labels)
    half = record.load(data=str(moved), source={"split": 0.5})
    assert len(half.test_labels) > 2 * len(here.test_labels)


def test_other_data_with_test_images_of_their_own_are_not_divided(own, tmp_path):
    shutil.copytree(own / "data", tmp_path / "d" / "train")
    shutil.copytree(own / "data", tmp_path / "d" / "test")
    data = load_run(own / "run").record.load(data=str(tmp_path / "d"))
    assert len(data.test_labels) == len(data.train_labels) == 1442


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("photso", "no such file or folder: photso; did you mean 'photos'?"),
        ("sets/photso", "no such file or folder: sets/photso; did you mean 'photos'?"),
        ("digist", "no such file or folder: digist; did you mean 'digits'?"),
        ("a/b/c", "no such file or folder: a/b/c"),
    ],
)
def test_a_mistyped_folder_is_named_with_what_it_may_mean(tmp_path, monkeypatch, name, words):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "sets" / "photos").mkdir(parents=True)
    with pytest.raises(DataError) as caught:
        load(name)
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "digits"), "--model lenet5 needs --weights FILE.safetensors"),
        (("--weights", "w.safetensors"), "--model lenet5 needs --data"),
        ((), "--model lenet5 needs --weights FILE.safetensors and --data"),
    ],
)
def test_only_what_is_missing_is_named(options, words):
    _, error = bitline("evaluate", "--model", "lenet5", *options, status=1)
    assert error.strip() == f"error: {words}"


def test_an_absent_evaluation_file_is_called_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nape.json").write_text("{}")
    (tmp_path / "a.json").write_text("{}")
    from bitline.report.runs import evaluation_of

    with pytest.raises(DataError, match=r"no such evaluation file: nope.json; did you mean 'nape.json'\?"):
        evaluation_of(Path("nope.json"))
    with pytest.raises(DataError, match="no such run directory: nope"):
        evaluation_of(Path("nope"))


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ((), "assumed: 32 px (--image-size), 3 channels (--in-channels), 10 classes (--classes)"),
        (("--image-size", 64, "--classes", 5), "assumed: 3 channels (--in-channels)"),
        (("--data", "digits"), None),
        (("--image-size", 8, "--classes", 5, "--in-channels", 1), None),
    ],
)
def test_what_a_price_assumes_is_said(options, note):
    out, _ = bitline("cost", "lenet5", *options, "--json", "-")
    notes: list[str] = json.loads(out)["notes"]
    assert [each for each in notes if each.startswith("assumed")] == ([] if note is None else [note])
    shown, _ = bitline("cost", "lenet5", *options)
    assert ("- assumed: " in shown) is (note is not None)


@pytest.fixture(scope="module")
def exported(own, tmp_path_factory) -> dict[str, Any]:
    """The run, another one of other weights, and an export of the first."""
    folder: Path = tmp_path_factory.mktemp("exported")
    other = trained(folder / "other", seed=1)
    bitline("export", own / "run", *CELLS, "--out", folder / "cells")
    return {"run": own / "run", "other": other, "cells": folder / "cells"}


def test_the_export_of_another_network_is_refused_and_nothing_of_it_changes(exported, tmp_path):
    cells = Path(shutil.copytree(exported["cells"], tmp_path / "cells"))
    before = {file.name: file.read_bytes() for file in cells.iterdir()}
    _, error = bitline("export", exported["other"], *CELLS, "--out", cells, status=1)
    assert "holds an export of another network" in error
    assert "add --overwrite" in error
    assert {file.name: file.read_bytes() for file in cells.iterdir()} == before
    bitline("export", exported["run"], *CELLS, "--seed", 3, "--out", cells)
    assert json.loads((cells / "manifest.json").read_text())["seed"] == 3
    bitline("export", exported["other"], *CELLS, "--out", cells, "--overwrite")
    assert json.loads((cells / "manifest.json").read_text())["run"] == str(exported["other"])


def test_files_of_something_else_are_not_mixed_with_an_export(exported, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    _, error = bitline("export", exported["run"], *CELLS, "--out", tmp_path, status=1)
    assert "is no export (it holds notes.txt)" in " ".join(error.split())
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


def test_files_that_a_new_export_does_not_have_go(exported, tmp_path):
    cells = Path(shutil.copytree(exported["cells"], tmp_path / "cells"))
    (cells / "gone.safetensors").write_bytes(b"old")
    (cells / "kept.txt").write_text("mine")
    manifest = json.loads((cells / "manifest.json").read_text())
    manifest["crossbars"] += [{"file": "gone.safetensors"}, {"file": "kept.txt"}, {"file": "../run/model.json"}]
    (cells / "manifest.json").write_text(json.dumps(manifest))
    bitline("export", exported["run"], *CELLS, "--out", cells)
    assert not (cells / "gone.safetensors").exists()
    assert (cells / "kept.txt").exists()
    assert (exported["run"] / RECORD).exists()
