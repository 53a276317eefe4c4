"""Column-parallel scans of a rectangular mesh: θ of all interferometers, from readings of the last detectors only.

All interferometers of a column are scanned at once, from the last column to the first. Later columns are in bar,
earlier ones anywhere. Two settings with φ and φ + π are averaged, so that interference cancels and the power at an
output follows

    P_t = A - B · cos(θ),   θ = offset + a,   B = half the difference of the powers that enter

Even-numbered interferometers (class 0) are at the angles a_j = 2πj/5, odd-numbered ones (class 1) at 2π(2j mod 5)/5.
Both sets are orthogonal, so the demodulated readings Z of a port show the class of the interferometer that its light
comes from. The offset is ½ · arg Σ Z², known up to π. Whether an interferometer that was put in bar is in bar or in
cross follows from the next scan, from the classes at its two ports. In column 0 it follows from the known inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from photonloop.controller.calibration.twin_layout import TwinLayout

Array = NDArray[np.float64]

Read = Callable[[Array], Array]
"""From nominal heater phases, (settings, channels), to readings, (settings, samples, taps)."""

LOW_RAD = 0.3
"""Smallest heater phase that scans use; the largest is 2π more."""

POINTS = 5
"""Angles of a scan."""

CURVE_POINTS = 14
"""Angles of the scan for the heaters' curve."""


@dataclass(frozen=True)
class HeaterCurve:
    """Phase of a typical heater: x is the nominal heater phase, y the phase with κ, self-heating and curvature."""

    curvature: float
    self_heating: float
    kappa: float = 1.0

    def phase(self, x: ArrayLike) -> Array:
        """Return y at nominal heater phases `x` [rad]."""
        p = _root(self.kappa * np.asarray(x, np.float64) / np.pi, self.self_heating)
        return np.pi * p * (1 + self.curvature * p) / (1 + self.curvature)

    def nominal(self, y: ArrayLike) -> Array:
        """Return the nominal heater phases for phases `y` [rad]: the inverse of `phase`."""
        p = _root((1 + self.curvature) * np.asarray(y, np.float64) / np.pi, self.curvature)
        return np.pi * p * (1 + self.self_heating * p) / self.kappa

    def target(self, phase_rad: float | Array, offset_rad: Array) -> Array:
        """Return the nominal heater phases at which offset + y is `phase_rad`, up to multiples of 2π."""
        return self.nominal(np.mod(phase_rad - offset_rad - LOW_RAD, 2 * np.pi) + LOW_RAD)


@dataclass(frozen=True)
class ThetaScan:
    """Offsets of θ [rad], shape (interferometers,), and the setting with all of them in bar, shape (channels,)."""

    offset_rad: Array
    bar: Array


def scan_curve(layout: TwinLayout, read: Read, curve: HeaterCurve, rng: np.random.Generator) -> HeaterCurve:
    """Return the curve with the curvature that fits a scan of the last column best, and the median κ of its heaters.

    Every reading is A + B cos y + C sin y for some A, B and C, whatever the phases elsewhere.
    """
    here = np.flatnonzero(layout.column == layout.column.max())
    x = np.linspace(LOW_RAD / 2, 2.4 * np.pi, CURVE_POINTS)
    settings = np.tile(random_phases(layout, curve, rng), (CURVE_POINTS, 1))
    settings[:, layout.theta[here]] = x[:, np.newaxis]
    readings = read(settings)
    pairs = [readings[:, :, layout.top[k] : layout.top[k] + 2].reshape(CURVE_POINTS, -1) for k in here]
    # The sum of squares that a basis leaves unexplained depends on these matrices alone.
    grams = [pair @ pair.T / np.sum(pair**2) for pair in pairs]

    def unexplained(kappa: float, curvature: float, gram: Array) -> float:
        y = HeaterCurve(curvature, curve.self_heating, kappa).phase(x)
        basis = np.linalg.qr(np.stack((np.ones_like(y), np.cos(y), np.sin(y)), axis=1)).Q
        return float(np.trace(gram) - np.sum(basis * (gram @ basis)))

    def best(curvature: float) -> list[tuple[float, float]]:
        return [_minimum(lambda kappa, gram=gram: unexplained(kappa, curvature, gram), 0.8, 1.2, 1e-5) for gram in grams]

    curvature = _minimum(lambda curvature: sum(rest for _, rest in best(curvature)), -0.1, 0.15, 1e-5)[0]
    return HeaterCurve(curvature, curve.self_heating, float(np.median([kappa for kappa, _ in best(curvature)])))


