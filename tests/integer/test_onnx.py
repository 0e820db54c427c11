"""onnxruntime gives the integers of the interpreter, by integer operators alone."""

import json
import sys

import pytest
import torch
from integer_samples import NETWORKS, Mixed, on_chip, powers, shuffled
from torch import nn

from bitline.errors import ExportError
from bitline.extras import ExtraError
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


def worst(sign: int) -> nn.Module:
    """A convolution and two linear layers whose weights are all at one end, so that no sum of bytes is larger."""
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 9), nn.ReLU(), nn.Linear(9, 4))
    for number, layer in enumerate(module for module in net if isinstance(module, nn.Conv2d | nn.Linear)):
        nn.init.constant_(layer.weight, sign if number == 2 else 1)
        layer.weight.data[0].neg_()
        nn.init.zeros_(layer.bias)
    return net


@pytest.mark.parametrize("sign", [1, -1])
def test_the_largest_inputs_and_weights_do_not_saturate_whatever_the_session_does(make_chip, tmp_path, sign):
    x = torch.rand(4, 8, 8, 8)
    network = integer_network(on_chip(worst(sign), powers(make_chip), x), x)
    q = torch.stack([torch.full((8, 8, 8), v) for v in (255, 254, 128, 0)]).to(network.quantize(x).dtype)
    wanted = network(q).integers
    assert bool(wanted[0].any())
    export(network, tmp_path / "net.onnx")
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_ALL"):
        for precision in ("0", "1"):
            options = onnxruntime.SessionOptions()
            options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
            options.add_session_config_entry("session.x64quantprecision", precision)
            session = onnxruntime.InferenceSession(tmp_path / "net.onnx", options, providers=["CPUExecutionProvider"])
            (scores,) = session.run(["scores"], {"image": q.numpy()})
            assert torch.equal(torch.from_numpy(scores), wanted)


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
    with pytest.raises(ExtraError, match=rf'ONNX needs {name}: pip install "bitline\[export\]"'):
        export(network, tmp_path / "net.onnx")
