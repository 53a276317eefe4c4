"""Loss and accuracies against epochs, drawn by matplotlib as SVG in the page's own colours and font."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from photonloop.controller.report.contents import Epoch

# matplotlib writes colours as numbers; these stand in for the page's variables, so that the curves follow its dark mode.
_INK, _LINE, _FIRST, _SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_THEME = {_INK: "var(--muted)", _LINE: "var(--line)", _FIRST: "var(--accent)", _SECOND: "var(--second)"}
_MOST_MARKS = 60
"""Points up to which each gets a mark of its own."""


def curves(layers: dict[int, tuple[Epoch, ...]]) -> dict[int, str]:
    """Return one SVG a layer: the loss on the left, the accuracies on the right, all layers on the same scales."""
    import matplotlib as mpl  # noqa: PLC0415  takes half a second that other commands need not wait for
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator, PercentFormatter  # noqa: PLC0415

    every = [epoch for epochs in layers.values() for epoch in epochs]
    losses = _finite([epoch.loss for epoch in every])
    accuracies = _finite([a for epoch in every for a in (epoch.train_accuracy, epoch.test_accuracy)])
    drawn: dict[int, str] = {}
    with mpl.rc_context(_style()):
        for layer, epochs in layers.items():
            figure = Figure(figsize=(9.6, 2.5), layout="constrained")
            left, right = figure.subplots(1, 2)
            at = [epoch.epoch for epoch in epochs]
            _line(left, at, [epoch.loss for epoch in epochs], _FIRST, "-", "loss on the training part")
            _line(right, at, [epoch.train_accuracy for epoch in epochs], _SECOND, "-", "training part")
            _line(right, at, [epoch.test_accuracy for epoch in epochs], _FIRST, "-", "test part")
            left.set_ylabel("loss")
            right.set_ylabel("accuracy of this layer")
            right.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
            _span(left, losses)
            _span(right, accuracies)
            for axes in (left, right):
                axes.set_xlabel("epoch")
                axes.set_xlim(min(at) - 0.5, max(at) + 0.5)
                axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
            if right.lines:
                right.legend(loc="lower right", frameon=False)
            else:
                right.text(0.5, 0.5, "not looked at yet", ha="center", transform=right.transAxes)
            buffer = io.StringIO()
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
            drawn[layer] = _inline(buffer.getvalue(), layer)
    return drawn


def _style() -> dict[Any, Any]:
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
        "grid.color": _LINE,
        "axes.edgecolor": _LINE,
        "xtick.color": _LINE,
        "ytick.color": _LINE,
        "axes.labelcolor": _INK,
        "text.color": _INK,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
    }


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if np.isfinite(value)]


def _line(axes: Any, epochs: list[int], values: list[float], colour: str, style: str, label: str) -> None:
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if np.isfinite(value)]
    if points:
        marker = {"marker": "o", "markersize": 3, "markeredgewidth": 0} if len(points) <= _MOST_MARKS else {}
        axes.plot(*zip(*points, strict=True), style, color=colour, linewidth=1.6, label=label, **marker)


def _span(axes: Any, values: list[float]) -> None:
    if values:
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)


def _inline(svg: str, layer: int) -> str:
    """Return the `<svg>` element alone, sized by the page, with the page's colours and names of its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1layer{layer}-", svg)
    for stand_in, variable in _THEME.items():
        svg = svg.replace(stand_in, variable)
    return svg.replace("<svg", '<svg class="curves" role="img" aria-label="Loss and accuracies"', 1)
