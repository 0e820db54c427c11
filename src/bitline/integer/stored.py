"""Values that several operations read are stored as the integers that crossbars read.

A value that one crossbar reads is rounded to `inputs.bits` on its way into it, and nothing else sees it. Where a
residual branch reads it too, both must read the same integers, as from a buffer; else the network in floating point
adds numbers that no buffer holds. CRIMP (Huai et al., ACM TECS 2023) leaves this open.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bitline.errors import ConversionError
from bitline.integer.trace import Kind, Step, trace
from bitline.mapping.histogram import RangeHistogram
from bitline.nn.grid import Grid, grid_of, grids, put_on
from bitline.nn.layer import CrossbarLayer
from bitline.nn.observe import in_mode, watching
from bitline.nn.on import crossbar_layers


@dataclass(frozen=True)
class StoredValue:
    """A value that is kept as integers.

    Args:
        module: that makes it.
        readers: what reads it.
        exponent: of the power of two that an integer of 1 stands for.
        signed: integers below zero occur.
    """

    module: str
    readers: tuple[str, ...]
    exponent: int
    signed: bool

    def __str__(self) -> str:
        kind = "signed" if self.signed else "unsigned"
        return f"{self.module}: stored, {kind}, times 2^{self.exponent}, for {', '.join(self.readers)}"


def store(model: nn.Module, example: Tensor) -> tuple[StoredValue, ...]:
    """Keep values of several readers, at least one of them no crossbar, on the grid of the crossbars that read them.

    The modules that make such values do it from then on, at inference and in training; each shows its grid where the
    network is printed, and the grid is in the network's state. Doing it again changes nothing, but takes over the
    scales of the crossbars. Averages over windows that are no power of two are kept too, unless only crossbars read
    them.

    Args:
        model: from `to_crossbar`, calibrated, with scales of powers of two; changed in place.
        example: one batch; a value that no crossbar reads has its scale from what it is for this batch.

    Returns:
        What is stored.

    Raises:
        ConversionError: a network that cannot be traced or is not calibrated, a value of several readers that the
            network's code makes outside of modules, or a module that makes several values.
    """
    for name, layer in crossbar_layers(model).items():
        if layer.chip.inputs.scale != "power_of_two":
            raise ConversionError(
                f"layer {name}: inputs.scale = {layer.chip.inputs.scale!r}; it must be 'power_of_two'"
            )
        if not bool(layer.ranges.input_scale.isfinite()):
            raise ConversionError(f"layer {name}: input range unknown; call calibrate(model, batches) before store")
    steps = trace(model, example)
    readers = readers_of(steps)
    wanted = [step for step in steps if must_store(step, readers)]
    for step in wanted:
        _check(step, steps, readers[step.name])
    inputs = next(iter(crossbar_layers(model).values())).chip.inputs
    unread: list[Grid] = []
    for step in wanted:
        assert step.module is not None
        grid = grid_of(step.module)
        new = grid is None
        if grid is None:
            grid = Grid(inputs).to(example.device)
            put_on(step.module, grid)
        crossbars = _crossbars(step.name, readers)
        if crossbars:
            scale = max(float(layer.ranges.input_scale) for layer in crossbars)
            grid.take(scale, signed=any(layer.ranges.signed for layer in crossbars))
        elif new or not grid.known:
            unread.append(grid)
    _fit(model, example, unread)
    return tuple(_report(step, readers[step.name]) for step in wanted)


_PASSES = (Kind.SAME, Kind.RESHAPE, Kind.TAKE)
"""what gives the integers it reads"""


def must_store(step: Step, readers: Mapping[str, Sequence[Step | None]]) -> bool:
    """Whether a value has to be kept as integers.

    Args:
        step: that makes it.
        readers: of every value, from `readers_of`.
    """
    crossbars = [reader is not None and reader.kind == Kind.LAYER for reader in readers[step.name]]
    if step.kind == Kind.AVERAGE_POOL and step.settings["divisor"].bit_count() != 1 and not all(crossbars):
        return step.module is not None or not _for_crossbars(step.name, readers)
    return len(crossbars) > 1 and not all(crossbars)


def _for_crossbars(name: str, readers: Mapping[str, Sequence[Step | None]]) -> bool:
    """Whether crossbars alone read a value in the end."""
    return all(
        reader is not None
        and (reader.kind == Kind.LAYER or (reader.kind in _PASSES and _for_crossbars(reader.name, readers)))
        for reader in readers[name]
    )


def readers_of(steps: Sequence[Step]) -> dict[str, list[Step | None]]:
    """What reads each value, as often as it does; None stands for the result of the network."""
    readers: dict[str, list[Step | None]] = {step.name: [] for step in steps}
    for step in steps:
        for name in step.inputs:
            readers[name].append(step)
    readers[steps[-1].name].append(None)
    return readers


def _crossbars(name: str, readers: Mapping[str, Sequence[Step | None]]) -> list[CrossbarLayer]:
    """Layers that read a value as it is."""
    layers: list[CrossbarLayer] = []
    for reader in readers[name]:
        if reader is not None and isinstance(reader.module, CrossbarLayer):
            layers.append(reader.module)
        elif reader is not None and reader.kind in _PASSES and grid_of(reader.module) is None:
            layers += _crossbars(reader.name, readers)
    return layers


def _check(step: Step, steps: Sequence[Step], readers: Sequence[Step | None]) -> None:
    """Raise ConversionError where no module can keep a value."""
    names = ", ".join(_names(readers))
    if step.kind == Kind.INPUT:
        raise ConversionError(f"the input has several readers ({names}); pass it through nn.Identity() first")
    if step.module is None:
        instead = (
            "use a module, as nn.AdaptiveAvgPool2d"
            if step.kind == Kind.AVERAGE_POOL
            else "pass its result through nn.Identity()"
        )
        raise ConversionError(
            f"{step.where} makes a value that is to be stored (read by {names}), outside of modules; {instead}"
        )
    calls = sum(other.module is step.module for other in steps)
    if calls > 1:
        raise ConversionError(
            f"{step.where} ({type(step.module).__name__}) makes {calls} values, one of them to be stored (read by "
            f"{names}); give each a module of its own"
        )


def _names(readers: Sequence[Step | None]) -> tuple[str, ...]:
    return tuple("the result" if reader is None else reader.where for reader in readers)


def _fit(model: nn.Module, example: Tensor, unread: Sequence[Grid]) -> None:
    """Choose grids from what their values are for one batch in floating point."""
    if not unread:
        return
    others: list[CrossbarLayer | Grid] = [*crossbar_layers(model).values(), *grids(model).values()]
    values = {grid: RangeHistogram() for grid in unread}
    with in_mode("float", *others), watching(values, lambda grid, x: values[grid].add(x)), torch.no_grad():
        model(example)
    for grid, histogram in values.items():
        grid.fit(histogram)


def _report(step: Step, readers: Sequence[Step | None]) -> StoredValue:
    grid = grid_of(step.module)
    assert grid is not None
    return StoredValue(step.where, _names(readers), int(grid.exponent), bool(grid.low < 0))
