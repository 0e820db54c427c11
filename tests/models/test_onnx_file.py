"""Networks in ONNX: what is refused, what onnx2torch is given, and what comes of it where it is installed."""

import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from bitline.chip.variants import ideal
from bitline.errors import DataError
from bitline.extras import ExtraError
from bitline.models.program import load_program
from bitline.nn import calibrate, to_crossbar

onnx = pytest.importorskip("onnx")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.deep = nn.Conv2d(4, 4, 3, groups=4, padding=1, stride=2)
        self.token, self.head = nn.Linear(16, 16), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.deep(F.relu(self.norm(self.conv(x)))))
        return self.head(self.token(x.flatten(2)).flatten(1))


def own() -> nn.Module:
    torch.manual_seed(0)
    net = Net()
    net.norm.running_mean.normal_()
    net.norm.running_var.uniform_(0.5, 2)
    return net.eval()


def save(net: nn.Module, path: Path, *, dynamo: bool = False) -> Path:
    pytest.importorskip("onnxscript")
    x = torch.randn(2, 1, 8, 8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(net, (x,), str(path), dynamo=True, dynamic_shapes=shapes, external_data=False)
        else:
            axes = {"x": {0: "batch"}}
            torch.onnx.export(net, (x,), str(path), dynamo=False, input_names=["x"], dynamic_axes=axes)
    return path


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Have a stand-in for onnx2torch, and what it is given."""
    models: list[Any] = []

    def convert(model: Any) -> nn.Module:
        models.append(model)
        return nn.Identity()

    monkeypatch.setitem(sys.modules, "onnx2torch", SimpleNamespace(convert=convert))
    return models


def test_the_package_that_is_needed_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx2torch", None)
    (tmp_path / "net.onnx").write_bytes(b"")
    with pytest.raises(ExtraError, match=r'^net\.onnx needs onnx2torch: pip install "bitline\[onnx\]"$'):
        load_program(tmp_path / "net.onnx")


def graph(inputs: int = 1, zeros: tuple[int, ...] = (-1, 4), version: int = 20) -> Any:
    """Reshape a batch of images, with a 0 that would mean a length of 0."""
    value, floats = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    shape = onnx.numpy_helper.from_array(torch.tensor(zeros).numpy(), "shape")
    node = onnx.helper.make_node("Reshape", ["x0", "shape"], ["y"], allowzero=1)
    images = [value(f"x{number}", floats, ["batch", 1, 2, 2]) for number in range(inputs)]
    body = onnx.helper.make_graph([node], "g", images, [value("y", floats, ["images", "numbers"])], [shape])
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", version)], ir_version=9)


def test_what_is_no_network_of_one_input_in_one_file_is_refused(tmp_path, given):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"no protobuf")
    with pytest.raises(DataError, match=r"net\.onnx is damaged, or no ONNX: "):
        load_program(path)
    onnx.save(graph(inputs=2), path)
    with pytest.raises(DataError, match=r"has 2 inputs and 1 outputs; expected one of each"):
        load_program(path)
    onnx.save(graph(), path, save_as_external_data=True, size_threshold=0, location="weights")
    with pytest.raises(DataError, match="has its weights in other files; save it as one: external_data=False"):
        load_program(path)
    assert not given


@pytest.mark.parametrize(("zeros", "left"), [((-1, 4), 0), ((0, 4), 1)])
def test_a_later_file_is_taken_back_and_a_reshape_loses_what_it_does_not_need(tmp_path, given, zeros, left):
    onnx.save(graph(zeros=zeros), tmp_path / "net.onnx")
    network = load_program(tmp_path / "net.onnx")
    assert network.shape == (1, 2, 2)
    (model,) = given
    assert model.opset_import[0].version == 18
    assert sum(each.name == "allowzero" for node in model.graph.node for each in node.attribute) == left
    x = torch.randn(3, 1, 2, 2)
    assert torch.equal(network(x), x)


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_network_is_the_one_that_was_exported_and_lies_on_crossbars(tmp_path, make_chip, dynamo):
    pytest.importorskip("onnx2torch")
    net, x = own(), torch.randn(3, 1, 8, 8)
    network = load_program(save(net, tmp_path / "net.onnx", dynamo=dynamo))
    assert network.shape == (1, 8, 8)
    assert torch.allclose(network(x), net(x), atol=1e-5)
    converted, report = to_crossbar(network, ideal(make_chip(weights={"bits": 8}, inputs={"bits": 8})), example=x)
    assert {part.matmul.macs for part in report.layers} >= {64 * 9 * 4, 16 * 9 * 4, 640}
    calibrate(converted, [x])
    assert (converted(x) - net(x)).norm() < 0.1 * net(x).norm()


def test_an_operation_without_a_module_is_named_with_what_can_be_done(tmp_path):
    pytest.importorskip("onnx2torch")
    value, floats = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    node = onnx.helper.make_node("Det", ["x"], ["y"])
    body = onnx.helper.make_graph([node], "g", [value("x", floats, [1, 1, 2, 2])], [value("y", floats, [1, 1])])
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(body, opset_imports=opsets, ir_version=9), tmp_path / "net.onnx")
    with pytest.raises(
        DataError, match=r"net\.onnx cannot become modules: NotImplementedError: .*Det.*opset_version=18"
    ):
        load_program(tmp_path / "net.onnx")
