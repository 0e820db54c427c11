"""A network of integers alone: what a chip with power-of-two scales answers, without one floating-point number.

CRIMP (Huai et al., ACM TECS 2023): with S_X = 2^a1, S_W = 2^a2 and the next layer's inputs at 2^b1, a layer's result is
shifted by a1 + a2 - b1 and nothing else. Shifts round to nearest, ties to even.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError, DataError, MappingError
from bitline.files import parse_json, read_tensors, write_tensors
from bitline.integer.bounds import Format
from bitline.integer.lower import lower
from bitline.integer.operations import Add, Concat, MaxPool, Operation, Relu, Requantize, Reshape, SumPool, Take
from bitline.integer.product import Product
from bitline.integer.stored import must_store, readers_of
from bitline.integer.trace import trace
from bitline.mapping.quantize import quantize, widen
from bitline.nn.grid import grid_of

_FORMAT = "bitline integer network 1"
_AT_ONCE = 32
"""images"""
_KINDS: dict[str, type[Operation]] = {
    cls.kind: cls for cls in (Product, Relu, MaxPool, SumPool, Add, Concat, Reshape, Take, Requantize)
}


class Scores(NamedTuple):
    """What an integer network answers.

    Args:
        integers: int32, or int64 where these do not hold it, (batch, outputs).
        exponent: of the power of two that an integer of 1 stands for.
    """

    integers: Tensor
    exponent: int

    @property
    def real(self) -> Tensor:
        """The same as real numbers, float64."""
        return torch.ldexp(self.integers.double(), torch.tensor(self.exponent))


@dataclass(frozen=True)
class IntegerNetwork:
    """Integer operations from an image of integers to integer scores.

    Args:
        operations: in the order they run; the last one makes the scores.
        source: name of the input.
        source_format: integers that the input is.
        shape: of one image, (channels, height, width) or (features,).
        exponent: of the unit of the scores.
        sum_bits: bits, sign included, that the sums of every layer take at most, by layer.
    """

    operations: tuple[Operation, ...]
    source: str
    source_format: Format
    shape: tuple[int, ...]
    exponent: int
    sum_bits: Mapping[str, int]

    def quantize(self, images: Tensor) -> Tensor:
        """Turn real images into the integers that the network takes, uint8 or int8 where these hold them."""
        form = self.source_format
        return quantize(widen(images.detach()), 2.0**form.exponent, form.low, form.high).to(self.dtype)

    @property
    def dtype(self) -> torch.dtype:
        """Of the input."""
        low, high = self.source_format.low, self.source_format.high
        if low >= 0 and high < 256:
            return torch.uint8
        return torch.int8 if low < 0 and high < 128 else torch.int32

    def __call__(self, images: Tensor) -> Scores:
        """Answer integer images.

        Args:
            images: of `dtype`, (batch, *shape).

        Raises:
            MappingError: another dtype or shape.
        """
        if images.dtype != self.dtype or tuple(images.shape[1:]) != self.shape:
            raise MappingError(
                f"images are {images.dtype} of shape {tuple(images.shape[1:])}; the network takes {self.dtype} of "
                f"shape {self.shape}"
            )
        parts = [self._run(part) for part in images.split(_AT_ONCE)] if len(images) else [self._run(images)]
        return Scores(torch.cat(parts), self.exponent)

    def _run(self, images: Tensor) -> Tensor:
        left = Counter(name for operation in self.operations for name in operation.inputs)
        values = {self.source: images.movedim(1, -1)}
        for operation in self.operations:
            values[operation.name] = operation.run(*(values[name] for name in operation.inputs))
            for name in operation.inputs:
                left[name] -= 1
                if not left[name]:
                    values.pop(name, None)
        return values[self.operations[-1].name].movedim(-1, 1)

    def save(self, path: Path | str, about: Mapping[str, str] | None = None) -> None:
        """Write the network to a safetensors file, whole or not at all; its structure is JSON in the file's header.

        Args:
            path: of the file.
            about: what else the header is to say, as of which chip the network is.

        Raises:
            DataError: another suffix.
        """
        path = _check_suffix(Path(path))
        tensors: dict[str, Tensor] = {}
        operations = [_to_json(operation, tensors) for operation in self.operations]
        network = {
            "operations": operations,
            "source": self.source,
            "source_format": vars(self.source_format),
            "shape": self.shape,
            "exponent": self.exponent,
            "sum_bits": dict(self.sum_bits),
        }
        write_tensors(path, tensors, {**(about or {}), "format": _FORMAT, "network": json.dumps(network)})

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Read a file of `save`.

        Raises:
            DataError: an absent or damaged file, or another kind of file.
        """
        path = _check_suffix(Path(path))
        tensors, metadata = read_tensors(path)
        if metadata.get("format") != _FORMAT:
            raise DataError(f"{path} holds no integer network; expected a file of IntegerNetwork.save")
        try:
            about: Any = parse_json(metadata["network"])
            operations = tuple(_from_json(each, tensors) for each in about["operations"])
            form, shape = Format(**about["source_format"]), tuple(about["shape"])
            return cls(operations, about["source"], form, shape, about["exponent"], about["sum_bits"])
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path} is damaged: {error}") from error


def integer_network(model: nn.Module, example: Tensor, *, accumulator_bits: int = 32) -> IntegerNetwork:
    """Turn a converted network into integers; they answer what `model` does with ideal cells and no ADC error.

    Args:
        model: calibrated, with scales of powers of two, `weights.bias_bits`, and values stored by
            `bitline.integer.stored.store`.
        example: one batch, for its shape.
        accumulator_bits: what a sum may take, its sign included, for any image; 2 to 62.

    Raises:
        ConversionError: an operation without integer form, real scales or biases, or values that are not stored.
        MappingError: a sum that can exceed the accumulator.
    """
    steps = trace(model, example)
    readers = readers_of(steps)
    for step in steps:
        if must_store(step, readers) and grid_of(step.module) is None:
            raise ConversionError(f"{step.where} makes a value that has to be stored; call store(model, example) first")
    graph = lower(steps, accumulator_bits)
    return IntegerNetwork(
        tuple(graph.operations),
        graph.source,
        graph.source_format,
        tuple(example.shape[1:]),
        graph.exponent,
        graph.sum_bits,
    )


def _check_suffix(path: Path) -> Path:
    if path.suffix != ".safetensors":
        raise DataError(f"{path}: integer networks are kept in .safetensors files only")
    return path


def _to_json(operation: Operation, tensors: dict[str, Tensor]) -> dict[str, Any]:
    """An operation as plain data; its tensors go to `tensors`."""

    def plain(key: str, value: object) -> object:
        if isinstance(value, Tensor):
            tensors[key] = value.contiguous().clone()
            return {"tensor": key}
        if isinstance(value, tuple):
            return [plain(f"{key}.{i}", each) for i, each in enumerate(cast("tuple[object, ...]", value))]
        return value

    parts = {f.name: plain(f"{operation.name}.{f.name}", getattr(operation, f.name)) for f in fields(operation)}
    return {"kind": operation.kind, **parts}


def _from_json(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Operation:
    def real(value: Any) -> Any:
        if isinstance(value, Mapping):
            return tensors[str(cast("Mapping[str, object]", value)["tensor"])]
        if isinstance(value, list):
            return tuple(real(each) for each in cast("Sequence[object]", value))
        return value

    parts = {key: real(value) for key, value in about.items() if key != "kind"}
    return _KINDS[about["kind"]](**parts)
