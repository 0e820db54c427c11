"""Which layers need partial sums, and how many groups would do without."""

import math
from collections.abc import Collection
from dataclasses import dataclass

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from bitline.compress.result import UnchangedLayer
from bitline.errors import ConversionError, nearest
from bitline.models.blocks import Block
from bitline.nn.layer import CrossbarLayer

Dense = nn.Conv2d | nn.Linear


@dataclass(frozen=True)
class Limit:
    """How many inputs one output may have.

    Args:
        rows: wordlines that a crossbar reads at once.
        row_tiles: partial sums allowed for one output.
    """

    rows: int
    row_tiles: int = 1

    def __post_init__(self) -> None:
        for field in ("rows", "row_tiles"):
            if getattr(self, field) < 1:
                raise ConversionError(f"{field} is {getattr(self, field)}; allowed: 1 or more")

    @property
    def inputs(self) -> int:
        """The most inputs of an output."""
        return self.rows * self.row_tiles

    def tiles(self, rows: int) -> int:
        """Row tiles of a matrix."""
        return math.ceil(rows / self.rows)

    def groups(self, name: str, layer: Dense) -> int | None:
        """The fewest groups of a layer that fit, or None where no number that divides its channels does.

        Raises:
            ConversionError: not even one channel fits.
        """
        self.check(name, layer)
        inputs = channels(layer)
        return self._fewest(math.gcd(inputs, layer.weight.shape[0]), inputs * positions(layer))

    def check(self, name: str, layer: Dense) -> None:
        """Refuse a layer whose kernel alone has too many rows.

        Raises:
            ConversionError: not even one channel fits.
        """
        if positions(layer) > self.inputs:
            kernel = " x ".join(map(str, layer.weight.shape[2:]))
            raise ConversionError(
                f"layer {name}: one channel of its {kernel} kernel takes {positions(layer)} rows; "
                f"allowed: {self.rows} rows x {self.row_tiles} row tiles = {self.inputs}"
            )

    def mix(self, layer: Dense) -> int:
        """The fewest groups of a 1x1 convolution over a layer's outputs that fit."""
        outputs = layer.weight.shape[0]
        return self._fewest(outputs, outputs) or outputs

    def _fewest(self, divided: int, rows: int) -> int | None:
        return next((g for g in range(1, divided + 1) if divided % g == 0 and rows <= g * self.inputs), None)


def channels(layer: Dense) -> int:
    """Input channels of a layer."""
    return layer.weight.shape[1]


def positions(layer: Dense) -> int:
    """Kernel positions of a layer, 1 for a linear one."""
    return math.prod(layer.weight.shape[2:])


@dataclass(frozen=True)
class Candidates:
    """Layers that might be rewritten.

    Args:
        names: of the layers.
        unchanged: those that cannot be, and why.
    """

    names: tuple[str, ...]
    unchanged: tuple[UnchangedLayer, ...]


def candidates(model: nn.Module, limit: int, leave: Collection[str]) -> Candidates:
    """List the dense layers of a network with more than `limit` rows.

    Raises:
        ConversionError: a name in `leave` that is no layer, or a network that is on a chip already.
    """
    modules = dict(model.named_modules())
    layers = {n: m for n, m in modules.items() if isinstance(m, Dense)}
    for name in leave:
        if name not in layers:
            raise ConversionError(
                f"leave names {name!r}, which is no layer{nearest(name, layers)}; layers: {', '.join(layers)}"
            )
    names: list[str] = []
    unchanged: list[UnchangedLayer] = []
    for name, layer in layers.items():
        if isinstance(layer, CrossbarLayer):
            raise ConversionError(f"layer {name} is on a chip already; rewrite the plain network, then to_crossbar")
        grouped = isinstance(layer, nn.Conv2d) and layer.groups > 1
        if grouped or channels(layer) * positions(layer) <= limit:
            continue
        parent = modules[name.rpartition(".")[0]] if name else None
        if name in leave:
            unchanged.append(UnchangedLayer(name, "as asked"))
        elif type(layer) not in (nn.Conv2d, nn.Linear) or is_parametrized(layer):
            unchanged.append(UnchangedLayer(name, f"{type(layer).__name__} has a forward or weights of its own"))
        elif isinstance(parent, Block) and parent.order is not None:
            unchanged.append(UnchangedLayer(name, f"is part of a {type(parent).__name__}"))
        else:
            names.append(name)
    return Candidates(tuple(names), tuple(unchanged))
