"""Where energy, latency and area go: by component, and by layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bitline.evaluation.record import Cost, Evaluation
from bitline.report import plot, quantities, text
from bitline.report.plot import PARTS, Axis, Bar, Figure, Key, Mark, Panel

SMALL = 0.02
"""components below this share of everything are drawn as one"""


@dataclass(frozen=True)
class Slices:
    """Components of a cost with a colour each, the small ones together."""

    keys: list[str]
    small: list[str]

    @classmethod
    def among(cls, shares: Sequence[Mapping[str, float]]) -> "Slices":
        """Choose the components that make up more than `SMALL` in any of these."""
        keys = dict.fromkeys(key for one in shares for key, share in one.items() if share)
        small = [key for key in keys if max(one.get(key, 0.0) for one in shares) < SMALL]
        small = small if len(small) > 1 else []
        return cls([key for key in keys if key not in small], small)

    def of(self, parts: Mapping[str, float]) -> list[tuple[str, str, float]]:
        """Name, colour and value of each slice of a quantity."""
        pieces = [(text.label(key), f"--part-{i % PARTS}", parts.get(key, 0.0)) for i, key in enumerate(self.keys)]
        rest = sum(parts.get(key, 0.0) for key in self.small)
        return [*pieces, (f"{len(self.small)} smaller", "--other", rest)] if self.small else pieces

    @property
    def legend(self) -> list[Key]:
        """An entry for each slice."""
        return [Key(name, color) for name, color, _ in self.of({})]

    @property
    def remark(self) -> str:
        """Says that the small ones are drawn as one, where they are."""
        return f" Components below {100 * SMALL:.0f} % of each are drawn as one." if self.small else ""


def lying(slices: Sequence[tuple[str, str, float]], row: int, name: str, unit: str, factor: float) -> list[Mark]:
    """Return one bar of slices, end to end.

    Args:
        slices: name, colour and value of each.
        row: where the bar lies.
        name: of the bar.
        unit: SI, of the values.
        factor: a value divided by it is in the unit of the axis.
    """
    total = sum(value for _, _, value in slices)
    marks: list[Mark] = []
    left = 0.0
    for slice_, color, value in slices:
        if value:
            part = 100 * value / total
            title = f"{name}, {slice_}: {text.quantity(value, unit)}, {part:.1f} %"
            right = left + value / factor
            words = f"{slice_} {part:.0f} %" if part >= 5 else ""
            marks.append(Bar(left, right, row - 0.36, row + 0.36, color, title, words))
            left = right
    return marks


def parts(cost: Cost) -> Figure | None:
    """Draw energy, latency and area as three bars of shares, one colour a component."""
    totals = {name: part for name, part in quantities.parts(cost).items() if any(part.values.values())}
    if not totals:
        return None
    slices = Slices.among([part.shares for part in totals.values()])
    marks: list[Mark] = []
    for i, (name, part) in enumerate(totals.items()):
        marks += lying(slices.of(part.values), i, name, part.unit, part.total / 100)
    names = [f"{name}\n{text.quantity(part.total, part.unit)}" for name, part in totals.items()]
    panel = Panel(Axis("share [%]", 0.0, 100.0), plot.categories(names, downwards=True), marks, 52 * len(names))
    caption = f"Where energy, latency and area go, by component.{slices.remark}"
    return Figure("parts", caption, [panel], slices.legend)


def layer_cost(evaluation: Evaluation) -> Figure | None:
    """Draw each layer's energy, latency and area, one panel each; energy by component where that is known."""
    layers = evaluation.layers
    figures = (
        ("energy", "J", [layer.energy_J for layer in layers]),
        ("latency", "s", [layer.latency_s for layer in layers]),
        ("area", "m2", [layer.area_m2 for layer in layers]),
    )
    shown = [(name, unit, values) for name, unit, values in figures if any(values)]
    if not shown:
        return None
    slices = Slices.among([part.shares for part in quantities.parts(evaluation.cost).values()])
    split = bool(slices.keys) and all(layer.energy_parts for layer in layers)
    panels: list[Panel] = []
    for name, unit, values in shown:
        column = text.column(values, unit)
        marks: list[Mark] = []
        for i, (layer, value) in enumerate(zip(layers, values, strict=True)):
            pieces = slices.of(layer.energy_parts) if name == "energy" and split else [(name, "--accent", value)]
            low = 0.0
            for kind, color, one in pieces:
                if one:
                    high = low + one / column.factor
                    title = f"{layer.name}, {kind}: {text.quantity(one, unit)}"
                    marks.append(Bar(i - 0.36, i + 0.36, low, high, color, title))
                    low = high
        y = plot.scale(f"{name} [{column.unit}]", [value / column.factor for value in values], zero=True)
        panels.append(Panel(plot.categories([layer.name for layer in layers]), y, marks, 105))
    caption = "The same by layer, in the order of the network, for one input" + (
        "; energy in the colours of the components above." if split else "."
    )
    return Figure("layer-cost", caption, plot.stacked(panels))
