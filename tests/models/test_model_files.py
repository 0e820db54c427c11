import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from bitline.errors import DataError
from bitline.models import build
from bitline.models.files import load_model_file, load_run, make
from bitline.models.weights import load_weights

SOURCE = """
from torch import nn
from neighbour import WIDTH

class Net(nn.Linear):
    def __init__(self, width=WIDTH):
        super().__init__(width, 2)

class Needy(nn.Linear):
    pass

def factory():
    return Net(5)

def wrong():
    return 3

instance = Net(7)
number = 4
"""


@pytest.fixture
def source(tmp_path) -> Path:
    (tmp_path / "neighbour.py").write_text("WIDTH = 3\n")
    (tmp_path / "nets.py").write_text(SOURCE)
    return tmp_path / "nets.py"


@pytest.mark.parametrize(("name", "inputs"), [("Net", 3), ("factory", 5), ("instance", 7)])
def test_a_class_a_function_and_an_instance_all_give_the_network(source, name, inputs):
    model = load_model_file(f"{source}:{name}")

    assert isinstance(model, nn.Linear)
    assert model.in_features == inputs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nett", r"has no 'Nett'; it defines .*; did you mean 'Net'\?"),
        ("number", "is a int; expected an nn.Module"),
        ("wrong", "gave a int; expected an nn.Module"),
        ("Needy", "cannot be called without arguments: TypeError"),
    ],
)
def test_a_name_that_is_no_network_is_an_error_that_says_what_it_is(source, name, message):
    with pytest.raises(DataError, match=message):
        load_model_file(f"{source}:{name}")


def test_a_file_that_does_not_run_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0\n")

    with pytest.raises(DataError, match=r"bad\.py does not run: ZeroDivisionError"):
        load_model_file(f"{tmp_path}/bad.py:Net")


@pytest.mark.parametrize(
    ("spec", "message"),
    [("absent.py:Net", "no such file"), ("nets.py", "expected FILE.py:NAME"), ("a/b:Net", "expected FILE.py:NAME")],
)
def test_a_malformed_or_absent_file_is_refused(spec, message):
    with pytest.raises(DataError, match=message):
        make(spec)


def test_weights_survive_a_round_trip(tmp_path):
    one, other = build("lenet5", width=0.5), build("lenet5", width=0.5)
    save_model(one, str(tmp_path / "w.safetensors"))

    load_weights(other, tmp_path / "w.safetensors")

    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


def test_pickled_weights_are_refused_unread(tmp_path):
    torch.save({}, tmp_path / "w.pt")

    with pytest.raises(
        DataError, match=r"weights are read from \.safetensors only, because other formats can run code"
    ):
        load_weights(nn.Linear(1, 1), tmp_path / "w.pt")


def test_weights_of_another_network_are_refused(tmp_path):
    save_model(nn.Linear(3, 2), str(tmp_path / "w.safetensors"))

    with pytest.raises(DataError, match=r"does not fit Linear: .*size mismatch"):
        load_weights(nn.Linear(4, 2), tmp_path / "w.safetensors")
    with pytest.raises(DataError, match="does not fit Conv2d"):
        load_weights(nn.Conv2d(1, 1, 1), tmp_path / "w.safetensors")


def test_a_truncated_weight_file_is_refused(tmp_path):
    save_model(nn.Linear(3, 2), str(tmp_path / "w.safetensors"))
    content = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "w.safetensors").write_bytes(content[:-4])

    with pytest.raises(DataError, match=r"w\.safetensors does not fit Linear"):
        load_weights(nn.Linear(3, 2), tmp_path / "w.safetensors")


def test_an_absent_and_an_unfinished_run_are_errors(tmp_path):
    with pytest.raises(DataError, match="no such run directory"):
        load_run(tmp_path / "absent")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DataError, match=r"not a finished run \(no model.json, model.safetensors, metrics.json\)"):
        load_run(tmp_path)


def test_an_unknown_key_in_the_record_of_a_run_is_refused(tmp_path):
    for name in ("config.json", "metrics.json", "model.safetensors"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "model.json").write_text(json.dumps({"model": "vgg8", "colour": "red"}))

    with pytest.raises(DataError, match=r"model\.json: "):
        load_run(tmp_path)
