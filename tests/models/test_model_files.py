import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from torch import nn

from bitline.errors import DataError
from bitline.models import build
from bitline.models.files import load_run
from bitline.models.record import ModelRecord
from bitline.models.source import code_of, load_model_file
from bitline.models.spec import make
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
    model = load_model_file(source, name)

    assert isinstance(model, nn.Linear)
    assert model.in_features == inputs


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nett", r"has no 'Nett'; it defines .*; did you mean 'Net'\?"),
        ("number", "is a int; expected an nn.Module"),
        ("wrong", "gave a int; expected an nn.Module"),
        ("Needy", r"cannot be called without arguments \(--model-args gives it some\): TypeError"),
    ],
)
def test_a_name_that_is_no_network_is_an_error_that_says_what_it_is(source, name, message):
    with pytest.raises(DataError, match=message):
        load_model_file(source, name)


def test_a_file_that_does_not_run_is_an_error_with_its_reason(tmp_path):
    (tmp_path / "bad.py").write_text("1 / 0\n")

    with pytest.raises(DataError, match=r"bad\.py does not run: ZeroDivisionError"):
        load_model_file(tmp_path / "bad.py", "Net")


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


RECORD = {
    "model": "lenet5",
    "kwargs": {"num_classes": 2, "in_channels": 1, "image_size": 8, "width": 0.5},
    "data": "digits",
    "title": "digits",
    "classes": ["0", "1"],
    "channels": 1,
    "image_size": 8,
    "mean": [0.3],
    "std": [0.4],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kwargs": {"cls": 1}}, "kwargs: unknown key 'cls'; allowed: num_classes, in_channels, image_size, width"),
        ({"kwargs": {"width": "1"}}, "kwargs.width = '1'; allowed: a number"),
        ({"kwargs": {"width": True}}, "kwargs.width = True; allowed: a number"),
        ({"kwargs": 3}, "kwargs = 3: Input should be a valid dictionary"),
        ({"colour": "red"}, "colour = 'red': Extra inputs are not permitted"),
        ({"std": [0]}, r"std.0 = 0: Input should be greater than 0"),
        ({"mean": [7]}, r"mean.0 = 7: Input should be less than or equal to 1"),
        ({"mean": []}, "mean has 0 numbers for 1 channels"),
        ({"std": [1, 1]}, "std has 2 numbers for 1 channels"),
        ({"classes": ["0", "1", "2"]}, "3 classes for num_classes = 2"),
        ({"classes": []}, "classes = .*: Tuple should have at least 1 item"),
        ({"channels": 10**9}, "channels = 1000000000: Input should be less than or equal to 1024"),
        ({"title": "x" * 5000}, "title = 'xxx.*: String should have at most 4096 characters"),
        ({"rewrites": [{"kind": "fold", "module": "x"}] * 5000}, "rewrites = .*at most 4096 items"),
        ({"rewrites": [{"kind": "melt", "module": "x"}]}, "rewrites.0.kind = 'melt': Input should be 'group'"),
    ],
)
def test_what_is_wrong_with_the_record_of_a_network_is_one_line(tmp_path, change, message):
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**RECORD, **change}))
    with pytest.raises(DataError) as error:
        ModelRecord.read(path)
    line = str(error.value)
    assert re.match(f"{re.escape(str(path))}: {message}", line)
    assert len(line.splitlines()) == 1
    assert len(line) < 500


def test_the_record_of_a_network_is_read_as_it_was_written(tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(RECORD))
    record = ModelRecord.read(tmp_path / "model.json")
    assert record.kwargs == RECORD["kwargs"]
    assert record.model_dump(mode="json") == {**RECORD, "rewrites": []}


def test_the_code_of_a_network_is_its_file_and_all_beside_it_that_it_imports(tmp_path, caplog):
    files = {
        "nets.py": "import os\nfrom layers.conv import Conv\n\ndef late():\n    import helper\n",
        "layers/__init__.py": "",
        "layers/conv.py": "from . import base\nfrom .deep.one import x\nclass Conv: ...\n",
        "layers/base.py": "",
        "layers/deep/one.py": "import os.path\nx = 1\n",
        "helper.py": "import nets\n",
        "unused.py": "",
        "layers/unused.py": "",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    code = code_of(tmp_path / "nets.py")

    assert sorted(code) == sorted(f"code/{name}" for name in files if "unused" not in name)
    assert code["code/helper.py"] == hashlib.sha256(files["helper.py"].encode()).hexdigest()
    assert not caplog.records


def test_a_module_that_is_neither_beside_a_file_nor_installed_is_named(tmp_path, monkeypatch, caplog):
    (tmp_path / "away").mkdir()
    (tmp_path / "away" / "elsewhere_only.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path / "away"))
    (tmp_path / "net.py").write_text("import elsewhere_only, torch, bitline, sys\n")

    assert list(code_of(tmp_path / "net.py")) == ["code/net.py"]

    (line,) = [record.getMessage() for record in caplog.records]
    assert "imports elsewhere_only from" in line
    assert "which is not copied" in line


def test_two_files_may_have_neighbours_of_one_name(tmp_path):
    for folder, width in (("a", 3), ("b", 5), ("a", 3)):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "neighbour.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / folder / "nets.py").write_text(SOURCE)
        assert load_model_file(tmp_path / folder / "nets.py", "Net").in_features == width
        assert not (tmp_path / folder / "__pycache__").exists()


def test_a_class_and_a_function_take_arguments_and_a_network_takes_none(source):
    assert make(f"{source}:Net", width=9).in_features == 9
    with pytest.raises(DataError, match=r"Net cannot be called with wide: TypeError"):
        make(f"{source}:Net", wide=9)
    with pytest.raises(DataError, match=r"instance is a network already and takes no arguments; it got width"):
        make(f"{source}:instance", width=9)


def test_a_file_that_imports_as_a_package_is_told_how_not_to(tmp_path):
    (tmp_path / "net.py").write_text("from .other import x\n")
    with pytest.raises(DataError, match=r"ImportError: .*run on its own, not as part of a package: write `from NAME"):
        load_model_file(tmp_path / "net.py", "Net")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"code": {"../x.py": "0" * 64}}, "code: '../x.py'; allowed: Python files and programs below code/"),
        ({"code": {"code/../x.py": "0" * 64}}, "code: 'code/../x.py'; allowed"),
        ({"code": {"/code/x.py": "0" * 64}}, "code: '/code/x.py'; allowed"),
        ({"code": {"code/x.so": "0" * 64}}, "code: 'code/x.so'; allowed"),
        ({"code": {"code/x.py": "0" * 64}}, "model 'lenet5' is not among its files of code, code/x.py"),
        ({"code": {"code/x.py": "0"}}, r"code.code/x.py = '0': String should match"),
        ({"source": {"colour": 3}}, "source.colour.*: Input should be 'split', 'image_column' or 'label_column'"),
    ],
)
def test_code_and_source_of_a_record_are_such(tmp_path, change, message):
    path = tmp_path / "model.json"
    path.write_text(json.dumps({**RECORD, **change}))
    with pytest.raises(DataError, match=re.escape(str(path)) + ": " + message.replace("..", r"\.\.")):
        ModelRecord.read(path)
