"""A network is fed as it was trained, whatever data it is given, and its own code runs only where it is trusted."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from bitline import data as datasets
from bitline.errors import DataError
from bitline.files import CONFIG, RECORD, read_json, write_json
from bitline.models import record as record_module
from bitline.models.files import load_run
from bitline.models.record import ModelRecord
from bitline.train.teacher import teacher_of
from run_samples import bitline, copied, trained, trained_from_file

SMALL = ("--chips", 1, "--images", 32, "--threads", 1)


@pytest.fixture(scope="module")
def run(once) -> Path:
    return once("refused", trained)


@pytest.fixture(scope="module")
def from_file(once) -> Path:
    return once("from-file", trained_from_file) / "run"


def darker(data: datasets.DataSet) -> datasets.DataSet:
    """The same test images, beside training images of other statistics."""
    return data.normalized_by((0.1,), (0.2,))


def test_other_data_are_normalized_as_the_network_was_trained(run, monkeypatch):
    original, load = datasets.load("digits"), datasets.load
    own = ModelRecord.read(run / RECORD).fed(darker(original))
    assert (own.mean, own.std) == (original.mean, original.std)

    expected = json.loads(bitline("evaluate", run, *SMALL, "--json", "-")[0])
    monkeypatch.setattr(datasets, "load", lambda *a, **k: darker(load(*a, **k)))
    found = json.loads(bitline("evaluate", run, *SMALL, "--json", "-")[0])

    assert found["accuracy"] == expected["accuracy"]


def test_a_teacher_sees_images_as_it_was_trained_whatever_the_student_sees(run):
    data = datasets.load("digits")
    teacher = load_run(run)
    expected = teacher.model(data.normalize(data.test_images[:8]))

    found = teacher_of(teacher, darker(data))(darker(data).normalize(data.test_images[:8]))

    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    same = teacher_of(teacher, data)(data.normalize(data.test_images[:8]))
    assert torch.equal(same, expected)


@pytest.mark.parametrize(
    "wrong",
    [
        {"std": [0]},
        {"std": [float("nan")]},
        {"std": []},
        {"mean": []},
        {"mean": [0.1, 0.2]},
        {"classes": ["a", "b", "c"]},
        {"mean": [40]},
    ],
)
def test_statistics_that_no_network_can_have_are_refused(tmp_path, run, wrong):
    edited = copied(run, tmp_path / "run")
    content = json.loads((edited / RECORD).read_text()) | wrong
    (edited / RECORD).write_text(json.dumps(content))
    (edited / "run.json").unlink()
    config = read_json(edited / CONFIG)
    del config["manifest"]
    write_json(edited / CONFIG, config)

    with pytest.raises(DataError, match=r"model\.json"):
        load_run(edited)


def test_data_of_other_classes_are_refused(run):
    record = ModelRecord.read(run / RECORD).model_copy(update={"classes": ("a", "b")})

    with pytest.raises(DataError, match="has 10 classes; the network tells 2 apart"):
        record.fed(datasets.load("digits"))


@pytest.mark.parametrize(
    "command",
    [
        ("evaluate", "RUN", *SMALL),
        ("cost", "RUN"),
        ("export", "RUN", "--to", "conductances", "--out", "OUT"),
        ("optimize", "conventional", "RUN", *SMALL, "--out", "OUT"),
        ("train", "lenet5", "--data", "digits", "--epochs", 1, "--threads", 1, "--teacher", "RUN", "--out", "OUT"),
        ("study", "partial-sums", "RUN", *SMALL, "--rows", "64", "--bits", 4, "--tile-rows", "none", "--out", "OUT"),
    ],
    ids=lambda command: command[0],
)
def test_a_network_from_a_file_is_used_everywhere_with_trust_code_and_nowhere_without(tmp_path, from_file, command):
    words = {"RUN": from_file, "OUT": tmp_path / "out"}
    arguments = [words.get(str(each), each) for each in command]

    _, error = bitline(*arguments, status=1)
    assert "loading it runs that file: add --trust-code" in error

    bitline(*arguments, "--trust-code")


def test_exports_stay_in_their_folder_whatever_a_layer_is_called(tmp_path):
    from bitline.chip import load
    from bitline.integer import conductances
    from bitline.nn import to_crossbar

    network = nn.Sequential()
    for name in (str(tmp_path / "ESCAPED").replace(".", "-"), "../up".replace(".", ""), "a/b"):
        network.add_module(name, nn.Linear(8, 8))
    model, _ = to_crossbar(network.eval(), load("example-128"), example=torch.rand(2, 8))

    conductances.write(model, tmp_path / "out" / "deep")

    assert {path.parent for path in tmp_path.rglob("*.safetensors")} == {tmp_path / "out" / "deep"}
    assert len(list((tmp_path / "out" / "deep").iterdir())) == 3


def test_classes_in_another_order_are_numbered_as_the_network_has_them(run):
    data, record = datasets.load("digits"), ModelRecord.read(run / RECORD)
    turned = record.model_copy(update={"classes": tuple(reversed(data.classes))}).fed(data)
    assert turned.classes == tuple("9876543210")
    assert torch.equal(turned.test_labels, 9 - data.test_labels)
    assert torch.equal(turned.train_labels, 9 - data.train_labels)


def test_classes_that_are_only_numbered_are_taken_in_order_and_said_to_be(run, caplog):
    data, record = datasets.load("digits"), ModelRecord.read(run / RECORD)
    named = record.model_copy(update={"classes": tuple("jihgfedcba")})
    record_module._warn.cache_clear()
    with caplog.at_level("WARNING", "bitline"):
        assert torch.equal(named.fed(data).test_labels, data.test_labels)
        record.fed(data)
    assert caplog.messages == [
        "the classes of digits 8x8 are numbers, and those of the other have names: taken in their order"
    ]


def test_classes_of_other_names_are_refused(run):
    data, record = datasets.load("digits"), ModelRecord.read(run / RECORD)
    named = record.model_copy(update={"classes": tuple("jihgfedcba")})
    other = dataclasses.replace(data, classes=(*"012345678", "nine"))
    with pytest.raises(
        DataError, match="0, 1, 2, 3, 4 and 5 more there alone, a, b, c, d, e and 5 more in the network"
    ):
        named.fed(other)
