"""Accuracies side by side, from the float network to the programmed chips."""

from collections.abc import Mapping, Sequence
from typing import Any

from bitline.report import plot, text
from bitline.report.plot import Figure, Json

_STOPS = (
    ("float", "float", "--other"),
    ("ideal_integer", "exact integers", "--quantization"),
    ("adc", "chip of ideal cells", "--adc"),
    ("mean", "programmed chips", "--programming"),
)


def accuracies(key: str, names: Sequence[str], records: Sequence[Mapping[str, Any]], caption: str) -> Figure | None:
    """Draw the accuracies of each record as bars, with the spread of the chips.

    Args:
        key: of the figure.
        names: one a record.
        records: with ``float``, ``ideal_integer``, ``adc``, ``mean`` and ``std``, as far as they are known.
        caption: of the figure.
    """
    labels = [plot.safe(name) for name in names]
    data: list[Json] = []
    for stop, name, color in _STOPS:
        values = [text.finite(record.get(stop)) for record in records]
        if any(value is not None for value in values):
            spread = [text.finite(record.get("std")) or 0.0 for record in records]
            data.append(
                {
                    "type": "bar",
                    "name": name,
                    "x": labels,
                    "y": values,
                    "marker": {"color": color},
                    "text": ["" if value is None else text.decimal(value, 1) for value in values],
                    "textposition": "inside",
                    "insidetextanchor": "end",
                    "textangle": 0,
                    **({"error_y": whiskers(spread)} if stop == "mean" else {}),
                    "hovertemplate": f"%{{x}}: %{{y:.2f}} %<extra>{name}</extra>",
                }
            )
    if not data:
        return None
    layout = plot.layout(
        360,
        showlegend=True,
        barmode="group",
        bargap=0.25,
        xaxis=plot.axis(type="category", categoryorder="array", categoryarray=labels, showgrid=False),
        yaxis=plot.axis("accuracy [%]", range=[0, 100], dtick=20),
    )
    return Figure(key, caption, data, layout)


def whiskers(spread: Sequence[float]) -> Json:
    """Return error bars of these lengths."""
    return {"type": "data", "array": list(spread), "color": "--ink", "thickness": 1.3, "width": 4}
