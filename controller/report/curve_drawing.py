"""Learning curves, drawn by matplotlib as SVG with the colours and the font of the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from photonloop.controller.report.run_contents import EpochRecord

# matplotlib accepts only fixed colours. These placeholders are replaced by variables of the style sheet, so that the
# curves follow its dark mode.
_INK, _LINE, _FIRST, _SECOND = "#010203", "#040506", "#070809", "#0a0b0c"
_THEME = {_INK: "var(--muted)", _LINE: "var(--line)", _FIRST: "var(--accent)", _SECOND: "var(--second)"}
_MAX_MARKERS = 60
"""Curves with more points are drawn without markers."""


def learning_curves_svg(layers: dict[int, tuple[EpochRecord, ...]]) -> dict[int, Markup]:
    """Return one SVG per layer: the loss on the left, the accuracies on the right. All layers have the same scales.

    Parameters
    ----------
    layers
        Epochs of each layer, by layer index; no layer without epochs.
    """
    import matplotlib as mpl  # noqa: PLC0415  half a second, which other commands should not spend

    every = [epoch for epochs in layers.values() for epoch in epochs]
    losses = _finite([epoch.loss for epoch in every])
    accuracies = _finite([a for epoch in every for a in (epoch.train_accuracy, epoch.test_accuracy)])
    with mpl.rc_context(_style()):
        return {layer: Markup(_inline(_layer_figure(epochs, losses, accuracies), layer)) for layer, epochs in layers.items()}


def accuracy_ticks(low: float, high: float) -> list[float]:
    """Return ticks for accuracies from `low` to `high`, in steps of 1, 2 or 5 × 10ⁿ percentage points.

    There are no ticks below 0 or above 100 %, even if the range of the axis is larger.

    Examples
    --------
    >>> accuracy_ticks(0.8, 0.9)
    [0.8, 0.82, 0.84, 0.86, 0.88, 0.9]
    """
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    ticks = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [value for value in (round(float(tick), 9) for tick in ticks) if max(low, 0.0) <= value <= min(high, 1.0)]


def _layer_figure(epochs: tuple[EpochRecord, ...], losses: list[float], accuracies: list[float]) -> str:
    """Return the figure of one layer as SVG; `losses` and `accuracies` of all layers set the scales."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(9.6, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = [epoch.epoch for epoch in epochs]
    _plot(left, at, [epoch.loss for epoch in epochs], _FIRST, "loss on the training set")
    _plot(right, at, [epoch.train_accuracy for epoch in epochs], _SECOND, "training set")
    _plot(right, at, [epoch.test_accuracy for epoch in epochs], _FIRST, "test set")
    left.set_ylabel("loss")
    right.set_ylabel("accuracy of this layer")
    _set_limits(left, losses)
    # Not matplotlib's automatic number of ticks: it depends on the layout, which depends on the width of the labels.
    left.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 5, 10]))
    _set_limits(right, accuracies)
    ticks = accuracy_ticks(*right.get_ylim())
    right.set_yticks(ticks, [f"{100 * tick:.6g}%" for tick in ticks])
    for axes in (left, right):
        axes.set_xlabel("epoch")
        axes.set_xlim(min(at) - 0.5, max(at) + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(10, integer=True, steps=[1, 2, 5, 10]))
    if right.lines:
        right.legend(loc="lower right", frameon=False)
    else:
        right.text(0.5, 0.5, "not evaluated yet", ha="center", transform=right.transAxes)
    buffer = io.StringIO()
    FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return buffer.getvalue()


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


def _plot(axes: Any, epochs: list[int], values: list[float], colour: str, label: str) -> None:
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if np.isfinite(value)]
    if points:
        marker = {"marker": "o", "markersize": 3, "markeredgewidth": 0} if len(points) <= _MAX_MARKERS else {}
        axes.plot(*zip(*points, strict=True), "-", color=colour, linewidth=1.6, label=label, **marker)


def _set_limits(axes: Any, values: list[float]) -> None:
    if values:
        low, high = min(values), max(values)
        margin = 0.06 * (high - low) or 0.05
        axes.set_ylim(low - margin, high + margin)


def _inline(svg: str, layer: int) -> str:
    """Return the `<svg>` element of a matplotlib file: without its size, with colours of the page and unique ids."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' (?:width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\1layer{layer}-", svg)
    for placeholder, variable in _THEME.items():
        svg = svg.replace(placeholder, variable)
    return svg.replace("<svg", '<svg class="curves" role="img" aria-label="Loss and accuracies"', 1)
