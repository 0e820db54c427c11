"""`bitline export`."""

import hashlib
import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_model
from typer.testing import CliRunner

from bitline.cli import app
from bitline.errors import ChipError, ConversionError, DataError, ExportError
from bitline.files import read_tensors
from bitline.integer.network import IntegerNetwork
from bitline.models import build
from bitline.models.record import ModelRecord
from bitline.recipes.files import write_run

POWERS = ("--set", "weights.scale=power_of_two", "--set", "inputs.scale=power_of_two", "--set", "weights.bias_bits=8")


def bitline(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.output


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    kwargs = {"num_classes": 10, "in_channels": 1, "image_size": 8}
    record = ModelRecord(
        model="lenet5",
        kwargs=kwargs,
        data="digits",
        title="digits",
        classes=tuple("0123456789"),
        channels=1,
        image_size=8,
        mean=(0.3,),
        std=(0.4,),
    )
    folder = tmp_path_factory.mktemp("runs") / "lenet"
    write_run(folder, build("lenet5", **kwargs), record, {}, {"test_accuracy": 0.1})
    return folder


@pytest.mark.parametrize(("to", "against"), [("onnx", "onnxruntime"), ("integer", "simulated chip, ideal cells")])
def test_an_integer_network_is_written_and_compared(run, tmp_path, to, against):
    if to == "onnx":
        pytest.importorskip("onnxruntime")
    bitline("export", run, "--to", to, "--chip", "example-128", *POWERS, "--check", 70, "--out", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    check = manifest["check"]
    assert (check["images"], check["different"], check["against"]) == (70, 0, against)
    assert 0 <= check["accuracy"] <= 100
    assert manifest["sha256"] == hashlib.sha256((tmp_path / manifest["file"]).read_bytes()).hexdigest()
    assert manifest["chip"]["weights"]["bias_bits"] == 8
    if to == "integer":
        network = IntegerNetwork.load(tmp_path / manifest["file"])
        assert list(network.shape) == manifest["input"]["shape"] == [1, 8, 8]
        assert network.sum_bits == manifest["sum_bits"]
        header = read_tensors(tmp_path / manifest["file"]).metadata
        assert json.loads(header["chip"]) == manifest["chip"]


def test_conductances_of_a_programmed_chip_are_written(run, tmp_path):
    out = bitline("export", run, "--to", "conductances", "--chip", "rram-22nm", "--seed", 2, "--out", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["seed"] == 2
    assert f"{len(manifest['crossbars'])} blocks" in out
    assert {b["file"] for b in manifest["crossbars"]} == {path.name for path in tmp_path.glob("*.safetensors")}
    assert len({b["layer"] for b in manifest["crossbars"]}) == 5


def test_shapes_of_layers_are_written_and_what_another_export_left_is_removed(run, tmp_path):
    bitline("export", run, "--to", "workload", "--chip", "rram-22nm", "--out", tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    files = {"workload.yaml", *(layer["file"] for layer in manifest["layers"])}
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {"manifest.json", *files}
    assert sum(layer["macs"] for layer in manifest["layers"]) > 0
    out = bitline("export", run, "--to", "layers", "--chip", "rram-22nm", "--out", tmp_path)
    assert "layers.csv" in out
    assert {path.name for path in tmp_path.iterdir() if not path.name.startswith(".")} == {
        "manifest.json",
        "layers.csv",
    }
    table = (tmp_path / "layers.csv").read_text().splitlines()
    assert len(table) == 5
    assert table[0].split(",")[:3] == ["8", "8", "1"]
    assert [table[number].split(",")[6] for number in range(5)] == ["1", "1", "0", "0", "0"]
    with pytest.raises(DataError, match="--check 5 does nothing here: --to layers writes shapes, no numbers"):
        bitline("export", run, "--to", "layers", "--check", 5, "--out", tmp_path)


def test_what_cannot_be_exported_is_named(run, tmp_path):
    with pytest.raises(
        ExportError, match=r"'onix'; did you mean 'onnx'\?; allowed: onnx, integer, conductances, layers, workload"
    ):
        bitline("export", run, "--to", "onix")
    powers = "add --set weights.scale=power_of_two --set inputs.scale=power_of_two --set weights.bias_bits=8"
    with pytest.raises(ChipError, match=re.escape(powers)):
        bitline("export", run, "--to", "integer", "--chip", "rram-22nm", "--out", tmp_path)
    with pytest.raises(ExportError, match="--seed 1 belongs to --to conductances"):
        bitline("export", run, "--to", "onnx", "--seed", 1)
    assert not list(tmp_path.iterdir())


NET = """
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Sigmoid(), nn.Flatten(), nn.Linear(144, 10))

    def forward(self, x):
        return self.net(x)
"""


@pytest.mark.parametrize("to", ["onnx", "integer"])
def test_an_operation_without_an_integer_form_is_named_before_number_formats(tmp_path, monkeypatch, to):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    scope: dict[str, type[torch.nn.Module]] = {}
    exec(NET, scope)
    save_model(scope["Net"](), str(tmp_path / "net.safetensors"))
    network = ("--model", f"{tmp_path / 'net.py'}:Net", "--weights", tmp_path / "net.safetensors", "--data", "digits")
    with pytest.raises(ConversionError, match=r"(?i)sigmoid") as raised:
        bitline("export", *network, "--to", to, "--chip", "rram-22nm", "--out", tmp_path / "out")
    assert "power_of_two" not in str(raised.value)
    assert not (tmp_path / "out").exists()
