"""An integer network as an ONNX file of integer operators, which gives the same integers elsewhere."""

from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bitline.extras import need
from bitline.files import new_file
from bitline.integer.network import IntegerNetwork

IMAGE, SCORES = "image", "scores"


def export(network: IntegerNetwork, path: Path | str) -> None:
    """Write an integer network as ONNX, whole or not at all.

    Its input is `network.dtype`, (batch, *network.shape); its output the integers of `Scores`. The units of both are in
    the file's metadata: ``input_exponent`` and ``exponent``.

    Raises:
        ExportError: integers of more than 8 bits, sums of more than 32, or no such folder.
        ExtraError: onnx or onnxscript is not installed.
    """
    onnx, ir = _needed("onnx"), _needed("onnx_ir")
    _needed("onnxscript")
    from bitline.integer.onnx_graph import onnx_model

    model = ir.to_proto(onnx_model(network, IMAGE, SCORES))
    onnx.checker.check_model(model, full_check=True)
    with new_file(Path(path)) as part:
        part.write_bytes(model.SerializeToString())


def run(path: Path | str, images: Tensor, *, at_once: int = 64) -> Tensor:
    """Answer integer images by an exported file, as onnxruntime does.

    Args:
        path: of `export`.
        images: of the network's dtype, (images, ...).
        at_once: images of a batch.

    Returns:
        Integers of `Scores`, (images, outputs).

    Raises:
        ExtraError: onnxruntime is not installed.
    """
    runtime = _needed("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    parts = [session.run([SCORES], {IMAGE: part.numpy()})[0] for part in images.split(at_once)]
    return torch.cat([torch.from_numpy(part) for part in parts])


def operators(path: Path | str) -> set[str]:
    """Name the operators of an ONNX file."""
    return {node.op_type for node in _needed("onnx").load(str(path)).graph.node}


def _needed(name: str) -> Any:
    need("ONNX", "export", name)
    return import_module(name)
