"""Colours that read on white paper and on a dark screen, and to colour-blind eyes."""

from __future__ import annotations

import math

PHASE_STEPS = 64
"""Colours of the phase wheel; steps of 0.1 rad are finer than eyes tell apart in cells of a few pixels."""


def phase_wheel() -> tuple[str, ...]:
    """Return `PHASE_STEPS` colours for phases from 0 to 2π, the last next to the first.

    A tilted circle in OKLab (Ottosson 2020, "A perceptual color space for image processing"): lightest at 0, darkest at π,
    yellow at π/2 and blue at 3π/2. Lightness and the yellow-blue axis alone place a phase on the circle, so the map does
    not lean on red against green; neither end meets black or white.
    """
    colours = []
    for step in range(PHASE_STEPS):
        angle = 2 * math.pi * step / PHASE_STEPS
        colours.append(_hex(0.68 + 0.17 * math.cos(angle), 0.065 * math.cos(angle), 0.125 * math.sin(angle)))
    return tuple(colours)


def _hex(lightness: float, a: float, b: float) -> str:
    """Return OKLab as #rrggbb."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (
        4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
        -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
        -0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short,
    )
    return "#" + "".join(f"{round(255 * _gamma(min(max(value, 0.0), 1.0))):02x}" for value in linear)


def _gamma(linear: float) -> float:
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
