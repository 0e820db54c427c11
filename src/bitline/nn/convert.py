"""Any network to the same network on a chip."""

import textwrap
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import nn

from bitline.chip.description import Chip
from bitline.chip.leak import leak_remark
from bitline.errors import ConversionError, nearest
from bitline.mapping.lower import Lowerable, lower
from bitline.mapping.place import LayerPlacement, place
from bitline.mapping.quantize import check_numbers
from bitline.mapping.strategies import choose
from bitline.models.weights import check_weights
from bitline.network.batch_norm import fold
from bitline.network.copy import copied
from bitline.network.digital import DigitalOperation, digital, plain_class
from bitline.network.folds import Folds
from bitline.network.inputs import Inputs, leaves, mapped
from bitline.network.readers import neighbours
from bitline.network.replace import put, unlike_with
from bitline.network.rewrite.apply import Rewriting
from bitline.network.rewrite.calls import CallsLayers
from bitline.network.trace import MAPPED, Look, look, modules
from bitline.nn import state
from bitline.nn.layer import CrossbarLayer
from bitline.nn.layer_types import CrossbarConv1d, CrossbarConv2d, CrossbarLinear
from bitline.nn.observe import in_mode
from bitline.nn.read import Pass
from bitline.nn.stays_digital import why_not
from bitline.programming.cells import absent_blocks

_WIDTH = 80
"""of a screen, characters"""
_CLASSES = {nn.Linear: CrossbarLinear, nn.Conv1d: CrossbarConv1d, nn.Conv2d: CrossbarConv2d}


