"""Any network to the same network on a chip."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized
from torch.overrides import TorchFunctionMode

from bitline.chip.description import Chip
from bitline.errors import ConversionError, nearest
from bitline.mapping.lower import Lowerable, lower
from bitline.mapping.place import LayerPlacement, Placement, place
from bitline.mapping.strategies import choose
from bitline.network.batch_norm import fold, neighbours
from bitline.network.copy import copied
from bitline.network.trace import MAPPED, modules, run_hooked, trace
from bitline.nn.grid import grids
from bitline.nn.layers import CrossbarConv1d, CrossbarConv2d, CrossbarLayer, CrossbarLinear
from bitline.programming.cells import absent_blocks

_CLASSES = {nn.Linear: CrossbarLinear, nn.Conv1d: CrossbarConv1d, nn.Conv2d: CrossbarConv2d}
_WEIGHTED = {
    torch.matmul: "matmul",
    Tensor.matmul: "matmul",
    Tensor.__matmul__: "matmul",
    torch.bmm: "bmm",
    Tensor.bmm: "bmm",
    Tensor.__rmatmul__: "matmul",
    torch.linalg.matmul: "matmul",
    torch.linalg.multi_dot: "multi_dot",
    torch.mm: "mm",
    Tensor.mm: "mm",
    torch.mv: "mv",
    Tensor.mv: "mv",
    torch.dot: "dot",
    Tensor.dot: "dot",
    torch.addmm: "addmm",
    Tensor.addmm: "addmm",
    torch.addmv: "addmv",
    Tensor.addmv: "addmv",
    torch.baddbmm: "baddbmm",
    Tensor.baddbmm: "baddbmm",
    torch.addbmm: "addbmm",
    Tensor.addbmm: "addbmm",
    torch.einsum: "einsum",
    torch.tensordot: "tensordot",
    torch.inner: "inner",
    Tensor.inner: "inner",
    nn.functional.linear: "linear",
    nn.functional.bilinear: "bilinear",
    nn.functional.scaled_dot_product_attention: "scaled_dot_product_attention",
    nn.functional.conv1d: "conv1d",
    nn.functional.conv2d: "conv2d",
    nn.functional.conv3d: "conv3d",
    torch.conv1d: "conv1d",
    torch.conv2d: "conv2d",
    torch.conv3d: "conv3d",
    nn.functional.conv_transpose1d: "conv_transpose1d",
    nn.functional.conv_transpose2d: "conv_transpose2d",
    nn.functional.conv_transpose3d: "conv_transpose3d",
    nn.functional.multi_head_attention_forward: "multi_head_attention_forward",
}


@dataclass(frozen=True)
class DigitalOperation:
    """A weighted operation that no crossbar does.

    Args:
        name: of the module.
        op: its class, or the function it calls.
        why: the reason.
    """

    name: str
    op: str
    why: str


@dataclass(frozen=True)
class ConversionReport:
    """What became of every weighted operation.

    Args:
        layers: on crossbars, in the order they run.
        folded: batch norm name -> name of the layer it went into.
        digital: everything with weights, and every matrix product, that stays off the crossbars.
    """

    layers: tuple[LayerPlacement, ...]
    folded: dict[str, str]
    digital: tuple[DigitalOperation, ...]

    def __str__(self) -> str:
        lines = [
            f"{p.matmul.name}: {p.matmul.kind} {p.matmul.rows} x {p.matmul.cols}"
            + (f" x {p.matmul.groups} groups" if p.matmul.groups > 1 else "")
            + (f", {p.strategy}" if p.strategy != "dense" else "")
            + f", {p.row_tiles} row tiles, {p.crossbars} crossbars, {p.utilization:.0%} used"
            + (f", {p.removed} crossbars of zeros removed" if p.removed else "")
            for p in self.layers
        ]
        lines += [f"{norm}: folded into {layer}" for norm, layer in self.folded.items()]
        return "\n".join(lines + [f"{d.name}: {d.op} stays digital: {d.why}" for d in self.digital])


class Conversion(NamedTuple):
    """A converted network and what became of it."""

    model: nn.Module
    report: ConversionReport


def to_crossbar(
    model: nn.Module,
    chip: Chip,
    *,
    example: Tensor | None = None,
    keep_digital: Collection[str] | Callable[[str, nn.Module], bool] = (),
    allow_digital: bool = True,
    mapping: Mapping[str, str] | None = None,
) -> Conversion:
    """Put the linear and convolution layers of a network on a chip.

    The model is copied, not changed, and nothing of its code is traced or rewritten: layers are replaced
    where they stand, and batch norms folded into them where that is known to be right. Run `calibrate` next.

    Args:
        model: any module.
        chip: to put it on.
        example: one batch. With it, batch norms are found outside nn.Sequential too, positions per image are
            known (cost needs them), and matrix products hidden in code are reported.
        keep_digital: names of layers to leave alone, or a function of (name, module) that says so.
        allow_digital: if False, anything weighted that stays off the crossbars is an error.
        mapping: how layers of several groups are laid out: layer name, ``"depthwise"``, ``"group"`` or ``"*"`` ->
            ``"dense"``, ``"naive"``, ``"packed"``, ``"strip"`` or ``"digital"``; see docs/mapping.md.

    Returns:
        (model, report).

    Raises:
        ConversionError: nothing to convert, a model that cannot be copied, an unknown name in `keep_digital`, an
            unknown key or strategy in `mapping`, or something stays digital where that is not allowed.
        MappingError: the chip has too few crossbars, or a layer does not fit as `mapping` says.
    """
    model = copied(model)
    training = {name: module.training for name, module in modules(model, everywhere=True)}
    model.eval()
    kept = _keep(model, keep_digital)
    why: dict[str, str] = {}
    layers: dict[str, Lowerable] = {}
    for name, module in modules(model):
        if isinstance(module, MAPPED):
            reason = "kept digital as asked" if kept(name, module) else _why_not(model, name, module)
            if reason:
                why[name] = reason
            else:
                layers[name] = module
    if not layers:
        reasons = "".join(f"; {name or '(model)'}: {reason}" for name, reason in why.items())
        raise ConversionError(
            f"{type(model).__name__} has no Linear, Conv1d or Conv2d layer that a chip could hold{reasons}"
        )
    folded = fold(model, neighbours(model, layers, example), example)
    found = trace(model, example, layers) if example is not None else [lower(m, n) for n, m in layers.items()]
    for name in layers.keys() - {matmul.name for matmul in found}:
        why[name] = "never ran on the example"
        del layers[name]
    digital = _digital_modules(model, layers, why) + _digital_functions(model, example)
    if digital and not allow_digital:
        raise ConversionError(
            "these operations stay digital: " + "; ".join(f"{d.name} ({d.op}): {d.why}" for d in digital)
        )
    chosen = choose(found, mapping or {})
    absent = {m.name: absent_blocks(layers[m.name], m, chip, chosen[m.name]) for m in found}
    placement = place(found, chip, mapping, absent)
    replaced: dict[nn.Module, nn.Module] = {}
    for placed in placement.layers:
        layer = layers[placed.matmul.name]
        crossbars = _CLASSES[_plain_class(layer)]
        replaced[layer] = crossbars.from_float(layer, chip, placed.matmul, placed.strategy)  # pyright: ignore[reportArgumentType]
    for name, module in modules(model, everywhere=True):
        if module in replaced:
            if not name:
                model = replaced[module]
            else:
                model.set_submodule(name, replaced[module])
    for name, module in modules(model, everywhere=True):
        module.training = training[name]
    model.register_forward_pre_hook(_begin_pass)
    model.register_forward_hook(_end_pass, always_call=True)
    return Conversion(model, ConversionReport(placement.layers, folded, tuple(digital)))


def _begin_pass(model: nn.Module, _: object) -> None:
    if torch.compiler.is_compiling():
        return
    for layer in crossbar_layers(model).values():
        layer.call = 0


def _end_pass(model: nn.Module, _: object, __: object) -> None:
    if torch.compiler.is_compiling():
        return
    for layer in crossbar_layers(model).values():
        layer.call = None


def crossbar_layers(model: nn.Module) -> dict[str, CrossbarLayer]:
    """Layers of a converted network that are on crossbars, by name.

    Raises:
        ConversionError: there are none.
    """
    layers = {name: module for name, module in modules(model) if isinstance(module, CrossbarLayer)}
    if not layers:
        raise ConversionError(f"{type(model).__name__} has no layer on crossbars; call to_crossbar(model, chip) first")
    return layers


def placement(model: nn.Module) -> Placement:
    """Where a converted network is: the placement that its arithmetic uses and its cost is counted from.

    Raises:
        ConversionError: nothing is on crossbars, or the network was converted without an example.
    """
    layers = crossbar_layers(model)
    unknown = [name for name, layer in layers.items() if layer.matmul.inputs == 0]
    if unknown:
        raise ConversionError(f"positions per image of layer {unknown[0]} are unknown; give to_crossbar an example")
    return Placement(next(iter(layers.values())).chip, tuple(layer.placement for layer in layers.values()))


def program(model: nn.Module, seed: int) -> None:
    """Write a converted network into the cells of the chip with this seed; -1 for ideal cells."""
    for layer in crossbar_layers(model).values():
        layer.program(seed)


def set_chip(model: nn.Module, chip: Chip) -> None:
    """Move a converted network to another chip; every layer keeps its mapping.

    Calibrated ADC ranges are fitted again from the partial sums counted by `calibrate`; where crossbar size, cell
    or number formats differ these are no longer true, and `calibrate` must run again. Trained ranges stay as they are
    on a chip of the same ADCs, crossbars and number formats, and are fitted or unknown as calibrated ones on others.

    Raises:
        ConversionError: ADC ranges train that would not stay.
        MappingError: the chip has too few crossbars, or a layer does not fit as it is mapped.
    """
    layers = crossbar_layers(model).values()
    found = [(layer.matmul, layer) for layer in layers]
    absent = {m.name: absent_blocks(cast("Lowerable", layer), m, chip, layer.strategy) for m, layer in found}
    place((m for m, _ in found), chip, {m.name: layer.strategy for m, layer in found}, absent=absent)
    for layer in layers:
        layer.keeps(chip)  # refuses before any layer has moved
    for grid in grids(model).values():
        if chip.inputs != grid.inputs:
            grid.forget(chip.inputs)
    for layer in layers:
        layer.set_chip(chip)


def _keep(
    model: nn.Module, keep: Collection[str] | Callable[[str, nn.Module], bool]
) -> Callable[[str, nn.Module], bool]:
    if callable(keep):
        return keep
    names = [name for name, module in modules(model) if isinstance(module, MAPPED)]
    for name in keep:
        if name not in names:
            raise ConversionError(
                f"keep_digital names {name!r}, which is no layer{nearest(name, names)}; layers: {', '.join(names)}"
            )
    return lambda name, _: name in keep


_OWN_METHODS = ("forward", "_conv_forward", "__call__", "__getattr__")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def _plain_class(module: nn.Module) -> type[Lowerable]:
    return next(cls for cls in _CLASSES if isinstance(module, cls))


def _why_not(model: nn.Module, name: str, module: nn.Module) -> str | None:
    """Say why a linear or convolution layer cannot be replaced, or None."""
    plain = _plain_class(module)
    if isinstance(module, CrossbarLayer):
        return "is on a chip already; move it with set_chip"
    if isinstance(getattr(module, "weight", None), nn.UninitializedParameter):
        return "its weights have no shape yet; run the model once first"
    if is_parametrized(module):
        return "its weights are parametrized; call torch.nn.utils.parametrize.remove_parametrizations first"
    if any(getattr(type(module), method, None) is not getattr(plain, method, None) for method in _OWN_METHODS):
        return f"{type(module).__name__} has a forward of its own"
    if any(getattr(module, hooks) for hooks in _HOOKS):
        return "it has hooks, which would be lost"
    parent = model.get_submodule(name.rpartition(".")[0]) if name else None
    if isinstance(parent, nn.MultiheadAttention):
        return "MultiheadAttention reads its weights without calling it"
    if module.weight.is_complex():  # pyright: ignore[reportAttributeAccessIssue, reportCallIssue]
        return "its weights are complex"
    return None


_REASONS: dict[type[nn.Module], str] = {
    nn.BatchNorm1d: "no single layer before it to fold it into",
    nn.BatchNorm2d: "no single layer before it to fold it into",
    nn.LayerNorm: "normalizes by the input at hand",
    nn.GroupNorm: "normalizes by the input at hand",
    nn.Embedding: "is a table look-up, not a product",
    nn.MultiheadAttention: "computes with its weights inside one function; write it with nn.Linear to map it",
}


def _digital_modules(model: nn.Module, layers: dict[str, Lowerable], why: dict[str, str]) -> list[DigitalOperation]:
    left: list[DigitalOperation] = []
    for name, module in modules(model):
        if name in layers or not (name in why or list(module.parameters(recurse=False))):
            continue
        reason = why.get(name) or next(
            (text for cls, text in _REASONS.items() if isinstance(module, cls)),
            "only Linear, Conv1d and Conv2d are mapped to crossbars",
        )
        left.append(DigitalOperation(name or "(model)", type(module).__name__, reason))
    return left


class _Spy(TorchFunctionMode):
    """Note which module calls which matrix product; those of PyTorch are listed as modules, and not looked into."""

    def __init__(self) -> None:
        super().__init__()
        self.running: list[tuple[str, nn.Module]] = []
        self.found: dict[tuple[str, str], None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, module = self.running[-1] if self.running else ("", None)
        if func in _WEIGHTED and not (isinstance(module, MAPPED) or type(module).__module__.startswith("torch.nn.")):
            self.found[(name, _WEIGHTED[func])] = None
        return func(*args, **(kwargs or {}))

    def watch(self, name: str, module: nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
        """Follow when a module begins and ends."""
        return [
            module.register_forward_pre_hook(lambda _module, _args: self.running.append((name, module))),
            module.register_forward_hook(self._ended),
        ]

    def _ended(self, _module: nn.Module, _args: object, _output: object) -> None:
        self.running.pop()


def _digital_functions(model: nn.Module, example: Tensor | None) -> list[DigitalOperation]:
    """Find matrix products that the model's own code makes, outside of its layers."""
    if example is None:
        return []
    spy = _Spy()
    handles = [handle for name, module in modules(model) for handle in spy.watch(name, module)]
    with spy:
        run_hooked(model, example, handles)
    why = "called as a function, outside of a layer"
    return [DigitalOperation(name or "(model)", op, why) for name, op in spy.found]
