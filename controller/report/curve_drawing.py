"""Learning curves, drawn by matplotlib as SVG with the colours and the font of the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from photonloop.controller.report.figure_svg import FIRST, SECOND, figure_style, inline_svg
from photonloop.controller.report.run_contents import EpochRecord

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
    with mpl.rc_context(figure_style()):
        return {
            layer: inline_svg(_layer_figure(epochs, losses, accuracies), f"layer{layer}", "Loss and accuracies")
            for layer, epochs in layers.items()
        }


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


def _layer_figure(epochs: tuple[EpochRecord, ...], losses: list[float], accuracies: list[float]) -> Any:
    """Return the figure of one layer; `losses` and `accuracies` of all layers set the scales."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    figure = Figure(figsize=(9.6, 2.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    at = [epoch.epoch for epoch in epochs]
    _plot(left, at, [epoch.loss for epoch in epochs], FIRST, "loss on the training set")
    _plot(right, at, [epoch.train_accuracy for epoch in epochs], SECOND, "training set")
    _plot(right, at, [epoch.test_accuracy for epoch in epochs], FIRST, "test set")
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
    return figure


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
