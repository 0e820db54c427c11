"""Whether a network that was changed still answers as before, with no branch of it silent."""

import math
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from bitline.network.inputs import Inputs, leaves
from bitline.network.trace import run_hooked

_SEED = 0
_LEAST, _MOST = 0.5, 1.5
"""of numbers that stand for a constant one-dimensional parameter, as a scale has that begins at zero or one"""


@contextmanager
def lively(model: nn.Module) -> Generator[None]:
    """Have random numbers in every parameter that is constant, for a while.

    A branch that begins with a scale of zero has no say in what a network answers, whatever is wrong in it.
    """
    generator = torch.Generator().manual_seed(_SEED)
    before: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for parameter in model.parameters():
            data = parameter.data
            if data.is_meta or not data.is_floating_point() or data.numel() < 2 or type(data) is not Tensor:
                continue
            if _constant(data):
                before.append((parameter, data))
                parameter.data = _random(data.shape, generator).to(data)
        yield
    finally:
        for parameter, data in before:
            parameter.data = data


def _constant(data: Tensor) -> bool:
    flat = data.flatten()
    return all(bool((part == flat[0]).all()) for part in (flat[:64], flat))


def _random(shape: torch.Size, generator: torch.Generator) -> Tensor:
    if len(shape) < 2:
        return torch.empty(shape).uniform_(_LEAST, _MOST, generator=generator)
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))


def answer(model: nn.Module, example: Inputs) -> Tensor:
    """Everything that a network answers to a batch, one after the other, float64; the same again, whatever it draws.

    Raises:
        ConversionError: the network does not accept the batch.
    """
    buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        parts = parts_of(run_hooked(model, example, []))
    with torch.no_grad():
        for buffer, value in buffers:
            if not buffer.is_meta:
                buffer.copy_(value)
    tensors = [part.flatten().double() for part in parts if isinstance(part, Tensor)]
    return torch.cat([torch.zeros(1, dtype=torch.float64, device=leaves(example)[0].device), *tensors])


def parts_of(answer: object) -> list[object]:
    """Everything a network returns, be it a tensor, tuples, or a mapping of any class."""
    return tree_leaves(dict(cast("Mapping[str, object]", answer)) if isinstance(answer, Mapping) else answer)


def agree(a: Tensor, b: Tensor, tolerance: float) -> bool:
    """Whether two answers are as many numbers and differ by so small a share of the largest at most."""
    if a.is_meta:  # without values the model's structure alone decides
        return a.shape == b.shape
    if a.shape != b.shape or not torch.equal(a.isfinite(), b.isfinite()):
        return False
    a, b = a[a.isfinite()], b[b.isfinite()]
    return torch.allclose(a, b, rtol=tolerance, atol=tolerance * float(a.abs().max()) + 1e-12)


def tolerance(model: nn.Module) -> float:
    """What rounding may make of an answer, as a share of the largest: some hundred units of the coarsest parameter."""
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return min(0.1, max((torch.finfo(kind).eps for kind in kinds), default=1e-7) * 8192)
