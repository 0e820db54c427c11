"""Which strategy lays out which layer: as written on a command line, or as the cost model likes best."""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor, nn

from bitline.chip.description import Chip
from bitline.errors import ConversionError, MappingError, nearest
from bitline.mapping.lower import Matmul
from bitline.mapping.place import Strategy, place, placed
from bitline.mapping.strategies import STRATEGIES
from bitline.network.trace import matmuls

if TYPE_CHECKING:
    from bitline.cost.model import LayerCost

_OBJECTIVES: "dict[str, Callable[[LayerCost], float]]" = {
    "energy": lambda cost: cost.energy_J,
    "area": lambda cost: cost.area_m2,
    "latency": lambda cost: cost.latency_s,
    "energy*area": lambda cost: cost.energy_J * cost.area_m2,
}
OBJECTIVES = tuple(_OBJECTIVES)
AUTO = "auto"
"""stands, alone, for the cheapest strategy of every layer; ``auto=area`` for another objective than energy"""


def parse(texts: Iterable[str]) -> dict[str, str]:
    """Read a mapping from ``KEY=STRATEGY``, one a text; `bitline.mapping.strategies.choose` says what they mean.

    Raises:
        ConversionError: a text of another form, a key twice, or an unknown strategy.
    """
    mapping: dict[str, str] = {}
    for text in texts:
        key, equals, strategy = text.rpartition("=")
        if not equals:
            raise ConversionError(
                f"mapping {text!r} is not KEY=STRATEGY, for example depthwise=strip; "
                f"strategies: {', '.join(STRATEGIES)}"
            )
        if strategy not in STRATEGIES:
            raise ConversionError(
                f"mapping of {key} = {strategy!r}{nearest(strategy, STRATEGIES)}; allowed: {', '.join(STRATEGIES)}"
            )
        if key in mapping:
            raise ConversionError(f"mapping of {key} is given twice: {mapping[key]!r} and {strategy!r}")
        mapping[key] = strategy
    return mapping


def resolve(texts: Sequence[str], shapes: Callable[[], Sequence[Matmul]], chip: Chip) -> dict[str, str]:
    """Read a mapping that may be ``auto`` or ``auto=OBJECTIVE`` instead.

    Args:
        texts: as on a command line.
        shapes: gives the layers where their cost decides.
        chip: on which it decides.

    Raises:
        ConversionError: as `parse`; ``auto`` beside other texts; an unknown objective.
    """
    first, _, objective = texts[0].partition("=") if texts else ("", "", "")
    if first != AUTO:
        return parse(texts)
    if len(texts) > 1:
        raise ConversionError(f"mapping {texts[0]!r} stands alone; also given: {', '.join(texts[1:])}")
    return dict(cheapest(shapes(), chip, objective or "energy"))


def cheapest_mapping(model: nn.Module, chip: Chip, example: Tensor, objective: str = "energy") -> dict[str, Strategy]:
    """Choose for every layer of several groups the strategy that costs least on a chip.

    Args:
        model: plain.
        chip: to place it on.
        example: one batch, of which only the shape matters.
        objective: ``"energy"``, ``"area"``, ``"latency"`` or ``"energy*area"``.

    Returns:
        Layer name -> strategy, for `to_crossbar`.

    Raises:
        ConversionError: an unknown objective, or the network does not take such a batch.
    """
    return cheapest(matmuls(model, example.shape[1:]), chip, objective)


def cheapest(layers: Sequence[Matmul], chip: Chip, objective: str = "energy") -> dict[str, Strategy]:
    """Choose as `cheapest_mapping` does, from the shapes of layers.

    Each layer is priced in the network with the layers before it as chosen and those behind it dense; bit densities are
    the assumed ones. A strategy that a layer does not fit is passed over.
    """
    from bitline.cost.model import price  # a twentieth of a second, for this alone

    if objective not in _OBJECTIVES:
        raise ConversionError(
            f"objective = {objective!r}{nearest(objective, _OBJECTIVES)}; allowed: {', '.join(_OBJECTIVES)}"
        )
    roomy = chip.model_copy(update={"system": chip.system.model_copy(update={"tiles": None})})
    chosen: dict[str, Strategy] = {}
    for number, layer in enumerate(layers):
        if layer.groups == 1:
            continue
        costs: dict[Strategy, float] = {}
        for strategy in STRATEGIES:
            try:
                placed(layer, chip, strategy)
            except MappingError:
                continue
            cost = price(place(layers, roomy, {**chosen, layer.name: strategy})).layers[number]
            costs[strategy] = _OBJECTIVES[objective](cost)
        chosen[layer.name] = min(costs, key=lambda strategy: costs[strategy])
    return chosen
