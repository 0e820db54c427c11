"""Networks that files hold whole, read as data: programs of torch.export, and ONNX; nothing is unpickled."""

from pathlib import Path

from bitline.errors import DataError
from bitline.models.program.network import Program, load_exported
from bitline.models.program.onnx import SUFFIX, OnnxNetwork, load_onnx

__all__ = ["SUFFIXES", "OnnxNetwork", "Program", "load_program"]

SUFFIXES = (".pt2", SUFFIX)
"""of files that hold a network with its weights"""


def load_program(path: Path | str) -> Program | OnnxNetwork:
    """Read a network with its weights; nothing is unpickled.

    Raises:
        DataError: no such file, or one that `load_exported` or `load_onnx` refuses.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"no such file: {path}")
    return load_onnx(path) if path.suffix == SUFFIX else load_exported(path)
