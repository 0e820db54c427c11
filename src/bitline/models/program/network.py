"""A program as a network: what crossbars can hold is a module again, everything else a function that is called."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bitline.errors import DataError
from bitline.models.program import archive
from bitline.models.program.archive import DTYPES, Archive
from bitline.models.program.layers import Layers
from bitline.models.program.operators import function

_FORMATS = {1: torch.contiguous_format, 2: torch.channels_last, 3: torch.channels_last_3d, 4: torch.preserve_format}
_PLAIN = {"as_int", "as_ints", "as_float", "as_floats", "as_bool", "as_bools", "as_string", "as_int_lists"}
_TRAINS = {"torch.ops.aten.batch_norm.default": "training", "torch.ops.aten.dropout.default": "train"}
"""operations that are others in training, and the argument that says so"""
EXPORT = (
    "program = torch.export.export(net.eval(), (images[:2],), dynamic_shapes=({0: torch.export.Dim('batch')},)); "
    "torch.export.save(program, FILE)"
)
"""how a program is exported that takes any number of images"""


@dataclass(frozen=True)
class Ref:
    """A value of the program.

    Args:
        name: of the value.
    """

    name: str


@dataclass(frozen=True)
class OfInput:
    """The torch device that the images are on, wherever the program was exported."""


@dataclass(frozen=True)
class Step:
    """One operation.

    Args:
        call: a function, or the dotted name of a module.
        args: with `Ref` where values are.
        kwargs: the same.
        outputs: names of the values it makes.
        several: whether it gives them as several.
        in_place: whether it changes what it reads.
        last: names of values that no later step reads.
    """

    call: Callable[..., Any] | str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[str, ...]
    several: bool
    in_place: bool = False
    last: tuple[str, ...] = ()


class Program(nn.Module):
    """A program of torch.export.

    Its convolutions, linear layers and batch norms with parameters of their own are modules, called as their weights
    are: ``stem.weight`` is of ``stem``, and a plain parameter ``mix`` is of ``mix``. Weights of the network that was
    exported can be loaded where they were those of modules.

    Args:
        program: as it lies in its file.

    Raises:
        DataError: not one batch of images to one tensor of scores, a fixed number of images, exported in training mode,
            or an operation that does something else than compute.
    """

    def __init__(self, program: Archive) -> None:
        super().__init__()
        self._where = str(program.path)
        graph = program.graph
        self._input, tensors = _inputs(program)
        self.shape = _shape(self._where, graph["tensor_values"][self._input])
        self._output = _output(program)
        layers = Layers(self, program, tensors)
        self._steps = _freed(_steps(self._where, graph, layers), self._output)
        read = {name for step in self._steps for name in _refs([*step.args, *step.kwargs.values()])}
        self._tensors = {name: path for name, path in layers.rest().items() if name in read}

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of images, (batch, channels, height, width)."""
        shape = tuple(x.shape[1:]) if type(x) is Tensor else self.shape  # what traces a network has no shape
        if len(shape) != len(self.shape) or any(a not in (None, b) for a, b in zip(self.shape, shape, strict=True)):
            expected = " x ".join("any" if each is None else str(each) for each in self.shape)
            raise ValueError(f"the program was exported for images of {expected}; it got {shape}")
        values: dict[str, Any] = {name: self._found(path) for name, path in self._tensors.items()}
        values[self._input] = x

        def put(value: Any) -> Any:
            if isinstance(value, Ref):
                return values[value.name]
            if isinstance(value, OfInput):
                return x.device
            return [put(each) for each in value] if isinstance(value, list) else value

        for step in self._steps:
            call: Any = self.get_submodule(step.call) if isinstance(step.call, str) else step.call
            made = call(*(put(each) for each in step.args), **{key: put(each) for key, each in step.kwargs.items()})
            values.update(zip(step.outputs, made, strict=True) if step.several else [(step.outputs[0], made)])
            for name in step.last:
                del values[name]
        return values[self._output]

    def _found(self, path: str) -> Tensor:
        module, _, name = path.rpartition(".")
        return getattr(self.get_submodule(module), name)


def load_exported(path: Path) -> Program:
    """Read a program that ``torch.export.save`` wrote, with its weights; nothing is unpickled.

    Raises:
        DataError: one that `archive.read` or `Program` refuses.
    """
    program = archive.read(path)
    try:
        return Program(program).eval()
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DataError(f"{path} is damaged: {type(error).__name__}: {error}") from error


def _inputs(program: Archive) -> tuple[str, dict[str, str]]:
    """Return the name of the images, and the dotted name of each tensor by that of its value."""
    tensors: dict[str, str] = {}
    images: list[str] = []
    for spec in program.signature["input_specs"]:
        ((kind, each),) = spec.items()
        if kind == "user_input":
            images.append(each["arg"]["as_tensor"]["name"] if "as_tensor" in each["arg"] else "")
        elif kind in ("parameter", "buffer", "tensor_constant"):
            tensors[each["arg"]["name"]] = each[f"{kind}_name"]
        else:
            raise DataError(f"{program.path} takes an input of kind {kind}; allowed: one batch of images")
    if len(images) != 1 or not images[0]:
        raise DataError(f"{program.path} takes {len(images)} inputs; allowed: one batch of images")
    for name in tensors.values():
        if not all(part.isidentifier() or part.isdigit() for part in name.split(".")):
            raise DataError(f"{program.path} has a tensor called {name[:100]!r}; expected names joined by dots")
        if name not in program.tensors:
            raise DataError(f"{program.path} has no numbers of {name}")
    return images[0], tensors


