"""Fringes of single heaters as small multiples: readings, fitted curves, and residuals below them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from photonloop.controller.calibration.evidence import Fringe
from photonloop.controller.report.display_text import quantity_text
from photonloop.controller.report.svg_elements import svg_element, svg_figure

Array = NDArray[np.float64]

MOST_FRINGES = 60
"""Fringes that are drawn in a page; of more, those with the largest residuals."""

MOST_POINTS = 48
"""Points of a fringe that are drawn."""

SMOOTH_POINTS = 16
"""Points from which the fitted values are joined by a line."""

_COLUMNS = 6
_PANEL_WIDTH, _PANEL_HEIGHT, _STRIP, _GAP_X, _GAP_Y = 132, 64, 24, 24, 40
_LEFT, _TOP = 40, 18


@dataclass(frozen=True)
class FringeDrawing:
    """Fringes as SVG.

    Parameters
    ----------
    svg
        The drawing.
    shown, fringes
        Number of fringes that are drawn, and of all.
    limit
        Residual at the edges of the strips, relative to the height of the fringe.
    median, worst
        Root mean square residual, relative to the height of the fringe: median, and largest with the heater's name.
    """

    svg: Markup
    shown: int
    fringes: int
    limit: float
    median: float
    worst: tuple[float, str]


def fringe_residual(fringe: Fringe) -> float:
    """Return the rms difference of readings and curve, relative to the height of the curve; infinite if it is flat."""
    height = float(np.ptp(fringe.fitted))
    usable = np.isfinite(fringe.readings)
    if height <= 0 or not usable.any():
        return math.inf
    return float(np.sqrt(np.mean((fringe.readings - fringe.fitted)[usable] ** 2))) / height


def fringe_drawing(fringes: tuple[Fringe, ...], names: list[str], unit: str, most: int = MOST_FRINGES) -> FringeDrawing | None:
    """Return the fringes as small multiples, in the order of their channels; None if there are none.

    Parameters
    ----------
    fringes
        The fringes of a stage.
    names
        Name of each channel of the stage.
    unit
        Unit of the readings.
    most
        Fringes that are drawn; of more, those with the largest residuals.
    """
    if not fringes:
        return None
    residual = np.array([fringe_residual(fringe) for fringe in fringes])
    shown = np.argsort(-residual, kind="stable")[:most]
    chosen = sorted((fringes[k] for k in shown), key=lambda fringe: fringe.channel)
    finite = residual[np.isfinite(residual)]
    limit = _rounded_up(4 * float(np.median(finite))) if finite.size else 0.01
    span = max(float(np.max(fringe.phases)) for fringe in chosen)
    panels: list[Markup] = []
    for number, fringe in enumerate(chosen):
        row, column = divmod(number, _COLUMNS)
        x, y = _LEFT + column * (_PANEL_WIDTH + _GAP_X), _TOP + row * (_PANEL_HEIGHT + _STRIP + _GAP_Y)
        panels += _panel(fringe, names[fringe.channel], unit, x, y, span, limit, first=column == 0)
    rows, columns = -(-len(chosen) // _COLUMNS), min(len(chosen), _COLUMNS)
    width = _LEFT + columns * (_PANEL_WIDTH + _GAP_X)
    size = (0, 0, width, _TOP + rows * (_PANEL_HEIGHT + _STRIP + _GAP_Y))
    worst = int(np.argmax(residual))
    return FringeDrawing(
        svg=svg_figure("Fringes of single heaters", size, *panels, class_="matrix fringes", style=f"max-width:{width}px"),
        shown=len(chosen),
        fringes=len(fringes),
        limit=limit,
        median=float(np.median(residual)),
        worst=(float(residual[worst]), names[fringes[worst].channel]),
    )


def _panel(fringe: Fringe, name: str, unit: str, x: int, y: int, span: float, limit: float, *, first: bool) -> list[Markup]:
    """Return one fringe: readings as points, the curve as a line, residuals in a strip below."""
    step = -(-len(fringe.phases) // MOST_POINTS)
    order = np.argsort(fringe.phases, kind="stable")[::step]
    phases, readings, fitted = fringe.phases[order], fringe.readings[order], fringe.fitted[order]
    usable = np.isfinite(readings)
    largest = max(float(np.max(fitted, initial=0.0)), float(np.max(readings[usable], initial=0.0))) or 1.0
    across = x + phases / span * _PANEL_WIDTH
    height = _PANEL_HEIGHT - 4
    curve = np.stack((across, y + _PANEL_HEIGHT - np.clip(fitted / largest, 0, 1) * height), axis=1)
    points = np.stack((across, y + _PANEL_HEIGHT - np.clip(readings / largest, 0, 1) * height), axis=1)[usable]
    middle = y + _PANEL_HEIGHT + 4 + _STRIP / 2
    off = (readings - fitted) / (float(np.ptp(fitted)) or 1.0) / limit
    rest = np.stack((across, middle - np.clip(off, -1, 1) * _STRIP / 2), axis=1)[usable]
    frame = f"M{x} {y}v{_PANEL_HEIGHT}h{_PANEL_WIDTH}M{x} {middle:g}h{_PANEL_WIDTH}"
    title = [
        svg_element("text", name, class_="start", x=x, y=y - 8),
        svg_element("text", _largest_text(largest, fringe.unit, unit), class_="end muted", x=x + _PANEL_WIDTH, y=y - 8),
    ]
    bottom = y + _PANEL_HEIGHT + _STRIP + 13
    ticks = [
        svg_element("text", text, class_="muted", x=x + phase / span * _PANEL_WIDTH, y=bottom)
        for text, phase in (("0", 0.0), ("π", math.pi), ("2π", 2 * math.pi))
        if phase <= span
    ]
    if first:
        edge = f"±{100 * limit:.2g}%"
        ticks.append(svg_element("text", edge, class_="end muted", x=x - 4, y=middle))
    return [
        svg_element("path", class_="frame", d=frame),
        svg_element("path", class_="curve", d=_curve_path(curve)),
        svg_element("path", class_="points", d="".join(f"M{px:.1f} {py:.1f}h0" for px, py in points)),
        svg_element("path", class_="points rest", d="".join(f"M{px:.1f} {py:.1f}h0" for px, py in rest)),
        *title,
        *ticks,
    ]


def _curve_path(curve: Array) -> str:
    """Return the path of fitted values: a line, or a dash each if there are too few for a smooth line."""
    if len(curve) < SMOOTH_POINTS:
        return "".join(f"M{px - 4:.1f} {py:.1f}h8" for px, py in curve)
    return "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in curve)


def _largest_text(largest: float, unit: str | None, unit_of_readings: str) -> str:
    """Return the largest reading as "12.3 µA", or the largest ratio as "0.987"."""
    return f"{largest:.3g}" if unit == "" else quantity_text(largest, unit if unit is not None else unit_of_readings)


def _rounded_up(value: float) -> float:
    """Return the next larger number of 1, 2 or 5 × 10ⁿ."""
    if not value > 0:
        return 0.01
    power = 10.0 ** math.floor(math.log10(value))
    return next((m * power for m in (1.0, 2.0, 5.0) if value <= m * power), 10 * power)
