"""Keys of a chip that do nothing: neither an answer nor a cost changes with them, the others as they are.

Nothing here knows which model reads what: each key is given other values, and a small network is put on each of these
chips, answers and is priced. A key that only some networks feel (a bus that is wide enough for most) counts as felt if
this one feels any of its values.
"""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Literal, cast, get_args, get_origin

import torch
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from torch import nn

from bitline.chip.description import Chip
from bitline.cost.model import price
from bitline.cost.table import tables
from bitline.errors import BitlineError
from bitline.mapping.lower import Matmul
from bitline.mapping.place import place
from bitline.nn import calibrate, program, to_crossbar

_TEXTS = ("name", "about", "doi", "deviations")
"""what describes a chip and is none of it"""
_PRESENT = (1, 2, 3, 8, 9, 64, 1e-10, 1e-9, 1e-8)
"""tried where a key is absent"""
_INPUTS = 200
"""of the layer that answers"""
_LAYERS = (
    Matmul("conv", "conv2d", 1152, 256, positions=256, inputs=128 * 256, window=128 * 35),
    Matmul("grouped", "conv2d", 9, 1, 64, 64, 64 * 64, depthwise=True, window=64 * 19),
    Matmul("linear", "linear", 4096, 1024, inputs=4096, window=4096),
)
"""that are priced: several row tiles, column tiles and tiles"""
_LEAST = Matmul("least", "linear", 1, 1, inputs=1, window=1)
"""that any chip holds"""


def check_priced(chip: Chip) -> None:
    """Raise BitlineError where no network can be priced on a chip."""
    price(place([_LEAST], chip))


def idle_keys(chip: Chip) -> list[str]:
    """List the keys of a chip that change nothing, in the order of its file.

    Args:
        chip: any.

    Returns:
        Dotted keys, for example ``"adc.sample_rate"``. A key of which no other value is allowed is not among them, and
        none is where the chip cannot answer or be priced.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # more of them only wait for each other on layers as small as this
    try:
        return list(_idle(chip))
    finally:
        torch.set_num_threads(threads)


def _idle(chip: Chip) -> Iterator[str]:
    priced, answered = _costs(chip), _answers(chip)
    if priced is None or answered is None:
        return
    for key, changed in variants(chip):
        if not changed or any(_costs(variant) not in (priced, None) for variant in changed):
            continue
        # Answers take twenty times as long as costs, and the first two values are far from the chip's own.
        if all(_answers(variant) in (answered, None) for variant in changed[:2]):
            yield key


def variants(chip: Chip) -> Iterator[tuple[str, list[Chip]]]:
    """Chips that differ from one in a single key, for each of its keys; none where it can have no other value."""
    for path, value, field in _keys(chip):
        found: list[Chip] = []
        for other in _others(value, field):
            data = chip.model_dump()
            record = data
            for part in path[:-1]:
                record = record[part]
            record[path[-1]] = other
            with suppress(ValueError):  # no such chip: nothing to learn from it
                found.append(Chip.model_validate(data))
        yield ".".join(path), [variant for variant in found if variant != chip]


def _keys(record: BaseModel, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any, FieldInfo]]:
    for key, field in type(record).model_fields.items():
        value = getattr(record, key)
        if isinstance(value, BaseModel):
            yield from _keys(value, (*path, key))
        elif key != "kind" and not (key in _TEXTS and not path):
            yield (*path, key), value, field


def _others(value: Any, field: FieldInfo) -> list[Any]:
    """Other values of a key; some may be impossible."""
    words = _words(field.annotation)
    match value:
        case bool():
            return [not value]
        case str():
            return [word for word in (words or tables()) if word != value]
        case int():
            return [value + 1, value - 1, 2 * value, value // 2, 8 * value, value // 16]
        case float():
            return [0.1, 1e4, 100.0, 1e-3, 1e-6] if not value else [2 * value, value / 2, 0.9 * value, value / 16]
        case tuple():
            return [tuple(2 * each for each in cast("tuple[float, ...]", value))]
        case None:
            return [*words, *_PRESENT]
        case _:
            return []


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [word for part in get_args(annotation) for word in _words(part)]


def _costs(chip: Chip) -> tuple[float, ...] | None:
    """What the probe costs on a chip, or None where it cannot be priced."""
    for layers in (_LAYERS, _LAYERS[1:2]):
        try:
            cost = price(place(layers, chip))
        except BitlineError:
            continue
        return (cost.energy_J, cost.latency_s, cost.interval_s, cost.area_m2, cost.leakage_W)
    return None


def _answers(chip: Chip) -> tuple[float, ...] | None:
    """What a layer of several row tiles answers on a programmed chip, or None where it cannot."""
    generator = torch.Generator().manual_seed(0)
    layer = nn.Linear(_INPUTS, 32, bias=False)
    layer.weight.data = torch.randn(32, _INPUTS, generator=generator)
    images = torch.nn.functional.silu(2.5 * torch.randn(64, _INPUTS, generator=generator))  # a little below zero too
    try:
        with torch.no_grad():
            model = to_crossbar(nn.Sequential(layer), chip, example=images[:2]).model
            calibrate(model, [images])
            program(model, 3)
            return tuple(model(images[:8]).flatten().tolist())
    except BitlineError:
        return None
