"""What enters a network: one tensor, several in order, or several by name."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from bitline.errors import ConversionError

Inputs = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""of one batch, samples along the first axis of every tensor: ``model(x)``, ``model(*x)`` or ``model(**x)``"""


def inputs_of(batch: Any) -> Inputs:
    """Return the inputs of a batch as data loaders give it.

    A tensor and a mapping are inputs. A sequence is (inputs, targets), where inputs may be a tuple or a mapping; of a
    sequence of more parts the last is the targets, and those before are the inputs, in order.

    Raises:
        ConversionError: inputs are no tensors, or not of as many samples each.
    """
    if isinstance(batch, Tensor | Mapping):
        inputs: Any = batch
    elif isinstance(batch, Sequence) and batch and not isinstance(batch, str):
        inputs = batch[0] if len(batch) <= 2 else tuple(batch[:-1])
    else:
        inputs = batch
    parts: list[Any] = leaves(inputs)
    if not parts or not all(isinstance(part, Tensor) and part.dim() for part in parts):
        raise ConversionError(
            f"a batch has inputs of type {_kind(inputs)}; expected a tensor, or a tuple or dict of tensors, with "
            "samples along the first axis"
        )
    if len({len(part) for part in parts}) > 1:
        raise ConversionError(f"a batch has inputs of shape {described(inputs)}; expected as many samples in each")
    return inputs


def leaves(inputs: Any) -> list[Tensor]:
    """List the tensors of inputs, in the order of their axes of arguments or of their names."""
    if isinstance(inputs, Mapping):
        return [inputs[key] for key in sorted(inputs)]
    return list(inputs) if isinstance(inputs, list | tuple) else [inputs]


def mapped(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """Return inputs of the same kind, every tensor of them changed."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    if isinstance(inputs, Mapping):
        return {key: change(value) for key, value in inputs.items()}
    return tuple(change(value) for value in inputs)


def samples(inputs: Inputs) -> Iterator[Inputs]:
    """Give the inputs of each sample of a batch, without the axis of samples."""
    return (mapped(inputs, lambda x, n=number: x[n]) for number in range(count(inputs)))


def joined(each: Sequence[Inputs], join: Callable[[list[Tensor]], Tensor]) -> Inputs:
    """Return inputs of one kind as one, their tensors joined by `torch.stack` or `torch.cat`."""
    first = each[0]
    if isinstance(first, Tensor):
        return join([x for x in each if isinstance(x, Tensor)])
    if isinstance(first, Mapping):
        return {key: join([x[key] for x in each]) for key in first}  # pyright: ignore[reportArgumentType, reportCallIssue]
    return tuple(join([x[place] for x in each]) for place in range(len(first)))  # pyright: ignore[reportArgumentType]


def count(inputs: Inputs) -> int:
    """Return how many samples a batch has."""
    return len(leaves(inputs)[0])


def call(model: nn.Module, inputs: Inputs) -> Any:
    """Return what a network answers."""
    if isinstance(inputs, Tensor):
        return model(inputs)
    return model(**inputs) if isinstance(inputs, Mapping) else model(*inputs)


def described(inputs: Inputs) -> str:
    """Write the shapes: ``(2, 8)``, ``((2, 8), (2, 3))`` or ``{image: (2, 8), age: (2, 3)}``."""
    if isinstance(inputs, Tensor):
        return str(tuple(inputs.shape))
    if isinstance(inputs, Mapping):
        return "{" + ", ".join(f"{key}: {tuple(value.shape)}" for key, value in inputs.items()) + "}"
    return "(" + ", ".join(str(tuple(value.shape)) for value in inputs) + ("," if len(inputs) == 1 else "") + ")"


def _kind(inputs: Any) -> str:
    """Name the types of what should be tensors."""
    if isinstance(inputs, Mapping):
        return "dict of " + ", ".join(sorted({type(value).__name__ for value in inputs.values()}) or ["nothing"])
    if isinstance(inputs, list | tuple):
        return f"{type(inputs).__name__} of " + (", ".join(sorted({type(x).__name__ for x in inputs})) or "nothing")
    return type(inputs).__name__
