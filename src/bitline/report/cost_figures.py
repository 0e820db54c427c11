"""Where energy, latency and area go: by component, and by layer."""

from collections.abc import Mapping
from dataclasses import dataclass

from bitline.evaluation.record import Cost, Evaluation
from bitline.report import plot, quantities, text
from bitline.report.plot import Figure, Json

_PARTS = 14  # colours for components in the style sheet
_SMALL = 0.02  # components below this share of everything are drawn as one


@dataclass(frozen=True)
class _Slices:
    """Components of the cost with a colour each, the small ones together."""

    keys: list[str]
    small: list[str]

    def of(self, parts: Mapping[str, float]) -> list[tuple[str, str, float]]:
        """Name, colour and value of each slice of a quantity."""
        pieces = [(text.label(key), f"--part-{i % _PARTS}", parts.get(key, 0.0)) for i, key in enumerate(self.keys)]
        rest = sum(parts.get(key, 0.0) for key in self.small)
        return [*pieces, (f"{len(self.small)} smaller", "--other", rest)] if self.small else pieces


def _slices(cost: Cost) -> _Slices:
    shares = [part.shares for part in quantities.parts(cost).values()]
    keys = dict.fromkeys(key for one in shares for key, share in one.items() if share)
    small = [key for key in keys if max(one.get(key, 0.0) for one in shares) < _SMALL]
    small = small if len(small) > 1 else []
    return _Slices([key for key in keys if key not in small], small)


def parts(cost: Cost) -> Figure | None:
    """Draw energy, latency and area as three bars of shares, one colour a component."""
    slices = _slices(cost)
    totals = {name: part for name, part in quantities.parts(cost).items() if any(part.values.values())}
    if not totals:
        return None
    names = list(totals)
    pieces = {name: slices.of(part.values) for name, part in totals.items()}
    data: list[Json] = []
    for i, (component, color, _) in enumerate(pieces[names[0]]):
        component = plot.safe(component)
        values = {name: pieces[name][i][2] for name in names if pieces[name][i][2]}
        shares = [100 * value / totals[name].total for name, value in values.items()]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": component,
                "x": shares,
                "y": list(values),
                "text": [f"{component} {share:.0f} %" if share >= 5 else "" for share in shares],
                "customdata": [text.quantity(value, totals[name].unit) for name, value in values.items()],
                "textposition": "inside",
                "insidetextanchor": "middle",
                "textangle": 0,
                "marker": {"color": color, "line": {"color": "--paper", "width": 1}},
                "hovertemplate": f"%{{y}}: %{{customdata}}, %{{x:.1f}} %<extra>{component}</extra>",
            }
        )
    ticks = [f"<b>{name}</b><br>{text.quantity(totals[name].total, totals[name].unit)}" for name in names]
    layout = plot.layout(
        110 + 62 * len(names) + 24 * (len(data) // 6),
        barmode="stack",
        bargap=0.25,
        showlegend=True,
        xaxis=plot.axis("share [%]", range=[0, 100], dtick=20),
        yaxis=plot.axis(
            tickvals=names,
            ticktext=ticks,
            categoryorder="array",
            categoryarray=names,
            autorange="reversed",
            showgrid=False,
            fixedrange=True,
        ),
    )
    caption = "Where energy, latency and area go, by component."
    if slices.small:
        caption += f" Components below {100 * _SMALL:.0f} % of each are drawn as one."
    return Figure("parts", caption, data, layout)


def layer_cost(evaluation: Evaluation) -> Figure | None:
    """Draw each layer's energy, latency and area, one panel each; energy by component where that is known."""
    layers = evaluation.layers
    figures = (
        ("energy", "J", [layer.energy_J for layer in layers]),
        ("latency", "s", [layer.latency_s for layer in layers]),
        ("area", "m2", [layer.area_m2 for layer in layers]),
    )
    panels = [(name, unit, values) for name, unit, values in figures if any(values)]
    if not panels:
        return None
    slices = _slices(evaluation.cost)
    split = slices.keys and all(layer.energy_parts for layer in layers)
    names = [plot.safe(layer.name) for layer in layers]
    gap, share = 0.07, 1 / len(panels)
    data: list[Json] = []
    axes: Json = {}
    for i, (name, unit, values) in enumerate(panels):
        column = text.column(values, unit)
        suffix = str(i + 1) if i else ""
        bottom = 1 - (i + 1) * share + (gap if i < len(panels) - 1 else 0)
        axes[f"yaxis{suffix}"] = plot.axis(
            f"{name} [{column.unit}]", domain=[bottom, 1 - i * share], rangemode="tozero", nticks=4, fixedrange=True
        )
        stacks = [(name, "--accent", values)]
        if name == "energy" and split:
            pieces = [slices.of(layer.energy_parts) for layer in layers]
            stacks = [(kind, color, [one[j][2] for one in pieces]) for j, (kind, color, _) in enumerate(pieces[0])]
        data += [
            {
                "type": "bar",
                "x": names,
                "y": [value / column.factor for value in stack],
                "yaxis": f"y{suffix}",
                "customdata": [text.quantity(value, unit) for value in stack],
                "marker": {"color": color},
                "hovertemplate": f"%{{x}}: %{{customdata}}<extra>{plot.safe(kind)}</extra>",
            }
            for kind, color, stack in stacks
            if any(stack)
        ]
    anchor = f"y{len(panels)}" if len(panels) > 1 else "y"
    layout = plot.layout(
        120 + 120 * len(panels), barmode="stack", bargap=0.3, xaxis=plot.layer_axis(names, anchor=anchor), **axes
    )
    caption = "The same by layer, in the order of the network, for one input" + (
        "; energy in the colours of the components above." if split else "."
    )
    return Figure("layer-cost", caption, data, layout)
