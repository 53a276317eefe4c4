"""How far to step: far enough to be seen above the noise, near enough to be a derivative.

A slope measured with per-phase step c errs in two ways. Noise σ of one loss enters as σ²/2c². Curvature enters as r²c⁴:
along direction j the measured slope is a_j + b_j·c², and what of b_j is not proportional to a_j (r_j, with mean square r²)
points away from the gradient. Their sum is least at c⁶ = σ² / 4r². Both σ and r are measured on the device before
learning: σ by repeating one setting, r by probing the same few directions at several steps. A step must also be several
steps of the drive source, or quantisation decides the direction.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.learning.variables import Phases

REPEATS = 16
"""Settings repeated to measure the noise of one loss."""
DIRECTIONS = 16
"""Directions probed at every step of the ladder."""
LADDER = (0.125, 0.25, 0.5, 1.0)
"""Steps probed, as fractions of the longest."""
MIN_LSBS = 4.0
"""A phase must move by at least so many steps of the drive source."""
ROUNDING = 2.0**-24
"""Readings travel in single precision: the relative noise that even an ideal loss has."""

Losses = Callable[[Phases], NDArray[np.float64]]
"""Measures the losses, shape (settings,), of offsets from the present variables, shape (settings, channels)."""


@dataclass(frozen=True)
class StepChoice:
    """A chosen step and why.

    Parameters
    ----------
    rms_rad
        Root-mean-square step of one phase [rad].
    noise
        Standard deviation of one loss at a fixed setting.
    reasons
        Plain sentences for the log.
    """

    rms_rad: float
    noise: float
    reasons: tuple[str, ...]


def longest_step(ports: int) -> float:
    """Return the longest step worth probing [rad]: a path meets about 2·ports phases, whose errors add in squares to one."""
    return 1.0 / np.sqrt(2.0 * ports)


def measure_noise(losses: Losses, channels: int) -> tuple[float, float]:
    """Return the mean loss and the standard deviation of one loss over repeats of the present setting."""
    repeated = losses(np.zeros((REPEATS, channels)))
    mean = float(repeated.mean())
    return mean, max(float(repeated.std(ddof=1)), ROUNDING * abs(mean))


def choose_step(losses: Losses, channels: int, ports: int, lsb_rad: float, rng: np.random.Generator) -> StepChoice:
    """Return the per-phase step that should bring measured slopes nearest to the gradient.

    Parameters
    ----------
    losses
        Measures losses at offsets [rad] from the present variables, REPEATS + 2 · DIRECTIONS · len(LADDER) in all.
    channels, ports
        Variables of the layer, and ports of its mesh.
    lsb_rad
        Phase of one step of the drive source [rad]; 0 where continuous.
    rng
        Draws the directions probed.
    """
    mean, noise = measure_noise(losses, channels)
    signs = rng.choice(np.array([-1.0, 1.0]), size=(DIRECTIONS, channels))
    steps = longest_step(ports) * np.array(LADDER)
    slopes = np.stack([_slopes(losses, signs, step) for step in steps])
    slope, curvature = _fit(steps, slopes, noise)
    if curvature > 0:
        best = float((noise**2 / (4 * curvature**2)) ** (1 / 6))
        reason = f"least error of a slope at {best:.3g} rad a phase"
    else:
        best = float(steps[-1])
        reason = f"no curvature seen above the noise up to {best:.3g} rad a phase"
    floor, ceiling = MIN_LSBS * lsb_rad, float(steps[-1])
    chosen = max(min(best, ceiling), floor)
    reasons = [
        f"loss {mean:.4g} with noise {noise:.2g} a setting ({REPEATS} repeats)",
        f"slope {slope:.3g} /rad and stray curvature {curvature:.3g} /rad³ ({DIRECTIONS} directions, {len(steps)} steps)",
        reason,
    ]
    if chosen == floor and floor > 0:
        reasons.append(f"raised to {MIN_LSBS:.0f} steps of the drive source, {floor:.3g} rad")
    elif best > ceiling:
        reasons.append(f"held at {ceiling:.3g} rad, where a path through {ports} ports loses its phase")
    signal = slope * chosen * np.sqrt(2.0) / noise
    reasons.append(f"chosen {chosen:.3g} rad a phase: signal {signal:.3g} times the noise")
    return StepChoice(rms_rad=float(chosen), noise=noise, reasons=tuple(reasons))


def _slopes(losses: Losses, signs: Phases, step_rad: float) -> NDArray[np.float64]:
    plus, minus = np.split(losses(np.concatenate((step_rad * signs, -step_rad * signs))), 2)
    return (plus - minus) / (2 * step_rad)


def _fit(steps: NDArray[np.float64], slopes: NDArray[np.float64], noise: float) -> tuple[float, float]:
    """Return the root-mean-square slope a, and r, from slopes (steps, directions) = a_j + b_j c² + noise."""
    # Each row carries noise σ/(√2 c): weighting by c makes them alike.
    design = np.stack((steps, steps**3), axis=1)
    solution = np.linalg.pinv(design)
    a, b = solution @ (slopes * steps[:, np.newaxis])
    spread = (solution @ solution.T) * (noise**2 / 2)
    a_squared = max(float(np.mean(a * a)) - spread[0, 0], 0.0)
    ab = float(np.mean(a * b)) - spread[0, 1]
    b_squared = float(np.mean(b * b)) - spread[1, 1]
    stray = b_squared - (ab * ab / a_squared if a_squared > 0 else 0.0)
    return a_squared**0.5, max(stray, 0.0) ** 0.5
