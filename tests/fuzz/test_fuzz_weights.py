"""Files of weights: other types, numbers that are none, other names and shapes, damage.

To add a case: a line in `CHANGES`, a function of the tensors by name and what comes of it.
"""

import math
import random
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fuzz_cases import Accepted, Outcome, Refused, Remarked, bitline, holds
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
FIRST, LAST = "features.0.weight", "classifier.4.bias"
COMMON = ("--data", "digits", "--width", 0.5, "--chips", 1, "--images", 8, "--calibration-images", 16, "--json", "-")


def of(name: str, change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: change(tensors[name])}


def filled(value: float, count: int = 1) -> Callable[[Tensor], Tensor]:
    def change(tensor: Tensor) -> Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[:count] = value
        return tensor

    return change


def every(change: Callable[[Tensor], Tensor]) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: change(tensor) for name, tensor in tensors.items()}


def measured(content: dict) -> bool:
    return 0 <= content["accuracy"]["chips"][0] <= 100 and content["cost"]["energy_J"] > 0


NUMBERS = "numbers that are NaN or infinite"
CHANGES: dict[str, tuple[Callable[[Tensors], Tensors], Outcome]] = {
    "as trained": (lambda t: t, Accepted(measured)),
    "half": (every(Tensor.half), Accepted(measured)),
    "bfloat16": (every(Tensor.bfloat16), Accepted(measured)),
    "double": (every(Tensor.double), Accepted(measured)),
    "a layer of zeros": (of(FIRST, torch.zeros_like), Remarked(f"{FIRST} is zero everywhere")),
    "an outlier": (of(FIRST, filled(1e30)), Remarked(f"{FIRST} has a weight of 1e+30 beside a median of")),
    "a bias beyond all": (of(LAST, filled(1e30)), Remarked(f"{LAST} has a number of 1e+30")),
    "tiny": (of(FIRST, lambda w: w * 0 + 1e-45), Remarked(f"{FIRST} is nowhere above 1.4e-45")),
    "nan": (of(FIRST, filled(math.nan)), Refused(f"{FIRST} has 1 of 75 {NUMBERS}")),
    "nans": (of(FIRST, filled(math.nan, 9)), Refused(f"{FIRST} has 9 of 75 {NUMBERS}")),
    "infinity": (of(FIRST, filled(math.inf)), Refused(f"{FIRST} has 1 of 75 {NUMBERS}")),
    "minus infinity": (of(FIRST, filled(-math.inf)), Refused(f"{FIRST} has 1 of 75 {NUMBERS}")),
    "nan bias": (of(LAST, filled(math.nan)), Refused(f"{LAST} has 1 of 10 {NUMBERS}")),
    "infinite bias": (of(LAST, filled(math.inf)), Refused(f"{LAST} has 1 of 10 {NUMBERS}")),
    "all nan": (every(lambda t: t * math.nan), Refused(NUMBERS)),
    "double that overflows": (of(FIRST, lambda w: w.double() + 1e300), Refused(f"{FIRST} has 75 of 75 {NUMBERS}")),
    "int8": (of(FIRST, lambda w: (w * 100).to(torch.int8)), Refused(f"{FIRST} is I8, integers without a scale")),
    "int8 everywhere": (every(lambda w: (w * 100).to(torch.int8)), Refused("is I8, integers without a scale")),
    "int32": (of(FIRST, lambda w: w.view(torch.int32)), Refused(f"{FIRST} is I32, integers without a scale")),
    "int64": (of(FIRST, lambda w: w.long()), Refused(f"{FIRST} is I64, integers without a scale")),
    "uint8": (of(FIRST, lambda w: w.to(torch.uint8)), Refused(f"{FIRST} is U8, integers without a scale")),
    "bool": (of(FIRST, lambda w: w > 0), Refused(f"{FIRST} is BOOL, truth values")),
    "complex": (of(FIRST, lambda w: w.to(torch.complex64)), Refused(f"{FIRST} is C64, complex numbers")),
    "float8": (of(FIRST, lambda w: w.to(torch.float8_e5m2)), Refused(f"{FIRST} is F8_E5M2")),
    "one more": (lambda t: {**t, "extra": torch.ones(3)}, Refused("does not fit LeNet5")),
    "one less": (lambda t: {k: v for k, v in t.items() if k != LAST}, Refused("does not fit LeNet5")),
    "none": (lambda _: {}, Refused("does not fit LeNet5")),
    "another name": (lambda t: {k.upper(): v for k, v in t.items()}, Refused("does not fit LeNet5")),
    "long names": (lambda t: {k + "x" * 10**5: v for k, v in t.items()}, Refused("does not fit LeNet5")),
    "another shape": (of(FIRST, lambda w: w[:, :, :3].contiguous()), Refused("does not fit LeNet5")),
    "flat": (of(FIRST, torch.flatten), Refused("does not fit LeNet5")),
    "scalar": (of(FIRST, lambda w: w.sum()), Refused("does not fit LeNet5")),
    "empty": (of(FIRST, lambda w: w[:0]), Refused("does not fit LeNet5")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_weights(run: Path, tmp_path: Path, name: str):
    change, expected = CHANGES[name]
    file = tmp_path / "w.safetensors"
    save_file(change(load_file(run / "model.safetensors")), file)
    holds(expected, "evaluate", "--model", "lenet5", "--weights", file, *COMMON)


def header(text: bytes, length: int | None = None) -> Callable[[bytes], bytes]:
    return lambda whole: struct.pack("<Q", len(text) if length is None else length) + text + whole


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _: b"",
    "seven bytes": lambda whole: whole[:7],
    "header alone": lambda whole: whole[: 8 + struct.unpack("<Q", whole[:8])[0]],
    "half": lambda whole: whole[: len(whole) // 2],
    "one byte less": lambda whole: whole[:-1],
    "one byte more": lambda whole: whole + b"x",
    "zeros": lambda whole: bytes(len(whole)),
    "random": lambda whole: random.Random(0).randbytes(4000),
    "pickle": lambda _: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "long header": header(b"{}", 2**63),
    "no json": header(b"nothing"),
    "deep json": header(b"[" * 10_000 + b"]" * 10_000),
    "a list": header(b"[]"),
    "beyond the file": header(b'{"x":{"dtype":"F32","shape":[9999999],"data_offsets":[0,39999996]}}'),
    "negative": header(b'{"x":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}'),
    "overflow": header(b'{"x":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'),
    "unknown type": header(b'{"x":{"dtype":"F99","shape":[1],"data_offsets":[0,4]}}'),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_weights(run: Path, tmp_path: Path, name: str):
    file = tmp_path / "w.safetensors"
    file.write_bytes(DAMAGE[name]((run / "model.safetensors").read_bytes()))
    holds(Refused("w.safetensors"), "evaluate", "--model", "lenet5", "--weights", file, *COMMON)


@pytest.mark.parametrize("name", ["w.pt", "w.pth", "w.ckpt", "w.bin", "w"])
def test_formats_that_can_run_code_are_not_opened(tmp_path: Path, name: str):
    torch.save({}, tmp_path / name)
    expected = Refused("weights are read from .safetensors only")
    holds(expected, "evaluate", "--model", "lenet5", "--weights", tmp_path / name, *COMMON)


def test_any_bit_of_the_header_may_be_wrong(run: Path, tmp_path: Path):
    draw, whole, file = random.Random(1), (run / "model.safetensors").read_bytes(), tmp_path / "w.safetensors"
    end = 8 + struct.unpack("<Q", whole[:8])[0]
    for _ in range(40):
        content = bytearray(whole)
        content[draw.randrange(end)] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
        done = bitline("evaluate", "--model", "lenet5", "--weights", file, *COMMON)
        assert done.status in (0, 1), done.err
        assert "Traceback" not in done.err
