"""The network under study, moved from chip to chip and never calibrated twice for the same one."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from bitline.chip.cell import Ideal
from bitline.chip.description import Chip
from bitline.chip.variants import ideal, with_cells
from bitline.evaluation import OnChip, Spread, put_on_chip
from bitline.evaluation.each_layer import on_each_layer
from bitline.evaluation.record import Simulated
from bitline.evaluation.score import Tick, score
from bitline.nn import IDEAL, crossbar_layers, on
from bitline.study.plan import Plan
from bitline.study.runs import Network


class Subject:
    """A trained network on one chip at a time.

    Args:
        network: and its data.
        chip: that the study is about.
        plan: how thoroughly to measure.
        tick: told of the images done.
    """

    def __init__(self, network: Network, chip: Chip, plan: Plan, tick: Tick) -> None:
        self.network, self.chip, self.plan, self.tick = network, chip, plan, tick
        self._placed: tuple[Chip, OnChip] | None = None
        self._inputs: dict[str, Tensor] | None = None

    def on(self, chip: Chip) -> OnChip:
        """Move to a chip, calibrating where that is needed."""
        if self._placed is None:
            placed = put_on_chip(self.network.model, self.network.data, chip, self.plan.settings)
            self._placed = (chip, placed)
        elif self._placed[0] != chip:
            self._placed[1].placed_on(chip)
            self._placed = (chip, self._placed[1])
        return self._placed[1]

    @property
    def seeds(self) -> list[int]:
        """Seeds of the programmed chips; none where cells cannot err."""
        return self.plan.settings.seeds

    def inputs(self) -> dict[str, Tensor]:
        """Return what enters each layer under exact integer products, for a few test images."""
        if self._inputs is None:
            images = next(self.network.data.batches("test", batch_size=self.plan.layer_images))[0]
            self._inputs = on_each_layer(self.on(self.chip).model, images, lambda _, x: x.clone())
        return self._inputs

    def alone(self, name: str, chip: Chip, seed: int) -> float:
        """Accuracy with one layer on a variant of the chip and every other one exact, %."""
        on_chip = self.on(self.chip)
        layer = crossbar_layers(on_chip.model)[name]
        with on(on_chip.model, ideal(self.chip)), on(layer, chip, seed):
            return score(on_chip.model, on_chip.task, self.tick)

    def accuracies(self, chip: Chip, simulation: Simulated = "exact") -> dict[str, Any]:
        """Accuracy with ideal cells and on each programmed chip, %; where the network is placed already."""
        on_chip = self.on(chip)
        with on_chip.simulation.by(simulation):
            adc = {"adc": on_chip.accuracy(with_cells(chip), IDEAL, self.tick)}
            return adc | spread([on_chip.accuracy(chip, seed, self.tick) for seed in self.seeds])


def spread(chips: list[float]) -> dict[str, Any]:
    """Return accuracies with their mean, standard deviation and worst; only the empty list of none."""
    if not chips:
        return {"chips": chips}
    return {"chips": chips, **Spread.of(chips).to_json()}


def programs(chip: Chip) -> bool:
    """Tell whether programming a cell of this chip can miss its target."""
    return not isinstance(chip.cell.programming, Ideal)


def reached(point: Mapping[str, Any]) -> float:
    """Accuracy of a point: the mean of its chips, or that of ideal cells where none was programmed, %."""
    return float(point.get("mean", point["adc"]))
