"""onnxruntime gives the integers of the interpreter, by integer operators alone."""

import json
import sys

import pytest
import torch
from integer_samples import NETWORKS, Mixed, on_chip, powers, shuffled
from torch import nn

from bitline.errors import ExportError
from bitline.integer.network import integer_network
from bitline.integer.onnx import export, operators, run

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def made(net: nn.Module, chip, shape, images=3):
    torch.manual_seed(1)
    x = torch.randn(images, *shape)
    network = integer_network(on_chip(shuffled(net), chip, x), x)
    return network, network.quantize(2 * x)


@pytest.mark.parametrize("name", NETWORKS)
def test_onnxruntime_gives_the_same_integers(make_chip, tmp_path, name):
    build, shape = NETWORKS[name]
    network, q = made(build(), powers(make_chip, inputs={"rounding": "nearest"}), shape)
    export(network, tmp_path / "net.onnx")
    assert torch.equal(run(tmp_path / "net.onnx", q, at_once=2), network(q).integers)


@pytest.mark.parametrize(
    ("weights", "bits"),
    [
        ({"bits": 4, "bias_bits": 20}, 4),
        ({"encoding": {"kind": "offset", "zero_point": 60}}, 8),
        ({"encoding": "pair"}, 6),
    ],
)
def test_other_widths_and_zero_points_give_the_same_integers(make_chip, tmp_path, weights, bits):
    network, q = made(Mixed(), powers(make_chip, weights=weights, inputs={"bits": bits}), (2, 8, 9))
    export(network, tmp_path / "net.onnx")
    assert torch.equal(run(tmp_path / "net.onnx", q), network(q).integers)


@pytest.mark.parametrize("name", ["mixed", "averages", "group"])
def test_without_graph_optimizations_the_integers_are_the_same(make_chip, tmp_path, name):
    build, shape = NETWORKS[name]
    network, q = made(build(), powers(make_chip), shape)
    export(network, tmp_path / "net.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
    (scores,) = session.run(["scores"], {"image": q.numpy()})
    assert torch.equal(torch.from_numpy(scores), network(q).integers)


def test_a_file_holds_integers_only_and_says_its_units(make_chip, tmp_path):
    network, _ = made(Mixed(), powers(make_chip), (2, 8, 9))
    export(network, tmp_path / "net.onnx")
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "net.onnx"))
    kinds = {
        value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    kinds |= {constant.data_type for constant in model.graph.initializer}
    kind = onnx.TensorProto
    assert kinds <= {kind.UINT8, kind.INT8, kind.INT32, kind.UINT32, kind.INT64, kind.UINT64, kind.BOOL}
    assert {"ConvInteger", "MatMulInteger", "BitShift"} <= operators(tmp_path / "net.onnx")
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert int(said["exponent"]) == network.exponent
    assert int(said["input_exponent"]) == network.source_format.exponent
    assert json.loads(said["sum_bits"]) == network.sum_bits


def test_integers_of_more_than_eight_bits_are_refused(make_chip, tmp_path):
    for weights, inputs in (({}, {"bits": 10}), ({"bits": 12}, {})):
        network, _ = made(Mixed(), powers(make_chip, weights=weights, inputs=inputs), (2, 8, 9))
        with pytest.raises(ExportError, match=r"layer first: .*8 bits"):
            export(network, tmp_path / "net.onnx")
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["onnx", "onnxscript"])
def test_without_a_library_the_extra_is_named(make_chip, tmp_path, monkeypatch, name):
    network, _ = made(Mixed(), powers(make_chip), (2, 8, 9))
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ExportError, match=rf"{name} is not installed; .*bitline\[export\]"):
        export(network, tmp_path / "net.onnx")
