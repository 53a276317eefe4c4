"""Choice of the probe step: long enough to exceed the noise, short enough to measure a derivative.

A slope measured with step c per phase has two errors. Noise σ of one loss contributes σ²/2c². Curvature contributes
r²c⁴: along direction j the measured slope is a_j + b_j·c², and the part r_j of b_j that is not proportional to a_j, of
mean square r², changes the direction of the estimate. The sum of the two errors is least at c⁶ = σ² / 4r².

Both σ and r are measured on the device before training: σ by repeating one setting, r by probing the same directions at
several steps. The step must also be several DAC steps, or quantisation determines the direction.
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
"""Directions probed at each step."""
LADDER = (0.125, 0.25, 0.5, 1.0)
"""Steps probed, as fractions of the longest step."""
MIN_LSBS = 4.0
"""Least change of a phase, in DAC steps."""
ROUNDING = 2.0**-24
"""Relative noise of a loss on an ideal device: readings are sent in single precision."""

Losses = Callable[[Phases], NDArray[np.float64]]
"""Measures the losses, shape (settings,), at offsets [rad] from the present variables, shape (settings, channels)."""


@dataclass(frozen=True)
class StepChoice:
    """A chosen probe step and the reasons.

    Parameters
    ----------
    rms_rad
        Root-mean-square change of one phase [rad].
    noise
        Standard deviation of one loss at a fixed setting.
    reasons
        Sentences for the log.
    """

    rms_rad: float
    noise: float
    reasons: tuple[str, ...]


def longest_step(ports: int) -> float:
    """Return the longest useful step [rad], 1/√(2·ports).

    A path passes about 2·ports phase shifters; at this step their independent changes add up to 1 rad root mean square.
    """
    return 1.0 / np.sqrt(2.0 * ports)


def measure_noise(losses: Losses, channels: int) -> tuple[float, float]:
    """Return the mean and the standard deviation of the loss over repeats of the present setting."""
    repeated = losses(np.zeros((REPEATS, channels)))
    mean = float(repeated.mean())
    return mean, max(float(repeated.std(ddof=1)), ROUNDING * abs(mean))


def choose_step(losses: Losses, channels: int, ports: int, lsb_rad: float, rng: np.random.Generator) -> StepChoice:
    """Return the step per phase for which the measured slopes should have the least error.

    Parameters
    ----------
    losses
        Measures losses at offsets [rad] from the present variables; called for REPEATS + 2 · DIRECTIONS · len(LADDER)
        settings.
    channels, ports
        Number of variables of the layer, and ports of its mesh.
    lsb_rad
        Phase of one DAC step [rad]; 0 for a continuous source.
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
        reason = f"least slope error at {best:.3g} rad per phase"
    else:
        best = float(steps[-1])
        reason = f"no curvature above the noise up to {best:.3g} rad per phase"
    floor, ceiling = MIN_LSBS * lsb_rad, float(steps[-1])
    chosen = max(min(best, ceiling), floor)
    reasons = [
        f"loss {mean:.4g} with noise {noise:.2g} per setting ({REPEATS} repeats)",
        f"slope {slope:.3g} /rad, curvature across the gradient {curvature:.3g} /rad³ "
        f"({DIRECTIONS} directions, {len(steps)} steps)",
        reason,
    ]
    if chosen == floor and floor > 0:
        reasons.append(f"raised to {MIN_LSBS:.0f} steps of the drive source, {floor:.3g} rad")
    elif best > ceiling:
        reasons.append(f"limited to {ceiling:.3g} rad, at which the phase of a path through {ports} ports changes by about 1 rad")
    signal = slope * chosen * np.sqrt(2.0) / noise
    reasons.append(f"chosen: {chosen:.3g} rad per phase, signal {signal:.3g} times the noise")
    return StepChoice(rms_rad=float(chosen), noise=noise, reasons=tuple(reasons))


def _slopes(losses: Losses, signs: Phases, step_rad: float) -> NDArray[np.float64]:
    offsets = np.stack((step_rad * signs, -step_rad * signs), axis=1)  # the two of a pair one after the other
    plus, minus = losses(offsets.reshape(-1, signs.shape[1])).reshape(-1, 2).T
    return (plus - minus) / (2 * step_rad)


def _fit(steps: NDArray[np.float64], slopes: NDArray[np.float64], noise: float) -> tuple[float, float]:
    """Return root-mean-square slope a and curvature r of a fit a_j + b_j·c² to slopes, shape (steps, directions)."""
    # The noise of a row is σ/(√2 c): multiplied by c, all rows have the same noise.
    design = np.stack((steps, steps**3), axis=1)
    solution = np.linalg.pinv(design)
    a, b = solution @ (slopes * steps[:, np.newaxis])
    spread = (solution @ solution.T) * (noise**2 / 2)
    a_squared = max(float(np.mean(a * a)) - spread[0, 0], 0.0)
    ab = float(np.mean(a * b)) - spread[0, 1]
    b_squared = float(np.mean(b * b)) - spread[1, 1]
    stray = b_squared - (ab * ab / a_squared if a_squared > 0 else 0.0)
    return a_squared**0.5, max(stray, 0.0) ** 0.5
