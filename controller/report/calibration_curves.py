"""Figures of a calibrated stage by matplotlib: measured against twin, held-out settings, and the law of crosstalk."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import HeldOut
from photonloop.controller.calibration.evidence import CalibrationEvidence
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.report.calibration_crosstalk import CrosstalkLaw
from photonloop.controller.report.display_text import unit_prefix
from photonloop.controller.report.figure_svg import FIRST, INK, SECOND, figure_style, inline_svg

Array = NDArray[np.float64]

MOST_POINTS = 400
"""Readings of fitted settings that are drawn, and of held-out settings."""

_POINT = {"marker": "o", "linestyle": "none", "markersize": 2.2, "markeredgewidth": 0}


def scatter_svg(evidence: CalibrationEvidence, noise: ReadingNoise, unit: str, prefix: str) -> Markup:
    """Return measured against predicted readings, and below their differences relative to the noise.

    The axes of the readings are linear in the square root of the reading.

    Parameters
    ----------
    evidence
        The readings.
    noise
        Their noise.
    unit
        Unit of the readings.
    prefix
        Beginning of the ids of the SVG.
    """
    import matplotlib as mpl  # noqa: PLC0415  half a second, which other commands should not spend
    from matplotlib.figure import Figure  # noqa: PLC0415

    parts = [_drawn_points(evidence, held_out) for held_out in (False, True)]
    largest = max((float(values.max()) for part in parts for values in part if values.size), default=1.0)
    factor, letter = unit_prefix(largest)
    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(3.5, 4.1), layout="constrained")
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        end = 1.08 * largest / factor
        axes.plot([0, end**0.5], [0, end**0.5], "-", color=INK, linewidth=0.7)
        for (predicted, measured), colour, label in zip(parts, (FIRST, SECOND), ("fitted", "held out"), strict=True):
            if measured.size:
                at = np.sqrt(predicted / factor)
                z = (measured - predicted) / np.hypot(noise.dark, noise.relative * measured)
                axes.plot(at, np.sqrt(measured / factor), color=colour, label=label, **_POINT)
                below.plot(at, z, color=colour, **_POINT)
        ticks = _root_ticks(end)
        places, labels, limits = np.sqrt(ticks), [f"{tick:g}" for tick in ticks], (0.0, end**0.5)
        axes.set(xlim=limits, ylim=limits, ylabel=f"measured [{letter}{unit}]")
        axes.set_yticks(places, labels)
        below.set_xticks(places, labels)
        below.set(xlabel=f"twin [{letter}{unit}]", ylabel="difference / noise")
        axes.legend(loc="upper left", frameon=False, handletextpad=0.2, markerscale=2)
        return inline_svg(figure, prefix, "Readings of the chip against those of the twin")


def held_out_svg(held_out: HeldOut, prefix: str) -> Markup:
    """Return histograms of the held-out settings: total variation distance, and residual relative to the noise.

    The first is left out if there is no such distance, as for weight banks.
    """
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(5.85, 3.9), layout="constrained")
        several = bool(np.isfinite(held_out.tvd).any())
        *left, right = figure.subplots(1, 2 if several else 1, squeeze=False)[0]
        for axes in left:
            _histogram(axes, 100 * held_out.tvd, "total variation distance [%]")
        _histogram(right, held_out.residual, "residual / noise of the readings")
        (left[0] if left else right).set_ylabel("held-out settings")
        right.set_xlim(0, max(1.15 * float(np.nanmax(held_out.residual)), 1.3))
        right.axvline(1.0, color=SECOND, linewidth=1.4)
        right.text(1.0, 1.01, "noise", color=SECOND, ha="center", transform=right.get_xaxis_transform())
        return inline_svg(figure, prefix, "Held-out settings")


def crosstalk_law_svg(law: CrosstalkLaw, prefix: str) -> Markup:
    """Return the share of a heater's power against the distance, with a band of one standard deviation."""
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import FuncFormatter, LogLocator  # noqa: PLC0415

    with mpl.rc_context(figure_style()):
        figure = Figure(figsize=(5.6, 2.6), layout="constrained")
        axes = figure.subplots()
        micron, share = 1e6 * law.distance_m, 100 * law.share
        low = np.maximum(share - 100 * law.sigma, 0.3 * share)
        axes.fill_between(micron, low, share + 100 * law.sigma, color=FIRST, alpha=0.25, linewidth=0)
        axes.plot(micron, share, "-", color=FIRST, linewidth=1.6)
        axes.set(xscale="log", yscale="log", xlabel="distance from the heater [µm]", ylabel="share of its power [%]")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda _value, _: ""))
        return inline_svg(figure, prefix, "Share of a heater's power against the distance")


def _drawn_points(evidence: CalibrationEvidence, held_out: bool) -> tuple[Array, Array]:
    """Return predicted and measured readings, evenly thinned to MOST_POINTS, negative ones as 0."""
    here = evidence.held_out == held_out
    predicted, measured = evidence.predicted[here].ravel(), evidence.measured[here].ravel()
    usable = np.flatnonzero(np.isfinite(measured) & np.isfinite(predicted))
    if usable.size > MOST_POINTS:
        usable = usable[np.linspace(0, usable.size - 1, MOST_POINTS).astype(np.int64)]
    return np.maximum(predicted[usable], 0.0), np.maximum(measured[usable], 0.0)


def _root_ticks(end: float) -> list[float]:
    """Return ticks of an axis from 0 to `end` that is linear in the square root."""
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    step = next(float(tick) for tick in MaxNLocator(5, steps=[1, 2, 5, 10]).tick_values(0, end) if tick > 0)
    return [0.0, *(step * share for share in (0.1, 0.4)), *np.arange(step, end, step).tolist()]


def _histogram(axes: Any, values: Array, label: str) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    finite = values[np.isfinite(values)]
    axes.hist(finite, bins=max(5, min(20, finite.size // 2)), color=FIRST, alpha=0.8)
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    axes.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
