"""Where values of many bits become integers of few, and by what shift."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch

from bitline.errors import MappingError
from bitline.integer.bounds import MOST_BITS, Bounds, Format
from bitline.integer.operations import Operation, Requantize
from bitline.integer.trace import Kind, Step
from bitline.nn.grid import grid_of
from bitline.nn.layer import CrossbarLayer

COMMUTES = (Kind.RELU, Kind.MAX_POOL, Kind.RESHAPE, Kind.TAKE, Kind.SAME)
"""what may come before or after a requantization: it changes no order, and keeps zero"""


class BoundedOperation(NamedTuple):
    """An operation, None where nothing is to be done, and the bounds of its value."""

    operation: Operation | None
    bounds: Bounds


def with_requantization(steps: Sequence[Step]) -> list[Step]:
    """Put a requantization where a crossbar reads and where a value is stored; where nothing is lost, earlier.

    A requantization moves in front of operations that keep order and zero, where no other operation reads their input:
    pooling then compares integers of few bits.
    """
    result: list[Step] = []
    on_grid: dict[str, str] = {}
    reads: dict[tuple[str, Format], str] = {}
    for step in steps:
        inputs = tuple(on_grid.get(name, name) for name in step.inputs)
        if isinstance(step.module, CrossbarLayer):
            form = _input_format(step.module)
            if (inputs[0], form) not in reads:
                reads[inputs[0], form] = read = f"{step.name}_read"
                result.append(_requantization(read, inputs, _shape_of(steps, step.inputs[0]), form, step.where))
            inputs = (reads[inputs[0], form],)
        result.append(replace(step, inputs=inputs))
        grid = grid_of(step.module)
        if grid is not None:
            name = f"{step.name}_stored"
            form = Format(int(grid.exponent), int(grid.low), int(grid.high))
            result.append(_requantization(name, (step.name,), step.shape, form, step.where))
            on_grid[step.name] = name
    moved = True
    while moved:
        moved = _move_one(result)
    return result


def _requantization(name: str, inputs: tuple[str, ...], shape: tuple[int, ...], form: Format, where: str) -> Step:
    return Step(Kind.REQUANTIZE, name, inputs, shape, None, where, {"format": form})


def _input_format(layer: CrossbarLayer) -> Format:
    low, high = layer.input_format.limits
    return Format(_exponent(float(layer.ranges.input_scale)), low, high)


def _exponent(scale: float) -> int:
    """Exponent of a power of two."""
    return int(torch.frexp(torch.tensor(scale, dtype=torch.float64)).exponent) - 1


def _shape_of(steps: Sequence[Step], name: str) -> tuple[int, ...]:
    return next(step.shape for step in steps if step.name == name)


def _move_one(steps: list[Step]) -> bool:
    """Move one requantization in front of the operation whose value it reads; False if none can move."""
    by_name = {step.name: (place, step) for place, step in enumerate(steps)}
    for place, step in enumerate(steps):
        if step.kind != Kind.REQUANTIZE:
            continue
        before, source = by_name[step.inputs[0]]
        readers = sum(name == source.name for other in steps for name in other.inputs)
        if source.kind not in COMMUTES or readers != 1 or source is steps[-1]:
            continue
        first = replace(
            step, inputs=source.inputs, shape=_shape_of(steps, source.inputs[0]), name=f"{source.name}_early"
        )
        steps[place] = replace(source, name=step.name, inputs=(first.name,))
        steps[before] = first
        if source.kind == Kind.SAME or (source.kind == Kind.RELU and step.settings["format"].low == 0):
            # Rounding clips at zero already, so the other operation is left out.
            del steps[place]
            steps[before] = replace(first, name=step.name)
        else:
            # What was moved runs where the other ran.
            steps.insert(before + 1, steps.pop(place))
        return True
    return False


def requantize(step: Step, read: Bounds) -> BoundedOperation:
    """Round a value to the format of a step; no operation where the value is of that format already.

    Args:
        step: a requantization.
        read: bounds of the value.

    Raises:
        MappingError: a division that its reciprocal does not make exact.
    """
    form: Format = step.settings["format"]
    shift = (form.exponent - read.exponents).clamp(max=MOST_BITS)
    low, high = (torch.full_like(shift, end) for end in (form.low, form.high))
    exact = bool((read.exponents == form.exponent).all()) and read.divisor == 1
    if exact and int(read.low.min()) >= form.low and int(read.high.max()) <= form.high:
        return BoundedOperation(None, read)
    # Beyond these nothing but a clipped result comes out.
    right, left = shift.clamp(min=0), (-shift).clamp(min=0, max=31)
    room = MOST_BITS - max(abs(form.low), form.high).bit_length() - read.divisor.bit_length()
    reach, far = right.clamp(max=room), right > room
    bottom, top = (low * read.divisor << reach) >> left, ((high * read.divisor << reach) >> left) + 1
    floor = torch.maximum(read.low, torch.where(far, read.low, bottom))
    ceiling = torch.maximum(floor, torch.minimum(read.high, torch.where(far, read.high, top)))
    shift = torch.where(shift < 0, -left, shift)
    half = 1 << (right - 1).clamp(min=0, max=MOST_BITS - 1)
    most = max(int((ceiling.abs() << left).max()), int((floor.abs() << left).max())) + int(half.max())
    operation = Requantize(
        step.name,
        step.inputs,
        form.exponent,
        form.low,
        form.high,
        shift,
        floor,
        ceiling,
        most >= 2**31 or int(right.max()) > 31 or read.divisor > 1,
        read.divisor,
    )
    if read.divisor > 1 and (bits := operation.reciprocal.bits) > 31:
        raise MappingError(f"{step.where}: dividing by {read.divisor} takes {bits} bits; at most 31 can be exact")
    return BoundedOperation(operation, Bounds(torch.full_like(shift, form.exponent), low, high))
