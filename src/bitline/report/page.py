"""What all pages share: one file that opens anywhere, without a network."""

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bitline.report import text
from bitline.report.plot import Figure

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, figures: Mapping[str, Figure | None], **content: Any) -> str:
    """Return a page as text.

    Args:
        template: its file below ``templates``.
        figures: those that it draws, by the name it has for them; None is drawn nowhere.
        content: what else the template names.
    """
    plots = {f.key: {"data": f.data, "layout": f.layout} for f in figures.values() if f is not None}
    return (
        _environment()
        .get_template(template)
        .render(figures=figures, figures_json=script_json(plots), plotly=_plotly() if plots else "", **content)
    )


def _environment() -> "Environment":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("bitline.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["decimal"] = text.decimal
    return environment


def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


def script_json(content: object) -> str:
    """Write JSON that cannot end the script element it stands in, nor hold a number that JSON lacks."""
    script = json.dumps(_drawable(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        script = script.replace(sign, f"\\u{ord(sign):04x}")
    return script


def _drawable(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _drawable(value) for key, value in content.items()}
    if isinstance(content, list):
        return [_drawable(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