@dataclass(frozen=True)
class ConversionReport:
    """Where every weighted operation is: on crossbars, folded into a layer, or digital and why.

    Args:
        layers: on crossbars, in the order they run.
        folded: batch norm name -> name of the layer it went into.
        digital: everything with weights, and every matrix product, that stays off the crossbars.
        rewritten: what was done to a module so that it has layers, by its name; these layers are inside it.
    """

    layers: tuple[LayerPlacement, ...]
    folded: dict[str, str]
    digital: tuple[DigitalOperation, ...]
    rewritten: dict[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        lines = [
            f"{p.matmul.name}: {p.matmul.kind} {p.matmul.rows} x {p.matmul.cols}"
            + (f" x {p.matmul.groups} groups" if p.matmul.groups > 1 else "")
            + (f", {p.strategy}" if p.strategy != "dense" else "")
            + f", {p.row_tiles} row tiles, {p.crossbars} crossbars, {p.utilization:.0%} used"
            + (f", {p.removed} crossbars of zeros removed" if p.removed else "")
            for p in self.layers
        ]
        lines += [f"{name or '(model)'}: {how}" for name, how in self.rewritten.items()]
        lines += [f"{norm}: folded into {layer}" for norm, layer in self.folded.items()]
        lines += [f"{d.name}: {d.op} stays digital: {d.why}" for d in self.digital]
        lines += [leak] if self.layers and (leak := leak_remark(self.layers[0].chip)) else []
        return "\n".join(part for line in lines for part in textwrap.wrap(line, _WIDTH, subsequent_indent="    "))

    def __repr__(self) -> str:
        layers, digital = len(self.layers), len(self.digital)
        crossbars = sum(placed.crossbars for placed in self.layers)
        return f"<{layers} layers on {crossbars} crossbars, {len(self.folded)} batch norms folded, {digital} digital>"


class Conversion(NamedTuple):
    """A converted network and the report of its conversion."""

    model: nn.Module
    report: ConversionReport


@torch.inference_mode(mode=False)  # where that is on, tensors made here could not be trained later
def to_crossbar(
    model: nn.Module,
    chip: Chip,
    *,
    example: Inputs | None = None,
    keep_digital: Collection[str] | Callable[[str, nn.Module], bool] = (),
    allow_digital: bool = True,
    mapping: Mapping[str, str] | None = None,
    rewrite: bool = True,
) -> Conversion:
    """Put the linear and convolution layers of a network on a chip.

    The model is copied, not changed, and nothing of its code is traced: layers are replaced where they stand, and batch
    norms folded into them where that is known to be right. Modules that hide products (attention, recurrent networks,
    transposed convolutions) are first made of layers, see docs/own.md; names of parameters change there. Run
    `calibrate` next.

    Args:
        model: any module.
        chip: to put it on.
        example: inputs of one batch: a tensor, or a tuple or dict of tensors for a network of several. With it, batch
            norms are found outside nn.Sequential too, positions per image are known (cost needs them), and matrix
            products hidden in code are reported.
        keep_digital: names of layers to leave alone, or a function of (name, module) that says so.
        allow_digital: if False, anything weighted that stays off the crossbars is an error.
        mapping: how layers of several groups are laid out: layer name, ``"depthwise"``, ``"group"`` or ``"*"`` ->
            ``"dense"``, ``"naive"``, ``"packed"``, ``"strip"`` or ``"digital"``; see docs/mapping.md.
        rewrite: make layers of the products inside modules that hide them; if False, these stay digital.

    Returns:
        (model, report).

    Raises:
        ConversionError: nothing to convert, a model that cannot be copied, an unknown name in `keep_digital`, an
            unknown key or strategy in `mapping`, or something stays digital where that is not allowed.
        MappingError: the chip has too few crossbars, a layer does not fit as `mapping` says, or an example that is NaN
            or infinite.
        DataError: weights that are NaN or infinite.
    """
    check_weights(model, type(model).__name__)
    for part in [] if example is None else leaves(example):
        if part.dtype.is_floating_point and not part.is_meta:
            check_numbers(part, "example", "numbers")
    model = copied(model)
    training = {name: module.training for name, module in modules(model, everywhere=True)}
    model.eval()
    if example is not None and any(p.is_meta for p in model.parameters()):
        example = mapped(example, lambda part: part.to("meta"))
    rewriting = Rewriting(model, example, keep_digital) if rewrite else None
    why: dict[str, str] = {}
    if rewriting is not None:
        model, why = rewriting.model, rewriting.why
    kept = _keep(model, keep_digital, why)
    layers: dict[str, Lowerable] = {}
    for name, module in modules(model):
        if isinstance(module, MAPPED) and not (isinstance(module, CallsLayers) and module.is_layer_itself):
            reason = "kept digital as asked" if kept(name, module) else why.get(name) or why_not(model, name, module)
            if reason:
                why[name] = reason
            else:
                layers[name] = module
    if not layers:
        reasons = "".join(f"; {name or '(model)'}: {reason}" for name, reason in why.items())
        raise ConversionError(
            f"{type(model).__name__} has no Linear, Conv1d or Conv2d layer that a chip could hold{reasons}"
        )
    folded = fold(model, neighbours(model, layers, example, why), example, why)
    if example is None:
        seen = Look([lower(m, n) for n, m in layers.items()], {}, {}, ())
    else:
        seen = look(model, example, layers)
    for name in layers.keys() - {matmul.name for matmul in seen.matmuls}:
        why[name] = "never ran on the example"
        del layers[name]
    passes = Pass()
    while True:
        products = [matmul for matmul in seen.matmuls if matmul.name in layers]
        chosen = choose(products, mapping or {})
        absent = {m.name: absent_blocks(layers[m.name], m, chip, chosen[m.name]) for m in products}
        placement = place(products, chip, mapping, absent)
        replaced = {
            placed.matmul.name: _on_crossbars(layers[placed.matmul.name], placed, passes, seen)
            for placed in placement.layers
        }
        unlike: list[str] = []
        if example is not None:
            with in_mode("float", *replaced.values()):
                unlike = unlike_with(model, layers, replaced, example)
        if not unlike:
            break
        for name in unlike:
            why[name] = "the network answers otherwise with another class in its place, which its code looks at"
            del layers[name]
        if not layers:
            raise ConversionError(
                f"{type(model).__name__} has no layer that may be replaced; {unlike[0]}: {why[unlike[0]]}"
            )
    left = digital(model, layers, why, seen.macs)
    if left and not allow_digital:
        raise ConversionError(
            "these operations stay digital: " + "; ".join(f"{d.name} ({d.op}): {d.why}" for d in left)
        )
    if example is not None:
        passes.digital = {f"{d.name}: {d.op}": d.macs for d in left if d.macs}
    model = put(model, {layers[name]: layer for name, layer in replaced.items()})
    for name, module in modules(model, everywhere=True):
        while name not in training:
            name = name.rpartition(".")[0]
        module.training = training[name]
    model.register_forward_pre_hook(passes.begin)
    model.register_forward_hook(passes.end, always_call=True)
    if folded:
        Folds(folded).watch(model)
    model.register_load_state_dict_pre_hook(_check_states)
    # Every process of DistributedDataParallel has the chip that it programmed, and its own count of reads.
    seeds = [f"{name}.chip_seed".lstrip(".") for name, m in modules(model) if isinstance(m, CrossbarLayer)]
    model._ddp_params_and_buffers_to_ignore = seeds  # pyright: ignore[reportArgumentType]
    rewritten = {} if rewriting is None else rewriting.rewritten
    return Conversion(model, ConversionReport(placement.layers, folded, left, rewritten))


def _on_crossbars(layer: Lowerable, placed: LayerPlacement, passes: Pass, seen: Look) -> CrossbarLayer:
    crossbars = _CLASSES[plain_class(layer)]
    new = crossbars.from_float(layer, placed.chip, placed.matmul, placed.strategy)
    new.network_pass = passes
    new.images_along = seen.axes.get(placed.matmul.name, 0)
    return new


def _check_states(model: nn.Module, states: dict[str, Any], prefix: str, *_: object) -> None:
    """Refuse a state of another chip before any layer has taken of it."""
    for name, module in modules(model):
        if isinstance(module, CrossbarLayer):
            state.check(module, states, prefix + name + "." * bool(name))


def _keep(
    model: nn.Module, keep: Collection[str] | Callable[[str, nn.Module], bool], known: Collection[str]
) -> Callable[[str, nn.Module], bool]:
    if callable(keep):
        return keep
    names = [name for name, module in modules(model) if isinstance(module, MAPPED)]
    for name in keep:
        if name not in names and name not in known:
            raise ConversionError(
                f"keep_digital names {name!r}, which is no layer{nearest(name, names)}; layers: {', '.join(names)}"
            )
    return lambda name, _: name in keep
