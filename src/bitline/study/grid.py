"""Lesson 2: crossbar height, ADC bits and range policy, chosen together."""

from collections.abc import Mapping, Sequence
from typing import Any

from bitline.chip.description import Chip
from bitline.cost.adc import adc_cost
from bitline.cost.events import Densities
from bitline.cost.model import Cost, price
from bitline.cost.table import load
from bitline.evaluation.densities import measure as densities_of
from bitline.mapping.place import place
from bitline.network.inputs import mapped
from bitline.network.trace import poolings
from bitline.nn import placement
from bitline.study.plan import Plan, variant
from bitline.study.subject import Subject, reached

WITHIN = 1.0
"""points below the best accuracy that a cheaper crossbar may lie"""
SLACK = 4.0
"""points that estimates may be off beyond that; those that hold were at most as far off, see docs/surrogate.md"""


def keys(plan: Plan) -> list[dict[str, Any]]:
    """List the points in the order that calibrates once for each crossbar height."""
    return [
        {"rows": rows, "ranges": ranges, "bits": bits}
        for rows in plan.rows
        for ranges in plan.ranges
        for bits in plan.bits
    ]


def check(subject: Subject) -> None:
    """Refuse a grid with a chip that cannot exist, holds too few crossbars, or has an ADC that cannot be priced.

    Raises:
        ChipError: no such chip, or no cost model for its ADC.
        MappingError: the network does not fit on it.
    """
    layers = placement(subject.on(subject.chip).model).layers
    for key in keys(subject.plan):
        chip = variant(subject.chip, **key)
        adc_cost(chip.adc.model, chip, load(chip.cost_table))
        place((layer.matmul for layer in layers), chip)


class Pricer:
    """Prices chips of the grid; what the data does to cells and wordlines is measured once for each height."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._known: tuple[int, dict[str, Densities]] | None = None

    def cost(self, chip: Chip) -> Cost:
        """Price the network on a chip, where it is then placed."""
        on_chip = self.subject.on(chip)
        images = on_chip.task.first(self.subject.plan.layer_images)
        if self._known is None or self._known[0] != chip.crossbar.rows:
            self._known = (chip.crossbar.rows, densities_of(on_chip.model, images))
        densities = self._known[1]
        pools = poolings(on_chip.plain, mapped(images, lambda x: x[:1]), densities)
        return price(placement(on_chip.model), densities=densities, poolings=pools)


def estimate(subject: Subject, *, rows: int, ranges: str, bits: int) -> dict[str, Any]:
    """Estimate the accuracies of one chip of the grid by the surrogate, and say whether it ``holds``."""
    chip = variant(subject.chip, rows, bits, ranges)
    accuracies = subject.accuracies(chip, "surrogate")
    return accuracies | {"holds": subject.on(chip).simulation.record().holds}


def discarded(key: Mapping[str, Any], estimates: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the estimate of a point that cannot be among the best heights of its ADC; None if it may be.

    Args:
        key: of the point.
        estimates: of all points.
    """
    adc = [
        each for each in estimates if (each["ranges"], each["bits"]) == (key["ranges"], key["bits"]) and each["holds"]
    ]
    own = next((each for each in adc if key.items() <= each.items()), None)
    if own is None or reached(own) >= max(map(reached, adc)) - WITHIN - SLACK:
        return None
    return {name: value for name, value in own.items() if name != "holds"}


def measure(
    subject: Subject, pricer: Pricer, estimates: Sequence[Mapping[str, Any]], *, rows: int, ranges: str, bits: int
) -> dict[str, Any]:
    """Measure one chip of the grid: accuracy with ideal cells (``adc``) and on each programmed chip, and its cost.

    Where points are estimated, ``simulation`` says whether accuracies are such estimates.
    """
    chip = variant(subject.chip, rows, bits, ranges)
    own = discarded({"rows": rows, "ranges": ranges, "bits": bits}, estimates)
    accuracies = subject.accuracies(chip) if own is None else own
    told = {"simulation": "exact" if own is None else "surrogate"} if estimates else {}
    cost = pricer.cost(chip)
    return (
        accuracies
        | told
        | {
            "energy_J": cost.energy_J,
            "latency_s": cost.latency_s,
            "area_m2": cost.area_m2,
            "tops_per_watt": cost.tops_per_watt,
            "conversions": cost.conversions,
            "crossbars": cost.crossbars,
        }
    )


def best_heights(points: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Find the best crossbar height for each ADC.

    Returns:
        For each range policy and number of bits that have more than one height: ``most_accurate``, the point of best
        accuracy (of equals, the one of least energy), and ``cheapest``, the point of least energy within `WITHIN`
        points of it. Points left at estimates of a surrogate are none of them.
    """
    adcs: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for point in points:
        adcs.setdefault((str(point["ranges"]), int(point["bits"])), []).append(point)
    heights: list[dict[str, Any]] = []
    for (ranges, bits), at in adcs.items():
        if len(at) > 1:
            at = [point for point in at if point.get("simulation") != "surrogate"]
            best = max(at, key=lambda point: (reached(point), -point["energy_J"]))
            cheap = cheapest(at)
            heights.append({"ranges": ranges, "bits": bits, "most_accurate": dict(best), "cheapest": dict(cheap)})
    return heights


def cheapest(points: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the point of least energy among those at most `WITHIN` points below the best accuracy."""
    best = max(map(reached, points))
    return min((point for point in points if reached(point) >= best - WITHIN), key=lambda point: point["energy_J"])
