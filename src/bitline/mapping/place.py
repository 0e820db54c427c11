"""Matrix products on a chip: the placement that arithmetic and cost share."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bitline.chip.description import Chip
from bitline.errors import MappingError
from bitline.mapping.layer import Block, LayerPlacement, Strategy, dense, input_digits
from bitline.mapping.lower import Matmul
from bitline.mapping.strategies import choose, placed

__all__ = ["Block", "LayerPlacement", "Placement", "Strategy", "dense", "input_digits", "place", "placed"]


@dataclass(frozen=True)
class Placement:
    """A network on a chip, layer by layer in the order of execution.

    Args:
        chip: that it is on.
        layers: on its crossbars, or on the digital units that they were given.
        digital: multiplications of one image by all else that makes products, by name; None where that is not known.
    """

    chip: Chip
    layers: tuple[LayerPlacement, ...]
    digital: Mapping[str, int] | None = None

    @property
    def crossbars(self) -> int:
        """Crossbars of all layers, before copies."""
        return sum(layer.crossbars for layer in self.layers)

    @property
    def removed(self) -> int:
        """Crossbars of all layers that are not built, since all of their weights are zero; before copies."""
        return sum(layer.removed for layer in self.layers)

    @property
    def conversions(self) -> int:
        """Uses of an ADC per image."""
        return sum(layer.conversions for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates per image of all layers, those with the zero weights of removed crossbars included."""
        return sum(layer.matmul.macs for layer in self.layers)

    @property
    def digital_macs(self) -> int:
        """Multiply-accumulates per image of what is no layer here."""
        return sum((self.digital or {}).values())


def place(
    matmuls: Iterable[Matmul],
    chip: Chip,
    mapping: Mapping[str, str] | None = None,
    absent: Mapping[str, frozenset[tuple[int, int, int]]] | None = None,
) -> Placement:
    """Place the layers of a network on a chip.

    Args:
        matmuls: the layers.
        chip: to place them on.
        mapping: layer name or kind -> strategy, see `bitline.mapping.strategies.choose`; dense where absent.
        absent: layer name -> blocks on crossbars that are not built, see `placed`; none where absent.

    Raises:
        ConversionError: a key or a strategy in `mapping` that there is not.
        MappingError: a layer that its strategy cannot place, or the chip states how many tiles it has, and the network
            needs more.
    """
    products = list(matmuls)
    chosen, gone = choose(products, mapping or {}), absent or {}
    layers = (placed(matmul, chip, chosen[matmul.name], gone.get(matmul.name, frozenset())) for matmul in products)
    placement = Placement(chip, tuple(layers))
    if chip.system.tiles is not None:
        offered = chip.system.tiles * chip.system.macros_per_tile * chip.system.crossbars_per_macro
        needed = placement.crossbars * chip.system.copies
        if needed > offered:
            raise MappingError(
                f"the network needs {needed} crossbars; chip {chip.name} has {offered} "
                f"({chip.system.tiles} tiles of {chip.system.macros_per_tile} macros "
                f"of {chip.system.crossbars_per_macro} crossbars)"
            )
    return placement
