"""A layer on a chip as a text from which it can be built again: what compiled and exported networks keep of it."""

import json
from typing import Any, NamedTuple, Self

from torch import nn

from bitline.chip.cell import NoReadNoise
from bitline.chip.description import Chip
from bitline.errors import ConversionError
from bitline.mapping.lower import Lowerable, Matmul
from bitline.mapping.place import Strategy
from bitline.network.subclass import is_joined

_GEOMETRY = ("kernel_size", "stride", "padding", "dilation", "groups")


def arguments(layer: Any, *, bias: bool) -> list[Any]:
    """What a plain layer like this one is built with, with a bias or without."""
    if isinstance(layer, nn.Linear):
        return [layer.in_features, layer.out_features, bias]
    geometry = [getattr(layer, name) for name in _GEOMETRY]
    return [layer.in_channels, layer.out_channels, *geometry, bias, layer.padding_mode]


def describe(layer: Lowerable, chip: Chip, matmul: Matmul, strategy: Strategy) -> str:
    """Return the text of a layer; whether it has a bias is no part of it."""
    return json.dumps(
        {
            "kind": next(cls.__name__ for cls in type(layer).__mro__ if not is_joined(cls)),
            "arguments": arguments(layer, bias=False),
            "matmul": vars(matmul),
            "chip": chip.model_dump(mode="json"),
            "strategy": strategy,
        }
    )


def check_traceable(chip: Chip, *, trains: bool) -> None:
    """Raise ConversionError where a layer cannot be one node of a traced graph.

    Args:
        chip: that it is on; read noise differs from read to read.
        trains: whether its ADC ranges do.
    """
    if trains:
        raise ConversionError(
            f"ADC ranges train for chip {chip.name}, which no compiled or exported network can do; "
            "call keep_ranges(model) first"
        )
    if not isinstance(chip.cell.read_noise, NoReadNoise):
        raise ConversionError(
            f"chip {chip.name} has read noise, which no compiled or exported network can draw anew at every "
            "read; run it as it is, or set cell.read_noise={kind='none'}"
        )


class Description(NamedTuple):
    """What the text of a layer says.

    Args:
        kind: name of its class.
        arguments: that the plain layer is built with.
        chip: that it is on.
        matmul: the layer as a matrix product.
        strategy: how its groups are laid out.
    """

    kind: str
    arguments: list[Any]
    chip: Chip
    matmul: Matmul
    strategy: Strategy

    @classmethod
    def of(cls, text: str) -> Self:
        """Read the text of a layer."""
        content = json.loads(text)
        arguments = [tuple(a) if isinstance(a, list) else a for a in content["arguments"]]
        chip, matmul = Chip.model_validate(content["chip"]), Matmul(**content["matmul"])
        return cls(content["kind"], arguments, chip, matmul, content.get("strategy", "dense"))
