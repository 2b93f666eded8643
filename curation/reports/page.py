"""One page template for every HTML report, and plots as inline SVG (no script, nothing fetched)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from curation.config import SHIPPED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PALETTE = {"good": "#2e7d4f", "bad": "#b3362b", "warn": "#c78a1b", "calm": "#3b6ea5", "grey": "#8a8f98"}


def environment() -> Environment:
    """Jinja2 over `catalogs/reports/` with every text escaped; an undefined name is an error."""
    jinja = Environment(
        loader=FileSystemLoader(SHIPPED / "reports"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    jinja.filters["percent"] = lambda share, digits=1: "–" if share is None else f"{100 * share:.{digits}f} %"
    jinja.filters["count"] = lambda number: "–" if number is None else f"{number:,}"
    return jinja


def render(template: str, context: Mapping[str, Any]) -> str:
    """The report template `catalogs/reports/TEMPLATE`, which extends `page.html.j2`, with `context`."""
    return environment().get_template(template).render(**context)


def figure(width: float = 8.0, height: float = 3.0) -> Figure:
    """An empty matplotlib figure in the house style; sizes in inches."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    matplotlib.rcParams.update({"svg.hashsalt": "kedge", "svg.fonttype": "none", "font.family": "sans-serif",
                                "font.size": 9, "axes.spines.top": False, "axes.spines.right": False})  # fmt: skip
    return Figure(figsize=(width, height), layout="constrained")


def svg(drawing: Figure) -> Markup:
    """The figure as inline SVG; the same bytes for the same figure."""
    stream = io.StringIO()
    drawing.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    return Markup(text[text.index("<svg") :])


def finite(value: Any) -> Any:
    """A report's mappings, lists and tuples as JSON takes them: floats that are no finite number become null."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
