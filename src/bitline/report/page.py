"""What all pages share: one file that opens anywhere, without a network."""

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bitline.report import svg, text
from bitline.report.plot import Figure

if TYPE_CHECKING:
    from jinja2 import Environment


@dataclass(frozen=True)
class Drawing:
    """A figure on a page: SVG for each width, and the caption below."""

    key: str
    caption: str
    svg: str


def render(template: str, figures: Mapping[str, Figure | None], **content: Any) -> str:
    """Return a page as text.

    Args:
        template: its file below ``templates``.
        figures: those that it draws, by the name it has for them; None is drawn nowhere.
        content: what else the template names.
    """
    drawings = {name: None if figure is None else drawn(figure) for name, figure in figures.items()}
    file = re.sub(r"[^\w.-]+", "-", str(content.get("title", "bitline"))).strip("-")
    return _environment().get_template(template).render(figures=drawings, file=file, **content)


def drawn(figure: Figure) -> Drawing:
    """Draw a figure for every width of page."""
    return Drawing(figure.key, figure.caption, "".join(svg.draw(figure, kind) for kind in svg.WIDTHS))


def download(content: object) -> str:
    """Return JSON as the address of a link, so that the page carries its numbers."""
    written = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    return "data:application/json;base64," + base64.b64encode(written.encode()).decode()


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
