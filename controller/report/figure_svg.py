"""Figures of matplotlib as SVG within a page: colours and font of its style sheet, and ids of their own."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# matplotlib accepts only fixed colours. These placeholders are replaced by variables of the style sheet, so that the
# curves follow its dark mode.
INK, LINE, FIRST, SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
"""Colours of text, of lines of the grid, and of two curves."""

_THEME = {INK: "var(--muted)", LINE: "var(--line)", FIRST: "var(--accent)", SECOND: "var(--second)"}


def figure_style() -> dict[Any, Any]:
    """Return the matplotlib parameters for figures in a page."""
    return {
        "svg.fonttype": "none",
        "svg.hashsalt": "photonloop",
        "text.parse_math": False,
        "figure.facecolor": "none",
        "axes.facecolor": "none",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "grid.color": LINE,
        "axes.edgecolor": LINE,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
    }


def inline_svg(figure: Figure, prefix: str, label: str) -> Markup:
    """Return the `<svg>` element of a figure, without its size.

    Parameters
    ----------
    figure
        A figure drawn with `figure_style`.
    prefix
        Beginning of all ids, different for each figure of a page: letters, digits and hyphens.
    label
        Accessible label: plain text without quotation marks.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415  half a second, only if curves are drawn

    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1{prefix}-", svg)
    for placeholder, variable in _THEME.items():
        svg = svg.replace(placeholder, variable)
    return Markup(svg.replace("<svg", f'<svg class="curves" role="img" aria-label="{label}"', 1))
