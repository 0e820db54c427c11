"""What one inference costs: each figure beside what other ADC models make of it, and its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitline.evaluation.record import Cost
from bitline.report import text


@dataclass(frozen=True)
class Quantity:
    """One figure of the cost.

    Args:
        name: of the figure.
        unit: SI, or TOPS/W.
        value: in that unit.
        note: what stands beside it.
        models: the same figure under each ADC model; none where they give none.
    """

    name: str
    unit: str
    value: float
    note: str
    models: Sequence[float] = ()

    @property
    def text(self) -> str:
        """The figure with its unit."""
        return self._write(self.value)

    @property
    def span(self) -> str:
        """Lowest to highest over the ADC models, or an empty string."""
        if not self.models:
            return ""
        values = (self.value, *self.models)
        low, high = self._write(min(values)), self._write(max(values))
        head, _, unit = low.rpartition(" ")
        return f"{head if high.endswith(f' {unit}') else low} to {high}"

    def _write(self, value: float) -> str:
        return f"{text.number(value)} {self.unit}" if "/" in self.unit else text.quantity(value, self.unit)


def quantities(cost: Cost) -> list[Quantity]:
    """Return energy, latency, area and efficiency."""
    models = list(cost.adc_range.values())
    across = f"across {len(models)} ADC models; chosen: {cost.adc_model}"
    paced = f"; pipelined, one input every {text.quantity(cost.interval_s, 's')}" if cost.interval_s else ""
    return [
        Quantity("energy", "J", cost.energy_J, across, [model.energy_J for model in models]),
        Quantity("latency", "s", cost.latency_s, f"published ADC models give no speed{paced}"),
        Quantity("area", "m2", cost.area_m2, across, [model.area_m2 for model in models]),
        Quantity("efficiency", "TOPS/W", cost.tops_per_watt, across, [model.tops_per_watt for model in models]),
    ]


@dataclass(frozen=True)
class Parts:
    """A figure of the cost by component, in an SI unit."""

    unit: str
    values: Mapping[str, float]

    @property
    def total(self) -> float:
        """Sum of the components."""
        return sum(self.values.values())

    @property
    def shares(self) -> dict[str, float]:
        """Each component over the total, largest first."""
        ordered = sorted(self.values.items(), key=lambda item: -item[1])
        return {name: value / self.total if self.total else 0.0 for name, value in ordered}


def parts(cost: Cost) -> dict[str, Parts]:
    """Return energy, latency and area by component."""
    return {
        "energy": Parts("J", cost.energy_parts),
        "latency": Parts("s", cost.latency_parts),
        "area": Parts("m2", cost.area_parts),
    }
