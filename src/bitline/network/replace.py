"""Other modules in the place of some of a network, where its code cannot tell."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from bitline.errors import ConversionError
from bitline.network.inputs import Inputs
from bitline.network.same import agree, answer, lively, tolerance
from bitline.network.trace import modules


def put(model: nn.Module, instead: Mapping[nn.Module, nn.Module]) -> nn.Module:
    """Put modules in the place of others, wherever these stand; return the network."""
    for name, module in modules(model, everywhere=True):
        if module in instead:
            if not name:
                return instead[module]
            model.set_submodule(name, instead[module])
    return model


def unlike_with(
    model: nn.Module, layers: Mapping[str, nn.Module], replaced: Mapping[str, nn.Module], example: Inputs
) -> list[str]:
    """List modules in whose place others, which compute the same, let the network answer otherwise.

    Args:
        model: with `layers` in place, as they are afterwards.
        layers: by name.
        replaced: what is to stand there, by name.
        example: one batch.
    """
    names = [name for name in replaced if name]
    with lively(model):
        before = answer(model, example)

        def same(some: Sequence[str]) -> bool:
            put(model, {layers[name]: replaced[name] for name in some})
            try:
                return agree(before, answer(model, example), tolerance(model))
            except (ConversionError, AttributeError):
                return False
            finally:
                put(model, {replaced[name]: layers[name] for name in some})

        return _wrong(names, same)


def _wrong(names: Sequence[str], same: Callable[[Sequence[str]], bool]) -> list[str]:
    """Those of some names that are not right, each or with others, found by halves."""
    if not names or same(names):
        return []
    if len(names) == 1:
        return list(names)
    middle = len(names) // 2
    found = _wrong(names[:middle], same) + _wrong(names[middle:], same)
    return found or list(names)