def scan_thetas(
    layout: TwinLayout,
    read: Read,
    curve: HeaterCurve,
    inputs: Array,
    rng: np.random.Generator,
    scanned: Callable[[int], None] = lambda _column: None,
) -> ThetaScan:
    """Return the offsets of all θ of a rectangular mesh: 10 settings per column.

    Parameters
    ----------
    layout
        The stage.
    read
        Reads settings with `inputs`.
    curve
        Curve of the heaters.
    inputs
        Amplitudes, shape (samples, ports): about half of them 0, so that the powers at neighbouring ports differ.
    rng
        Draws the phases of earlier columns.
    scanned
        Called with the number of each column when it is done.
    """
    offset_rad, x = np.zeros(layout.interferometers), random_phases(layout, curve, rng)
    later = np.empty(0, np.int64)
    for column in range(int(layout.column.max()), -1, -1):
        here = np.flatnonzero(layout.column == column)
        signals = _demodulated(read(_scan_settings(layout, curve, x, here)))
        source = np.arange(layout.ports)  # where the light of each port behind this column arrives
        crossed = later[_in_cross(layout, here, later, signals)]
        offset_rad[crossed] += np.pi
        source[layout.top[crossed]], source[layout.top[crossed] + 1] = layout.top[crossed] + 1, layout.top[crossed]
        x[layout.theta[later]] = curve.target(np.pi, offset_rad[later])
        for number, k in enumerate(here):
            upper, lower = (signals[number % 2][:, source[layout.top[k] + lower_side]] for lower_side in (0, 1))
            offset_rad[k] = 0.5 * np.angle(np.sum(upper**2) + np.sum(lower**2))
            if column == 0:
                entering = inputs[:, layout.top[k]] ** 2 - inputs[:, layout.top[k] + 1] ** 2
                if np.real(-np.sum(entering * (upper - lower)) * np.exp(-1j * offset_rad[k])) < 0:
                    offset_rad[k] += np.pi
        x[layout.theta[here]] = curve.target(np.pi, offset_rad[here])
        later = here
        scanned(column)
    return ThetaScan(offset_rad, x)


def random_phases(layout: TwinLayout, curve: HeaterCurve, rng: np.random.Generator) -> Array:
    """Return random nominal heater phases, uniform over 2π, shape (channels,)."""
    return curve.nominal(LOW_RAD + 2 * np.pi * rng.random(layout.channels))


def _angles() -> Array:
    """Return the angles of both classes, shape (2, POINTS)."""
    steps = np.arange(float(POINTS))
    return 0.4 + 2 * np.pi / POINTS * np.stack((steps, 2 * steps % POINTS))


def _scan_settings(layout: TwinLayout, curve: HeaterCurve, x: Array, here: NDArray[np.int64]) -> Array:
    """Return the settings of one column's scan, first all angles at φ, then at φ + π, shape (2 · POINTS, channels)."""
    settings = np.tile(x, (2 * POINTS, 1))
    by_class = curve.nominal(_angles())[np.arange(here.size) % 2].T
    settings[:, layout.theta[here]] = np.concatenate((by_class, by_class))
    for half, y in enumerate((0.8, 0.8 + np.pi)):
        settings[half * POINTS : (half + 1) * POINTS, layout.phi[here]] = curve.nominal(y)
    return settings


def _demodulated(readings: Array) -> NDArray[np.complex128]:
    """Return Z of both classes, shape (2, samples, taps)."""
    mean = readings.reshape(2, POINTS, *readings.shape[1:]).mean(axis=0)
    return np.einsum("cj,jsk->csk", np.exp(-1j * _angles()) * 2 / POINTS, mean)


def _in_cross(
    layout: TwinLayout, here: NDArray[np.int64], later: NDArray[np.int64], signals: NDArray[np.complex128]
) -> NDArray[np.bool_]:
    """Return which of the next column's interferometers, meant to be in bar, are in cross."""
    power = np.append((np.abs(signals) ** 2).sum(axis=1), np.zeros((1, layout.ports)), axis=0)
    follows = np.full(layout.ports, 2)  # 2: no interferometer of this column
    for number, k in enumerate(here):
        follows[layout.top[k]] = follows[layout.top[k] + 1] = number % 2
    t = layout.top[later]
    bar = power[follows[t], t] + power[follows[t + 1], t + 1]
    cross = power[follows[t], t + 1] + power[follows[t + 1], t]
    return cross > bar


def _root(u: Array, rho: float) -> Array:
    """Return p that solves p · (1 + ρp) = u."""
    return 2 * u / (1 + np.sqrt(1 + 4 * rho * u))


def _minimum(function: Callable[[float], float], low: float, high: float, tolerance: float) -> tuple[float, float]:
    """Return the place and the value of the minimum of a function between two bounds."""
    found: Any = minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": tolerance})
    return float(found.x), float(found.fun)
