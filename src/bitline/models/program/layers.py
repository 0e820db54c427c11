"""Convolutions, linear layers and batch norms of a program, made modules again: only modules lie on crossbars."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bitline.models.program.archive import Archive

_ATEN = "torch.ops.aten."
_CONVOLUTIONS = {
    f"{_ATEN}{name}" for name in ("conv1d.default", "conv1d.padding", "conv2d.default", "conv2d.padding")
} | {f"{_ATEN}convolution.default"}
_NORMS = {f"{_ATEN}batch_norm.default", f"{_ATEN}_native_batch_norm_legit_no_training.default"}
_TURNS = {f"{_ATEN}{name}" for name in ("permute.default", "t.default", "transpose.int")}
_STATISTICS = ("weight", "bias", "running_mean", "running_var")
_CONVS: dict[int, type[nn.Conv1d] | type[nn.Conv2d]] = {3: nn.Conv1d, 4: nn.Conv2d}
_BATCH_NORMS: dict[int, type[nn.BatchNorm1d] | type[nn.BatchNorm2d]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
}


class Layer(NamedTuple):
    """A node that is a module.

    Args:
        path: of the module.
        input: name of the value that it takes.
    """

    path: str
    input: str


class Layers:
    """The modules of a program, put into its network as its nodes come by.

    Args:
        network: that they go into.
        program: with the numbers.
        tensors: dotted name of a parameter, buffer or constant, by the name of its value.
    """

    def __init__(self, network: nn.Module, program: Archive, tensors: Mapping[str, str]) -> None:
        self._network, self._program = network, program
        self._ranks = {name: len(meta["sizes"]) for name, meta in program.graph["tensor_values"].items()}
        self._names = dict(tensors)  # of values
        self._owner: dict[str, str] = {}  # dotted name of a tensor -> where a module has it
        self._made: dict[tuple[Any, ...], str] = {}
        self._turned: dict[str, str] = {}  # value -> the value that it is the transpose of
        self._shared: dict[str, nn.Parameter] = {}
        self._read = {each["name"] for node in program.graph["nodes"] for each in _tensors(node)}

    def made_of(self, node: Mapping[str, Any]) -> Layer | None:
        """Return the module that a node has become; None where it stays a function."""
        arguments = {each["name"]: each["arg"] for each in node["inputs"]}
        target = node["target"]
        if target in _TURNS and self._is_parameter(name := _name(arguments["self"])) and self._ranks[name] == 2:
            self._turned[node["outputs"][0]["as_tensor"]["name"]] = name
            return None
        if target in _CONVOLUTIONS:
            return self._convolution(arguments)
        if target in _NORMS:
            return self._batch_norm(node, arguments)
        if target == f"{_ATEN}linear.default":
            return self._linear(arguments["input"], arguments["weight"], arguments.get("bias"))
        product = {f"{_ATEN}addmm.default": ("mat1", "self"), f"{_ATEN}mm.default": ("self", "")}.get(target)
        if product is not None and not {"alpha", "beta"} & arguments.keys():
            turned = self._turned.get(_name(arguments["mat2"]))
            weight = None if turned is None else {"as_tensor": {"name": turned}}
            return None if weight is None else self._linear(arguments[product[0]], weight, arguments.get(product[1]))
        return None

    def rest(self) -> dict[str, str]:
        """Register what no module has, and return where each value is found that is a tensor of the network."""
        parameters = self._program.parameters
        for name in dict.fromkeys([*self._names.values(), *self._program.tensors]):
            if name in self._owner:
                continue
            folder, _, last = name.rpartition(".")
            module, tensor = self._folder(folder), self._program.tensors[name]
            if name in parameters:
                module.register_parameter(last, self._parameter(name))
            else:
                module.register_buffer(last, tensor)
            self._owner[name] = name
        return {value: self._owner[name] for value, name in self._names.items()}

    def _convolution(self, arguments: Mapping[str, Any]) -> Layer | None:
        if arguments.get("transposed", {}).get("as_bool") or not self._is_parameter(_name(arguments["weight"])):
            return None
        weight = self._tensor(arguments["weight"])
        bias = self._bias(arguments.get("bias"), len(weight))
        cls = _CONVS.get(weight.dim())
        if cls is None or bias is NotImplemented or self._ranks[_name(arguments["input"])] != weight.dim():
            return None
        groups = int(arguments.get("groups", {}).get("as_int", 1))
        settings: dict[str, Any] = {}
        for key, default in (("stride", 1), ("padding", 0), ("dilation", 1)):
            argument = arguments.get(key)
            value = default if argument is None else next(iter(argument.values()))
            settings[key] = value if isinstance(value, str | int) else tuple(value)
        channels = weight.shape[1] * groups
        size: Any = tuple(weight.shape[2:])
        name = _name(arguments["weight"])
        key = (cls, name, bias, groups, tuple(settings.values()))
        layer: Any = cls(channels, len(weight), size, groups=groups, bias=bias is not None, device="meta", **settings)
        return Layer(self._put(key, layer, {"weight": name, "bias": bias}), _name(arguments["input"]))

    def _linear(self, x: Mapping[str, Any], weight: Mapping[str, Any], bias: Mapping[str, Any] | None) -> Layer | None:
        if not self._is_parameter(_name(weight)) or self._ranks[_name(weight)] != 2:
            return None
        numbers = self._tensor(weight)
        other = self._bias(bias, len(numbers))
        if other is NotImplemented:
            return None
        layer = nn.Linear(numbers.shape[1], len(numbers), bias=other is not None, device="meta")
        key = (nn.Linear, _name(weight), other)
        return Layer(self._put(key, layer, {"weight": _name(weight), "bias": other}), _name(x))

    def _batch_norm(self, node: Mapping[str, Any], arguments: Mapping[str, Any]) -> Layer | None:
        x = _name(arguments["input"])
        names = {key: _name(arguments.get(key)) for key in _STATISTICS}
        others = [each["as_tensor"]["name"] for each in node["outputs"][1:]]
        cls = _BATCH_NORMS.get(self._ranks[x])
        known = all(self._is_own(name) for name in names.values() if name)
        affine = {bool(names["weight"]), bool(names["bias"])}
        if cls is None or not known or len(affine) == 2 or not names["running_mean"] or not names["running_var"]:
            return None
        if arguments.get("training", {}).get("as_bool") or any(name in self._read for name in others):
            return None
        count = len(self._program.tensors[self._names[names["running_mean"]]])
        eps, momentum = (arguments[key]["as_float"] for key in ("eps", "momentum"))
        layer = cls(count, eps=eps, momentum=momentum, affine=affine == {True}, device="meta")
        key = (cls, *names.values(), eps)
        return Layer(self._put(key, layer, names), x)

    def _put(self, key: tuple[Any, ...], layer: nn.Module, names: Mapping[str, str | None]) -> str:
        """Give a layer its numbers, put it into the network, and return its path; the same layer is one module."""
        if key in self._made:
            return self._made[key]
        mine = {part: self._names[name] for part, name in names.items() if name}
        path = self._path(next(iter(mine.values())), mine)
        for part, name in mine.items():
            if part.startswith("running"):
                setattr(layer, part, self._program.tensors[name].clone())
            else:
                setattr(layer, part, self._parameter(name))
            self._owner.setdefault(name, f"{path}.{part}")
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            counter = f"{path}.num_batches_tracked"
            layer.num_batches_tracked = self._program.tensors.get(counter, torch.tensor(0)).clone()
            self._owner.setdefault(counter, counter)
        folder, _, last = path.rpartition(".")
        self._folder(folder).add_module(last, layer)
        self._made[key] = path
        return path

    def _path(self, name: str, mine: Mapping[str, str]) -> str:
        """Where a layer goes: to where its module was, if that had nothing else."""
        folder, _, last = name.rpartition(".")
        end = next((each for each in ("weight", "running_mean") if last.endswith(each)), "")
        stem = last.removesuffix(end).rstrip("_.") if end else last
        path = ".".join(part for part in (folder, stem) if part) or "layer"
        of_norm = f"{path}.num_batches_tracked"
        inside = {each for each in self._program.tensors if each.startswith(f"{path}.")} - {*mine.values(), of_norm}
        while inside or self._taken(path, mine):
            path, inside = f"{path}_layer", set()
        return path

    def _taken(self, path: str, mine: Mapping[str, str]) -> bool:
        """Whether another tensor or module is called so."""
        try:
            self._network.get_submodule(path)
        except AttributeError:
            return path in self._program.tensors and path not in mine.values()
        return True

    def _folder(self, path: str) -> nn.Module:
        """Return the module of a path, empty ones on the way."""
        module = self._network
        for part in path.split(".") if path else ():
            if not hasattr(module, part):
                module.add_module(part, nn.Module())
            module = module.get_submodule(part)
        return module

    def _parameter(self, name: str) -> nn.Parameter:
        """The parameter of a name, the same for all that share it."""
        if name not in self._shared:
            self._shared[name] = nn.Parameter(self._program.tensors[name])
        return self._shared[name]

    def _is_own(self, name: str) -> bool:
        return name in self._names

    def _is_parameter(self, name: str) -> bool:
        return self._names.get(name, "") in self._program.parameters

    def _tensor(self, argument: Mapping[str, Any]) -> Tensor:
        return self._program.tensors[self._names[_name(argument)]]

    def _bias(self, argument: Mapping[str, Any] | None, count: int) -> Any:
        """Name of the value of a bias, None where there is none, NotImplemented where no module can have it."""
        if argument is None or "as_none" in argument:
            return None
        name = _name(argument)
        right = self._is_parameter(name) and self._tensor(argument).shape == (count,)
        return name if right else NotImplemented


def _name(argument: Mapping[str, Any] | None) -> str:
    """Name of the value of an argument; empty where it is none."""
    found = {} if argument is None else argument.get("as_optional_tensor", argument)
    return found["as_tensor"]["name"] if "as_tensor" in found else ""


def _tensors(node: Mapping[str, Any]) -> list[Any]:
    """Values that a node reads."""
    found: list[Any] = []
    for each in node["inputs"]:
        ((kind, value),) = each["arg"].items()
        if kind == "as_tensor":
            found.append(value)
        elif kind == "as_tensors":
            found += value
        elif kind == "as_optional_tensors":
            found += [one["as_tensor"] for one in value if "as_tensor" in one]
        elif kind == "as_optional_tensor" and "as_tensor" in value:
            found.append(value["as_tensor"])
    return found
