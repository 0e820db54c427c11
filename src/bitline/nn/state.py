"""What the state of a layer holds beside its tensors, and which states a layer takes."""

import json
from typing import Any

import torch
from torch import Tensor

from bitline.errors import ConversionError
from bitline.mapping.range_parts import flat_parts, formats, formats_before_fingerprints
from bitline.nn.ranges import BUFFERS, TRAINED
from bitline.nn.read import Reads

State = dict[str, Any]
_RANGES = (*BUFFERS, "calibrated_for", *TRAINED, "range_steps")
_READS, _MADE_FOR = "reads", "ranges.made_for"


def save(layer: Any, state: State, prefix: str, _: object = None) -> None:
    """Add the reads of a layer to its state and, as JSON in bytes, what its ranges depend on."""
    state[prefix + _READS] = layer.reads.tensor()
    if _number(layer.ranges.calibrated_for) == formats(layer.chip, layer.ranges.layout):
        text = json.dumps(_made_for(layer))
        state[prefix + _MADE_FOR] = torch.tensor(list(text.encode()), dtype=torch.uint8)


def check(layer: Any, state: State, prefix: str) -> None:
    """Refuse a state that a layer cannot go on from; nothing has been loaded then.

    Raises:
        ConversionError: ranges of another chip or mapping, with what differs, or counts of reads that cannot be.
    """
    if prefix + _READS in state:
        Reads.of(state[prefix + _READS])
    number = state.get(f"{prefix}ranges.calibrated_for", state.get(prefix + "calibrated_for"))
    chip, layout = layer.chip, layer.ranges.layout
    known = (None, formats(chip, layout), formats_before_fingerprints(chip, layout))
    if _number(number) in known:
        return
    told = ["it does not say in what"]
    if prefix + _MADE_FOR in state:
        mine, theirs = _made_for(layer), _read(state[prefix + _MADE_FOR])
        keys = [key for key in sorted(mine.keys() | theirs.keys()) if mine.get(key) != theirs.get(key)]
        told = [f"{key} = {theirs.get(key)!r} there, {mine.get(key)!r} here" for key in keys]
    raise ConversionError(
        f"layer {layer.cells.matmul.name}: the state has ranges of another chip than {chip.name}: {'; '.join(told)}. "
        "Load it into a network on that chip, then move with set_chip(model, chip); nothing was loaded"
    )


def load(layer: Any, state: State, prefix: str, *_: object) -> None:
    """Take from a state what no tensor of the layer holds; what was counted before is gone.

    A state may be older than reads, and than the parts of a layer: ranges then stand beside the weights.
    """
    check(layer, state, prefix)
    state.pop(prefix + _MADE_FOR, None)
    counts = state.pop(prefix + _READS, None)
    layer.forget()
    layer.reads = Reads() if counts is None else Reads.of(counts)
    for name in _RANGES:
        if prefix + name in state:
            state[f"{prefix}ranges.{name}"] = state.pop(prefix + name)
    if f"{prefix}ranges.calibrated_for" in state:
        state[f"{prefix}ranges.calibrated_for"] = torch.tensor(formats(layer.chip, layer.ranges.layout))


def _number(value: Tensor | None) -> int | None:
    return None if value is None or value.is_meta else int(value)


def _made_for(layer: Any) -> dict[str, Any]:
    return {**flat_parts(layer.chip), "mapping": layer.ranges.layout}


def _read(text: Tensor) -> dict[str, Any]:
    try:
        return dict(json.loads(bytes(text.tolist())))
    except (ValueError, TypeError) as error:
        raise ConversionError(
            "the state does not say which chip its ranges are for: ranges.made_for is damaged"
        ) from error
