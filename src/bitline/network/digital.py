"""What of a network stays off the crossbars, and why."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from torch import nn

from bitline.mapping.lower import Lowerable
from bitline.network.products import Made
from bitline.network.trace import MAPPED, modules


@dataclass(frozen=True)
class DigitalOperation:
    """A weighted operation that no crossbar does.

    Args:
        name: of the module.
        op: its class, or the function it calls.
        why: the reason.
        macs: multiplications of one image that it makes itself, not in modules inside; 0 where no example told.
    """

    name: str
    op: str
    why: str
    macs: int = 0


def plain_class(module: nn.Module) -> type[Lowerable]:
    """The class of PyTorch that a linear or convolution layer is of."""
    return next(cls for cls in MAPPED if isinstance(module, cls))


_REASONS: dict[type[nn.Module], str] = {
    nn.BatchNorm1d: "no single layer before it to fold it into",
    nn.BatchNorm2d: "no single layer before it to fold it into",
    nn.LayerNorm: "normalizes by the input at hand",
    nn.GroupNorm: "normalizes by the input at hand",
    nn.Embedding: "is a table look-up, not a product",
    nn.MultiheadAttention: "computes with its weights inside one function, and was not made of layers here",
}


def digital(
    model: nn.Module, layers: Collection[str], why: Mapping[str, str], macs: Mapping[Made, int]
) -> tuple[DigitalOperation, ...]:
    """List what has weights or makes products and is on no crossbar.

    Args:
        model: with its batch norms folded.
        layers: names of those on crossbars.
        why: reasons known so far, by name.
        macs: multiplications of one image of every product that was seen.
    """
    left: list[DigitalOperation] = []
    own: dict[str, int] = {}
    for made, number in macs.items():
        own[made.name] = own.get(made.name, 0) + number
    for name, module in modules(model):
        if name in layers or not (name in why or list(module.parameters(recurse=False))):
            continue
        theirs = type(module).__module__.startswith("torch.")
        names = [] if theirs else dict(module.named_parameters(recurse=False))
        parameters = f"has parameters of its own, {', '.join(names)}; " if names else ""
        reason = why.get(name) or next(
            (text for cls, text in _REASONS.items() if isinstance(module, cls)),
            f"{parameters}only Linear, Conv1d and Conv2d are mapped to crossbars",
        )
        if theirs or name in why:  # its products are not listed by themselves
            left.append(DigitalOperation(name or "(model)", type(module).__name__, reason, own.pop(name, 0)))
        else:
            left.append(DigitalOperation(name or "(model)", type(module).__name__, reason))
    return (*left, *_functions(macs, layers, own))


def _functions(macs: Mapping[Made, int], layers: Collection[str], own: Collection[str]) -> list[DigitalOperation]:
    """List products that are made outside of layers, and of modules that are listed."""
    return [
        DigitalOperation(
            made.name or "(model)",
            made.op,
            "called as a function, outside of a layer" if number else "a transform, no product; it is not counted",
            number,
        )
        for made, number in macs.items()
        if made.name in own and made.name not in layers
    ]
