"""What all figures share: plotly as plain dictionaries, colours as names that the page's style sheet resolves."""

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]


@dataclass(frozen=True)
class Figure:
    """A plotly figure with what its caption and its reader without eyes need."""

    key: str
    caption: str
    data: list[Json]
    layout: Json

    @property
    def height(self) -> int:
        """Height, px."""
        return int(self.layout["height"])


def safe(name: object) -> str:
    """Escape a name: plotly reads a small HTML in every text."""
    return html.escape(str(name), quote=False)


def axis(title: str = "", **options: Any) -> Json:
    """Return an axis with its title, and further plotly options."""
    if title:
        options["title"] = {"text": title, "standoff": 8, "font": {"size": 13, "color": "--muted"}}
    return {"gridcolor": "--grid", "linecolor": "--line", "zeroline": False, "automargin": True, **options}


def layout(height: int, **options: Any) -> Json:
    """Return a layout of this height, px, and further plotly options."""
    return {
        "height": height,
        "margin": {"l": 8, "r": 20, "t": 32, "b": 8, "pad": 4},
        "font": {"family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif", "size": 13, "color": "--ink"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "hoverlabel": {"bgcolor": "--paper", "bordercolor": "--line", "font": {"color": "--ink"}},
        "legend": {
            "orientation": "h",
            "x": 0,
            "xanchor": "left",
            "y": 1.02,
            "yanchor": "bottom",
            "traceorder": "normal",
        },
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "--muted", "activecolor": "--accent"},
        "showlegend": False,
        "uniformtext": {"minsize": 11, "mode": "hide"},
        **options,
    }


def line(x: Sequence[float | None], y: Sequence[float | None], **options: Any) -> Json:
    """Return thin dotted lines through these points; None interrupts."""
    style = {"color": "--muted", "width": 1, "dash": "dot"}
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(x),
        "y": list(y),
        "line": style,
        "hoverinfo": "skip",
        **options,
    }


def layer_axis(names: Sequence[str], **options: Any) -> Json:
    """Return an axis of layers, in the order of the network."""
    return axis(type="category", categoryorder="array", categoryarray=list(names), showgrid=False, **options)
