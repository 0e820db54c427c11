"""What pricing returns: totals, breakdowns that sum to them, and the span of the ADC models."""

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from bitline.cost.adc import Model
from bitline.cost.digital import DigitalCost
from bitline.cost.events import Events
from bitline.units import pretty


@dataclass(frozen=True)
class LayerCost:
    """One layer for one image.

    Args:
        name: of the layer.
        kind: of the layer.
        rows: inputs of one product.
        cols: outputs of one product.
        groups: products.
        strategy: how the groups are laid out.
        row_tiles: partial sums per result, input digit and slice.
        crossbars: of the layer, one copy.
        crossbars_removed: that are not built, since all of their weights are zero.
        steps: reads that the fullest of them makes one after the other for one input digit.
        utilization: fraction of their cells in use.
        conversions: uses of an ADC.
        macs: multiply-accumulates.
        energy_J: its events, and the chip's leakage while it runs.
        energy_parts: by component, J.
        latency_s: of one image.
        area_m2: its share of the chip, copies included.
        events: what was priced.
    """

    name: str
    kind: str
    rows: int
    cols: int
    groups: int
    strategy: str
    row_tiles: int
    crossbars: int
    crossbars_removed: int
    steps: int
    utilization: float
    conversions: int
    macs: int
    energy_J: float  # noqa: N815
    energy_parts: dict[str, float]
    latency_s: float
    area_m2: float
    events: Events = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Plain data, without the events."""
        return {key: value for key, value in vars(self).items() if key != "events"}


@dataclass(frozen=True)
class AdcEstimate:
    """The chip under one model of its ADC.

    Args:
        energy_J: of one image, all parts.
        area_m2: of what is built.
        tops_per_watt: 10^12 operations per joule; a MAC is two operations.
        adc_energy_J: conversions alone.
        adc_area_m2: of all ADCs.
        conversion_J: one conversion.
    """

    energy_J: float  # noqa: N815
    area_m2: float
    tops_per_watt: float
    adc_energy_J: float  # noqa: N815
    adc_area_m2: float
    conversion_J: float  # noqa: N815


@dataclass(frozen=True)
class Cost:
    """What a network costs on a chip.

    Args:
        chip: name.
        data: where bit densities come from: ``"measured"``, ``"assumed"`` (half of the bits are one) or ``"fixed"``
            (all wordlines driven).
        energy_J: of one image.
        latency_s: of one image, layer after layer.
        interval_s: between images in a pipeline of layers: the slowest layer, or the channel off the chip, which all of
            them share.
        area_m2: of what is built.
        unused_area_m2: share of crossbars that are built and hold no layer.
        leakage_W: of the chip; times latency_s it is the part ``leakage`` of the energy.
        tops: 10^12 operations per second at one image per interval; a MAC is two operations.
        tops_per_watt: 10^12 operations per joule.
        macs: per image, digital ones included.
        conversions: per image.
        crossbars: in use, copies included.
        crossbars_built: in whole macros.
        tiles: of the chip.
        energy_parts: J by component.
        area_parts: m2 by component.
        latency_parts: s by cause.
        layers: in order of execution.
        digital: what makes products off those layers; empty where nothing does, or no example told.
        adc_model: that the figures hold for.
        adc_range: the same chip under every ADC model that covers its width, from one tool's to the median
            published; see `bitline.cost.adc.MEANINGS`.
        notes: what was assumed, scaled or left out.
    """

    chip: str
    data: str
    energy_J: float  # noqa: N815
    latency_s: float
    interval_s: float
    area_m2: float
    unused_area_m2: float
    leakage_W: float  # noqa: N815
    tops: float
    tops_per_watt: float
    macs: int
    conversions: int
    crossbars: int
    crossbars_built: int
    tiles: int
    energy_parts: dict[str, float]
    area_parts: dict[str, float]
    latency_parts: dict[str, float]
    layers: tuple[LayerCost, ...]
    digital: tuple[DigitalCost, ...]
    adc_model: Model
    adc_range: dict[Model, AdcEstimate]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        parts = sorted(self.energy_parts.items(), key=lambda item: -item[1])
        shares = ", ".join(f"{k.replace('_', ' ')} {v / self.energy_J:.0%}" for k, v in parts[:5] if self.energy_J)
        low, high = (pretty(energy, "J") for energy in self.energy_span)
        lines = [
            f"an inference on {self.chip}: {pretty(self.energy_J, 'J')} ({low} to {high} across ADC models)",
            f"energy: {shares}",
            f"latency {pretty(self.latency_s, 's')}, one every {pretty(self.interval_s, 's')} in a pipeline",
            f"area {pretty(self.area_m2, 'm2')}, {self.crossbars:,} of {self.crossbars_built:,} crossbars in use",
            f"{self.tops:.3g} TOPS, {self.tops_per_watt:.3g} TOPS/W; "
            f"{self.macs:,} MACs, {self.conversions:,} conversions",
            *(f"note: {note}" for note in self.notes),
        ]
        return "\n".join(part for line in lines for part in textwrap.wrap(line, 80, subsequent_indent="    "))

    def __repr__(self) -> str:
        return f"<cost of an inference on {self.chip}: {pretty(self.energy_J, 'J')}, {pretty(self.latency_s, 's')}>"

    @property
    def energy_span(self) -> tuple[float, float]:
        """Least and most energy of an image among the ADC models, J."""
        energies = [estimate.energy_J for estimate in self.adc_range.values()]
        return min(energies), max(energies)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        nested = {"layers", "digital", "adc_range", "notes"}
        return {
            **{key: value for key, value in vars(self).items() if key not in nested},
            "adc_range": {model: asdict(estimate) for model, estimate in self.adc_range.items()},
            "notes": list(self.notes),
            "digital_operations": [asdict(each) for each in self.digital],
            "layers": [layer.to_json() for layer in self.layers],
        }