def _shape(where: str, meta: Mapping[str, Any]) -> tuple[int | None, ...]:
    """Return the shape of an image, None for a size that is free."""
    sizes = [each.get("as_int") for each in meta["sizes"]]
    if not sizes or sizes[0] is not None:
        raise DataError(
            f"{where} was exported for batches of {sizes[0] if sizes else 'no'} images; export it for any: {EXPORT}"
        )
    return tuple(sizes[1:])


def _output(program: Archive) -> str:
    names: list[str] = []
    for spec in program.signature["output_specs"]:
        ((kind, each),) = spec.items()
        if kind in ("buffer_mutation", "parameter_mutation"):
            changed = each.get("buffer_name") or each.get("parameter_name")
            raise DataError(
                f"{program.path} changes {changed} when it runs, as in training: export net.eval(); {EXPORT}"
            )
        if kind == "user_output" and "as_tensor" in each["arg"]:
            names.append(each["arg"]["as_tensor"]["name"])
        else:
            names.append("")
    if len(names) != 1 or not names[0]:
        raise DataError(f"{program.path} gives {len(names)} results; allowed: one tensor, a score for each class")
    return names[0]


def _steps(where: str, graph: Mapping[str, Any], layers: Layers) -> Iterator[Step]:
    for node in graph["nodes"]:
        outputs, several = _outputs(where, node)
        if not outputs:  # a check of what was true when it was exported
            continue
        layer = layers.made_of(node)
        if layer is not None:
            yield Step(layer.path, (Ref(layer.input),), {}, (outputs[0],), several=False)
            continue
        given = [(each["name"], each["kind"], _value(where, each["arg"])) for each in node["inputs"]]
        flag = _TRAINS.get(node["target"])
        if flag is not None and any(name == flag and value is True for name, _, value in given):
            raise DataError(f"{where} was exported in training mode: export net.eval(); {EXPORT}")
        args = tuple(value for _, kind, value in given if kind == 1)
        kwargs = {name: value for name, kind, value in given if kind != 1}
        in_place = node["target"].split(".")[-2].endswith("_")
        yield Step(function(where, node["target"]), args, kwargs, outputs, several, in_place)


def _outputs(where: str, node: Mapping[str, Any]) -> tuple[tuple[str, ...], bool]:
    """Names of the values that a node makes, and whether it gives several."""
    listed: list[Any] = node["outputs"]
    if len(listed) == 1 and "as_tensors" in listed[0]:
        return tuple(each["name"] for each in listed[0]["as_tensors"]), True
    return tuple(_name(where, each) for each in listed), len(listed) > 1


def _name(where: str, argument: Mapping[str, Any]) -> str:
    ((kind, value),) = argument.items()
    if kind == "as_tensor":
        return value["name"]
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return value["as_name"]
    raise DataError(f"{where} has a value of kind {kind[:100]}, which is not read")


def _value(where: str, argument: Mapping[str, Any]) -> Any:
    """Return an argument, with `Ref` for values."""
    ((kind, value),) = argument.items()
    if kind == "as_none":
        return None
    if kind in _PLAIN:
        return float(value) if kind == "as_float" else value  # JSON has no infinity but as a text
    if kind in ("as_tensors", "as_nested_tensors"):
        return [Ref(each["name"]) for each in value]
    if kind == "as_optional_tensor":
        return _value(where, value)
    if kind == "as_optional_tensors":
        return [_value(where, each) for each in value]
    if kind in ("as_sym_int", "as_sym_bool", "as_sym_float"):
        return Ref(value["as_name"]) if "as_name" in value else next(iter(value.values()))
    if kind in ("as_sym_ints", "as_sym_bools", "as_sym_floats"):
        return [Ref(each["as_name"]) if "as_name" in each else next(iter(each.values())) for each in value]
    if kind == "as_scalar_type":
        return DTYPES[value]
    if kind == "as_memory_format":
        return _FORMATS[value]
    if kind == "as_layout":
        return {7: torch.strided}[value]
    return OfInput() if kind == "as_device" else Ref(_name(where, argument))


def _freed(steps: Iterable[Step], output: str) -> tuple[Step, ...]:
    """Leave out steps that nothing needs, and note in the others which values are read there for the last time."""
    needed, found = {output}, list[Step]()
    for step in reversed(list(steps)):
        if not step.in_place and needed.isdisjoint(step.outputs):
            continue
        names = {*_refs([*step.args, *step.kwargs.values()]), *step.outputs}
        found.append(replace(step, last=tuple(sorted(names - needed))))
        needed |= names
    return tuple(reversed(found))


def _refs(value: Any) -> Iterator[str]:
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _refs(each)
