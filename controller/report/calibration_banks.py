"""Section of a weight bank in the report of a calibration: weight of each ring against its heater, and influences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import RingCalibration
from photonloop.controller.report.calibration_curves import held_out_svg
from photonloop.controller.report.calibration_sections import TroubleRow, fact_rows, held_out_summary, stage_warnings
from photonloop.controller.report.calibration_values import FittedValue, fitted_values
from photonloop.controller.report.svg_elements import svg_element, svg_figure

Array = NDArray[np.float64]

MOST_RINGS = 64
"""Rings whose curves are drawn."""

_POINTS, _COLUMNS = 120, 8
_WIDTH, _HEIGHT, _GAP_X, _GAP_Y, _LEFT, _TOP = 96, 56, 18, 34, 34, 18


@dataclass(frozen=True)
class BankSection:
    """Everything about one weight bank; histograms are None if no setting was held out."""

    name: str
    warnings: tuple[str, ...]
    summary: str
    histograms: Markup | None
    curves: Markup
    curves_caption: str
    influences: Markup
    influences_caption: str
    values: tuple[FittedValue, ...]
    troubles: tuple[TroubleRow, ...]
    facts: tuple[tuple[str, str], ...]


def bank_section(found: RingCalibration, unit: str, prefix: str) -> BankSection:
    """Return the section of one weight bank; `unit` of the readings, `prefix` of the ids of its drawings."""
    held_out, shown = found.held_out, min(found.layout.channels, MOST_RINGS)
    influences = ring_influences(found)
    others = np.abs(influences - np.diag(np.diag(influences)))
    return BankSection(
        name=found.stage.name,
        warnings=tuple(stage_warnings(held_out, ())),
        summary=held_out_summary(held_out),
        histograms=held_out_svg(held_out, f"{prefix}-held-out") if held_out.residual.size else None,
        curves=weight_curves_svg(found),
        curves_caption=(
            "Weight of each ring, from −1 to 1, against its nominal heater phase, with all other heaters at 0 V."
            + (f" {shown} of {found.layout.channels} rings are shown." if shown < found.layout.channels else "")
        ),
        influences=influence_map_svg(influences),
        influences_caption=(
            "Phase of each ring (row) if a heater (column) gets its nominal P_π, without the ring's own heater. The largest "
            f"is {others.max(initial=0.0):.3g} rad."
        ),
        values=tuple(fitted_values(found, unit)),
        troubles=tuple(TroubleRow(trouble.kind, _place(found, trouble.channels), trouble.detail) for trouble in found.troubles),
        facts=fact_rows(found, unit),
    )


def ring_influences(found: RingCalibration) -> Array:
    """Return the phase of each ring [rad] for the nominal P_π of each heater alone, shape (rings, heaters)."""
    settings = np.pi * np.concatenate((np.zeros((1, found.layout.channels)), np.eye(found.layout.channels)))
    phases = found.model.ring_phases(settings)
    return (phases[1:] - phases[0]).T


def ring_name(found: RingCalibration, channel: int) -> str:
    """Return the name of a ring, "ring (row, wavelength)"."""
    row, wavelength = divmod(channel, found.layout.wavelengths)
    return f"ring ({row}, {wavelength})"


def weight_curves_svg(found: RingCalibration) -> Markup:
    """Return the weight of each ring against its nominal heater phase as small multiples, up to MOST_RINGS."""
    shown, wavelengths = min(found.layout.channels, MOST_RINGS), found.layout.wavelengths
    phases = np.linspace(0, 2 * np.pi, _POINTS)
    panels: list[Markup] = []
    for channel in range(shown):
        settings = np.zeros((_POINTS, found.layout.channels))
        settings[:, channel] = phases
        row, wavelength = divmod(channel, wavelengths)
        weights = np.clip(found.weights(settings)[:, row, wavelength], -1, 1)
        line, column = divmod(channel, _COLUMNS)
        x, y = _LEFT + column * (_WIDTH + _GAP_X), _TOP + line * (_HEIGHT + _GAP_Y)
        points = np.stack((x + phases / (2 * np.pi) * _WIDTH, y + _HEIGHT / 2 * (1 - weights)), axis=1)
        panels += [
            svg_element("path", class_="frame", d=f"M{x} {y}v{_HEIGHT}h{_WIDTH}M{x} {y + _HEIGHT / 2:g}h{_WIDTH}"),
            svg_element("path", class_="curve", d="M" + "L".join(f"{px:.1f} {py:.1f}" for px, py in points)),
            svg_element("text", f"({row}, {wavelength})", class_="start", x=x, y=y - 8),
            *(
                svg_element("text", text, class_="muted", x=x + share * _WIDTH, y=y + _HEIGHT + 10)
                for text, share in (("0", 0.0), ("π", 0.5), ("2π", 1.0))
            ),
        ]
        if column == 0:
            panels += [
                svg_element("text", text, class_="end muted", x=x - 4, y=y + share * _HEIGHT)
                for text, share in (("1", 0.0), ("−1", 1.0))
            ]
    width = _LEFT + min(shown, _COLUMNS) * (_WIDTH + _GAP_X)
    size = (0, 0, width, _TOP + -(-shown // _COLUMNS) * (_HEIGHT + _GAP_Y))
    return svg_figure("Weights of rings", size, *panels, class_="matrix fringes", style=f"max-width:{width}px")


def influence_map_svg(influences: Array) -> Markup:
    """Return the influence of each heater on each other ring as a map; its colour scale ends at the largest."""
    rings = len(influences)
    cell, left, top = max(4, min(26, 520 // rings)), 40, 18
    others = np.abs(influences - np.diag(np.diag(influences)))
    largest = float(others.max(initial=0.0)) or 1.0
    cells = [
        svg_element(
            "rect",
            class_="down" if influences[ring, heater] < 0 else "hit",
            x=left + heater * cell,
            y=top + ring * cell,
            width=cell - 1,
            height=cell - 1,
            fill_opacity=round(float(others[ring, heater]) / largest, 3),
        )
        for ring in range(rings)
        for heater in range(rings)
        if others[ring, heater] > 0.01 * largest
    ]
    step = next(step for step in (1, 2, 4, 8, 16, 32, 64) if step * cell >= 18)
    labels = [svg_element("text", str(k), class_="muted", x=left + (k + 0.5) * cell, y=10) for k in range(0, rings, step)]
    labels += [
        svg_element("text", str(k), class_="end muted", x=left - 6, y=top + (k + 0.5) * cell) for k in range(0, rings, step)
    ]
    outline = svg_element("rect", class_="frame", x=left, y=top, width=rings * cell, height=rings * cell, fill="none")
    size = (0, 0, left + rings * cell + 4, top + rings * cell + 4)
    return svg_figure(
        "Influence of heaters on rings", size, outline, *cells, *labels, class_="matrix", style=f"max-width:{size[2]}px"
    )


def _place(found: RingCalibration, channels: tuple[int, ...]) -> str:
    return "; ".join(f"channel {channel}, {ring_name(found, channel)}" for channel in channels) or "the whole bank"
