"""Thermal crosstalk of a calibrated stage: the share of one heater's power on each waveguide segment, as SVG."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.heater_phases import CrosstalkModel
from photonloop.controller.calibration.twin_layout import REFERENCE_M, TwinLayout
from photonloop.controller.calibration.twin_parameters import slices
from photonloop.controller.report.calibration_names import heater_names
from photonloop.controller.report.svg_elements import svg_element, svg_figure

Array = NDArray[np.float64]

_WIDTH = 960
"""Width of the largest map, in drawing units."""
_LEVELS = 24
_DECADES = 2.0
"""Range of the logarithmic colour scale, below the largest share."""


@dataclass(frozen=True)
class CrosstalkLaw:
    """Share of a heater's power that a segment receives, by distance.

    Parameters
    ----------
    distance_m
        Distances [m], from the nearest segment to the reach of the twin, shape (points,).
    share, sigma
        Shares, and their standard deviations; these are 0 if the fit has none.
    """

    distance_m: Array
    share: Array
    sigma: Array


@dataclass(frozen=True)
class CrosstalkMap:
    """The map of one heater, and numbers to go with it.

    Parameters
    ----------
    svg
        The map.
    heater
        Name of the heater.
    largest
        Largest share on any other segment.
    total
        Sum of the shares that the heater's segment receives from all others: their heat if each has the same power.
    reach_m
        Distance of the most distant segment that the twin lets a heater warm [m].
    """

    svg: Markup
    heater: str
    largest: float
    total: float
    reach_m: float


def crosstalk_law(found: StageCalibration, points: int = 60) -> CrosstalkLaw | None:
    """Return the fitted law of a stage; None if its twin has no crosstalk between any two places."""
    layout, own = found.layout, found.parameters
    if not layout.distance_ln.size or not own.crosstalk_share > 0:
        return None
    ln = np.linspace(layout.distance_ln.max(), layout.distance_ln.min(), points)
    share = own.crosstalk_share * np.exp(own.crosstalk_exponent * ln)
    if len(found.draws):
        at = slices(layout)
        shares = own.crosstalk_share + found.draws[:, at["crosstalk_share"]]
        exponents = own.crosstalk_exponent + found.draws[:, at["crosstalk_exponent"]]
        sigma = np.sqrt(np.mean((shares * np.exp(exponents * ln) - share) ** 2, axis=0))
    else:
        sigma = share * np.hypot(found.sigma.crosstalk_share / own.crosstalk_share, ln * found.sigma.crosstalk_exponent)
    return CrosstalkLaw(REFERENCE_M * np.exp(-ln), share, sigma)


def crosstalk_map(found: StageCalibration) -> CrosstalkMap | None:
    """Return the map of the θ nearest to the centre of the chip; None if the twin has no crosstalk."""
    layout, own = found.layout, found.parameters
    if not layout.distance_ln.size or not own.crosstalk_share > 0 or not layout.theta.size:
        return None
    crosstalk = CrosstalkModel(layout, own.crosstalk_share, own.crosstalk_exponent)
    centre = np.hypot(layout.column - layout.column.max() / 2, (layout.top - (layout.ports - 2) / 2) / 2)
    heater = int(layout.theta[np.argmin(centre)])
    powers = np.stack((np.arange(layout.channels) == heater, np.ones(layout.channels))).astype(np.float64)
    shares, together = crosstalk.share * crosstalk.received(powers)
    total = float(together[layout.own[heater]])
    reach_m = REFERENCE_M * math.exp(-float(layout.distance_ln.min()))
    svg = _map_svg(found, shares, heater)
    return CrosstalkMap(svg, heater_names(layout)[heater], float(shares.max()), total, reach_m)


def _map_svg(found: StageCalibration, shares: Array, heater: int) -> Markup:
    layout = found.layout
    halves, modes = _half_columns(layout), layout.ports
    width, height = max(6, min(44, _WIDTH // halves)), max(6, min(26, _WIDTH // halves))
    left, top = 34, 4
    largest = float(shares.max())
    paths: dict[int, list[str]] = defaultdict(list)
    for segment in np.flatnonzero(shares[: halves * modes] > 0):
        half, mode = divmod(int(segment), modes)
        if level := _level(float(shares[segment]), largest):
            paths[level].append(f"M{left + half * width} {top + mode * height}h{width - 1}v{height - 1}h-{width - 1}z")
    lines = "".join(f"M{left} {top + mode * height + height // 2}h{halves * width}" for mode in range(modes))
    cells = [
        svg_element("path", class_="hit", fill_opacity=round(level / _LEVELS, 3), d="".join(path))
        for level, path in sorted(paths.items())
    ]
    half, mode = divmod(int(layout.own[heater]), modes)
    own = svg_element("rect", class_="up", x=left + half * width, y=top + mode * height, width=width - 1, height=height - 1)
    bottom = top + modes * height
    axes = [*_mode_labels(modes, left, top, height), *_place_labels(found, left, bottom, width, halves)]
    scale = _scale(left, bottom + 42, largest)
    size = (0, 0, left + max(halves * width, 700) + 8, bottom + 70)
    label = "Share of one heater's power on each waveguide segment"
    guides = svg_element("path", class_="guide", d=lines, style="stroke-width:1")
    return svg_figure(label, size, guides, *cells, own, *axes, *scale, class_="matrix", style=f"max-width:{size[2]}px")


def _half_columns(layout: TwinLayout) -> int:
    """Return the number of half columns that have a heater, from the first one on."""
    return int(layout.own.max()) // layout.ports + 1


def _level(share: float, largest: float) -> int:
    """Return the opacity of a share on a logarithmic scale, 0 to _LEVELS; shares below the scale have the lowest."""
    return max(1, round(_LEVELS * (1 + math.log10(share / largest) / _DECADES)))


def _mode_labels(modes: int, left: int, top: int, height: int) -> list[Markup]:
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64) if step * height >= 14)
    return [
        svg_element("text", str(mode), class_="end muted", x=left - 6, y=top + (mode + 0.5) * height)
        for mode in range(0, modes, step)
    ]


def _place_labels(found: StageCalibration, left: int, bottom: int, width: int, halves: int) -> list[Markup]:
    """Return the labels below the map: kind and column of the heaters, and positions if the geometry is known."""
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64) if step * width >= 22)
    halves_shown = range(0, halves, 2 * step if step > 1 else 1)
    last = 2 * (int(found.layout.column.max()) + 1)
    names = {half: "γ" if half == last else f"{'φθ'[half % 2]}{half // 2}" for half in halves_shown}
    labels = [
        svg_element("text", name, class_="muted", x=left + (half + 0.5) * width, y=bottom + 10) for half, name in names.items()
    ]
    geometry = found.stage.geometry
    text = "column of heaters: φ and θ of each column of interferometers; rows are modes"
    if geometry is not None and len(geometry.mode_y_m) > 1 and len(geometry.phi_x_m) > 1:
        pitch = 1e6 * abs(geometry.mode_y_m[1] - geometry.mode_y_m[0])
        along = 1e6 * abs(geometry.theta_x_m[0] - geometry.phi_x_m[0])
        text += f". Rows are {pitch:.3g} µm apart, columns {along:.3g} µm"
    return [*labels, svg_element("text", text, class_="start muted", x=left, y=bottom + 26)]


def _scale(left: int, y: int, largest: float) -> list[Markup]:
    """Return the logarithmic colour scale with its limits in per cent."""
    cells = [
        svg_element("rect", class_="hit", x=left + 6 * k, y=y, width=6, height=8, fill_opacity=round((k + 1) / _LEVELS, 3))
        for k in range(_LEVELS)
    ]
    low, high = 100 * largest / 10**_DECADES, 100 * largest
    text = f"{low:.2g} to {high:.2g} % of the heater's power, logarithmic"
    return [*cells, svg_element("text", text, class_="start muted", x=left + 6 * _LEVELS + 8, y=y + 4)]
