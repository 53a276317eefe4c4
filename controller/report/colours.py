"""Cyclic colours of phases, legible on light and dark backgrounds and with colour-blindness."""

from __future__ import annotations

import math

PHASE_STEPS = 64
"""Number of colours of the phase wheel: steps of 0.1 rad are not visible in cells of a few pixels."""


def phase_wheel() -> tuple[str, ...]:
    """Return `PHASE_STEPS` colours as #rrggbb for phases from 0 to 2π; the last is similar to the first.

    The colours are a tilted circle in OKLab (Ottosson 2020, "A perceptual color space for image processing"):
    lightest at 0, yellow at π/2, darkest at π and blue at 3π/2. Lightness and the yellow-blue axis alone determine the
    phase, so red and green need not be distinguished. No colour is close to black or white.
    """
    colours = []
    for step in range(PHASE_STEPS):
        angle = 2 * math.pi * step / PHASE_STEPS
        colours.append(_hex(0.68 + 0.17 * math.cos(angle), 0.065 * math.cos(angle), 0.125 * math.sin(angle)))
    return tuple(colours)


def _hex(lightness: float, a: float, b: float) -> str:
    """Convert a colour from OKLab to #rrggbb."""
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
    """Return the sRGB value of a linear intensity; both from 0 to 1."""
    return 12.92 * linear if linear <= 0.0031308 else 1.055 * linear ** (1 / 2.4) - 0.055
