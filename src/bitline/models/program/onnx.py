"""Networks in ONNX, as onnx2torch (Apache-2.0) makes modules of them; the file is read as data."""

from importlib import import_module
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from bitline.errors import DataError
from bitline.extras import need

SUFFIX = ".onnx"
_OPSET = 18
"""the last that onnx2torch knows; later files are taken back to it, which onnx does where it is possible"""
_HOW = f"torch.onnx.export(net, (images,), FILE, dynamo=False, opset_version={_OPSET}) writes what is read here"


class OnnxNetwork(nn.Module):
    """A network in ONNX of one batch of images to one tensor of scores.

    Args:
        net: as it was made of the file.
        shape: of an image; None for what may have any length.
    """

    def __init__(self, net: nn.Module, shape: tuple[int | None, ...]) -> None:
        super().__init__()
        self.net = net
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of images, (batch, channels, height, width)."""
        return self.net(x)


def load_onnx(path: Path) -> OnnxNetwork:
    """Read a network in ONNX with its weights.

    Raises:
        ExtraError: onnx2torch is not installed.
        DataError: damaged, weights in other files, several inputs or outputs, a fixed number of images that the
            network needs, or an operation that has no module.
    """
    need(path.name, "onnx")
    import onnx
    from onnx import version_converter

    try:
        model = onnx.load(str(path), load_external_data=False)
        apart = any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
        if not apart:
            onnx.checker.check_model(model)
    except Exception as error:  # of its protocol, its checker, or the file
        raise DataError(f"{path} is damaged, or no ONNX: {_first(error)}") from error
    if apart:
        raise DataError(f"{path} has its weights in other files; save it as one: external_data=False")
    shape = _shape(path, model.graph)
    try:
        if next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0) > _OPSET:
            model = version_converter.convert_version(model, _OPSET)
        _plain_reshapes(model.graph)
        net = cast("nn.Module", import_module("onnx2torch").convert(model)).eval()
    except Exception as error:  # NotImplementedError, and whatever a version that cannot be taken back raises
        raise DataError(f"{path} cannot become modules: {_first(error)}; {_HOW}") from error
    return OnnxNetwork(net, shape).eval()


def _shape(path: Path, graph: Any) -> tuple[int | None, ...]:
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    if len(inputs) != 1 or len(graph.output) != 1:
        raise DataError(f"{path} has {len(inputs)} inputs and {len(graph.output)} outputs; expected one of each")
    return tuple(each.dim_value or None for each in inputs[0].type.tensor_type.shape.dim)[1:]


def _plain_reshapes(graph: Any) -> None:
    """Let reshapes that say what a 0 means say nothing of it where they have none."""
    import onnx

    constant = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    for node in graph.node:
        if node.op_type == "Reshape" and node.input[1] in constant and (constant[node.input[1]] != 0).all():
            for attribute in [each for each in node.attribute if each.name == "allowzero"]:
                node.attribute.remove(attribute)


def _first(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{type(error).__name__}: {lines[0][:200]}"
