"""What ``torch.export.save`` writes (PyTorch 2.8 and later): a graph as JSON, and weights and constants as raw bytes.

PyTorch's own reader evaluates texts of the file, and unpickles what is not a plain tensor; this one does neither.
"""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from bitline.errors import DataError, shown

DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
"""numbers that a file has for types"""
MOST_BYTES = 16 * 2**30
"""of a file's content, unzipped; the largest networks of images take a few GiB"""
MOST_RATIO = 200
"""of the content to the file, beyond `FREE_BYTES`: weights are stored as they are, and texts shrink some 20 times"""
FREE_BYTES = 64 * 2**20
"""of content that no file is too small for"""
_GRAPH, _BYTE_ORDER = "models/model.json", "byteorder"
_PAYLOADS = {"data/weights/": "model_weights_config.json", "data/constants/": "model_constants_config.json"}
_SAVE = "torch.export.save(program, FILE) of PyTorch 2.8 or later writes what is read here"


@dataclass(frozen=True)
class Archive:
    """A program as it lies in its file.

    Args:
        path: of the file.
        graph: nodes, inputs and outputs.
        signature: which input is which parameter, and which is the user's.
        tensors: parameters, buffers and constants by their dotted names.
        parameters: names of the parameters among them.
    """

    path: Path
    graph: dict[str, Any]
    signature: dict[str, Any]
    tensors: dict[str, Tensor]
    parameters: frozenset[str]


def read(path: Path) -> Archive:
    """Read a program.

    Raises:
        DataError: absent, damaged, of an earlier PyTorch, or with a part that would have to be unpickled.
    """
    try:
        with zipfile.ZipFile(path) as file:
            return _read(path, file)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} is damaged, or no program of torch.export: {type(error).__name__}: {shown(str(error))}; {_SAVE}"
        ) from error


def _check_size(path: Path, file: zipfile.ZipFile) -> int:
    """Refuse what would fill the memory when it is unzipped.

    What a part declares is all that `zipfile` reads of it, and a part that holds something else fails its checksum.

    Returns:
        What its tensors may take, bytes.

    Raises:
        DataError: names the sizes.
    """
    entries, packed = file.infolist(), path.stat().st_size
    size = sum(entry.file_size for entry in entries)
    allowed = min(MOST_BYTES, max(FREE_BYTES, MOST_RATIO * packed))
    if size > allowed:
        raise DataError(
            f"{path} has {packed:,} bytes and unzips to {size:,}; allowed for a file of its size: {allowed:,}"
        )
    if len({entry.filename for entry in entries}) < len(entries):
        raise DataError(f"{path} is damaged: it has several parts of one name")
    return allowed


def _read(path: Path, file: zipfile.ZipFile) -> Archive:
    left = _check_size(path, file)
    inside = {name.partition("/")[2]: name for name in file.namelist()}
    if _GRAPH not in inside:
        raise DataError(f"{path} is no program of torch.export that can be read: it has no {_GRAPH}; {_SAVE}")
    if _BYTE_ORDER in inside and file.read(inside[_BYTE_ORDER]) != b"little":
        raise DataError(f"{path}: its numbers are not little-endian")
    module = cast("dict[str, Any]", _json(file.read(inside[_GRAPH])))["graph_module"]
    tensors: dict[str, Tensor] = {}
    parameters: set[str] = set()
    for folder, config in _PAYLOADS.items():
        if folder + config not in inside:
            raise DataError(f"{path} has no {folder}{config}, but another form of it; {_SAVE}")
        entries = cast("dict[str, Any]", _json(file.read(inside[folder + config])))["config"]
        stored: dict[str, bytearray] = {}
        for name, entry in entries.items():
            if entry["use_pickle"] or entry["tensor_meta"] is None:
                raise DataError(f"{path}: {name} is no plain tensor but a pickled object, which is not read")
            place = entry["path_name"]
            if place not in stored:
                stored[place] = bytearray(file.read(inside[folder + place]))
            left -= _bytes(entry["tensor_meta"])  # strides of 0, and parts that several have, make much of little
            if left < 0:
                raise DataError(f"{path}: its tensors take more than is allowed for a file of its size, from {name} on")
            tensors[name] = _tensor(f"{path}: {name}", stored[place], entry["tensor_meta"])
            if entry["is_param"]:
                parameters.add(name)
    return Archive(path, module["graph"], module["signature"], tensors, frozenset(parameters))


def _json(content: bytes) -> object:
    """Read JSON; infinities may be in it."""
    try:
        return json.loads(content)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _bytes(meta: dict[str, Any]) -> int:
    """What a tensor takes, bytes; 0 of a type that is not read."""
    dtype = DTYPES.get(meta["dtype"])
    sizes = [max(0, int(each["as_int"])) for each in meta["sizes"]]
    return 0 if dtype is None else math.prod(sizes) * dtype.itemsize


def _tensor(where: str, content: bytearray, meta: dict[str, Any]) -> Tensor:
    """Make a tensor of its bytes.

    Raises:
        DataError: a type or layout that is not read, or fewer bytes than there should be.
    """
    dtype = DTYPES.get(meta["dtype"])
    if dtype is None or meta["layout"] != 7:
        raise DataError(f"{where} has type {meta['dtype']} and layout {meta['layout']}; allowed: dense numbers")
    size, stride = ([int(each["as_int"]) for each in meta[key]] for key in ("sizes", "strides"))
    offset = int(meta["storage_offset"]["as_int"])
    if min([offset, *size, *stride]) < 0 or len(size) != len(stride):
        raise DataError(f"{where} has sizes {size}, strides {stride} and offset {offset}")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 in size:
        return torch.empty(size, dtype=dtype)
    if (last + 1) * dtype.itemsize > len(content):
        raise DataError(f"{where} has {len(content)} bytes; its shape {size} needs {(last + 1) * dtype.itemsize}")
    numbers = torch.frombuffer(content, dtype=dtype, count=len(content) // dtype.itemsize)
    return torch.as_strided(numbers, size, stride, offset).clone(memory_format=torch.contiguous_format)
