"""Column-parallel scans of a mesh: θ of all interferometers, from readings behind the last column.

All interferometers of a column are scanned at once, from the last column to the first. Later columns are in bar,
earlier ones anywhere. The power at an output of an interferometer that is entered by the fields u and l is

    P = A - B cos θ ± C sin θ,   B = ½ (|u|² - |l|²),   C = Re(e^{iφ} u l*),   θ = offset + y

A scan has POINTS settings, with φ and φ + π in turn. Even-numbered interferometers (class 0) are at the angles
y_j = 2πj/10, odd-numbered ones (class 1) at 2π(3j mod 10)/10. The functions cos, sin, (-1)^j cos and (-1)^j sin of one
class are orthogonal to those of the other, so the coefficients of a port show the class of the interferometer that its
light comes from. The offset is ½ · arg Σ Z² of all coefficients Z, known up to π. What these functions and a constant
leave unexplained depends on κ of the heater. Whether an interferometer that was put in bar is in bar or in cross
follows from the next scan, from the classes at its two ports. In column 0 it follows from the known inputs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar

from photonloop.controller.calibration.twin_layout import TwinLayout

Array = NDArray[np.float64]

Read = Callable[[Array, int, NDArray[np.int64]], Array]
"""From nominal heater phases, (settings, channels), to readings, (settings, samples, taps).

The other arguments are the scanned column, and the channels that must have these phases even if all heaters together
would exceed the total power.
"""

LOW_RAD = 0.3
"""Smallest heater phase that scans use; the largest is 2π more."""

POINTS = 10
"""Settings of a scan."""

KAPPAS, KAPPA_SPREAD = 61, 0.03
"""Number of κ that are tried, and standard deviation of κ relative to its median."""

RESCANS, LEAST_RATIO = 2, 1.3
"""Largest number of further scans of a column, and the ratio of powers from which bar and cross are clear without."""

CURVE_POINTS = 14
"""Angles of the scan for the heaters' curve."""


@dataclass(frozen=True)
class HeaterCurve:
    """Phase of a typical heater: x is the nominal heater phase, y the phase with κ, self-heating and curvature."""

    curvature: float
    self_heating: float
    kappa: float | Array = 1.0

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
    """Offsets [rad] and κ of all θ, and their nominal heater phases for bar, all of shape (interferometers,)."""

    offset_rad: Array
    kappa: Array
    bar: Array


def scan_curve(layout: TwinLayout, read: Read, curve: HeaterCurve, rng: np.random.Generator) -> HeaterCurve:
    """Return the curve with the curvature that fits a scan of the last column best, and the median κ of its heaters.

    Every reading is A + B cos y + C sin y for some A, B and C, whatever the phases elsewhere.
    """
    last = int(layout.column.max())
    here = np.flatnonzero(layout.column == last)
    x = np.linspace(LOW_RAD / 2, 2.4 * np.pi, CURVE_POINTS)
    settings = np.tile(random_phases(layout, curve, rng), (CURVE_POINTS, 1))
    settings[:, layout.theta[here]] = x[:, np.newaxis]
    readings = read(settings, last, layout.theta[here])
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
    """Return the offsets of all θ of a mesh: 10 settings per column, more if the scan is not clear.

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
    offset_rad, bar, kappa = np.zeros((3, layout.interferometers))
    later, trial = np.empty(0, np.int64), _trial_bases(curve)
    for column in range(int(layout.column.max()), -1, -1):
        here = np.flatnonzero(layout.column == column)
        readings, power = _scanned(layout, read, curve, bar, column, later, rng)
        source = np.arange(layout.ports)  # where the light of each port behind this column arrives
        in_bar, in_cross = _bar_and_cross(layout, here, later, power)
        crossed = later[in_cross > in_bar]
        offset_rad[crossed] += np.pi
        source[layout.top[crossed]], source[layout.top[crossed] + 1] = layout.top[crossed] + 1, layout.top[crossed]
        bar[later] = _own_curve(curve, kappa[later]).target(np.pi, offset_rad[later])
        for number, k in enumerate(here):
            pair = readings[:, :, source[layout.top[k] : layout.top[k] + (1 if layout.alone[k] else 2)]]
            kappa[k], own, across = _fitted_pair(pair, trial[number % 2])
            if layout.alone[k]:  # an attenuator: B is positive
                offset_rad[k] = np.angle(-np.sum(own))
                continue
            offset_rad[k] = 0.5 * np.angle(np.sum(own**2) + np.sum(across**2))
            if column == 0:
                entering = inputs[:, layout.top[k]] ** 2 - inputs[:, layout.top[k] + 1] ** 2
                if np.real(-np.sum(entering * (own[:, 0] - own[:, 1])) * np.exp(-1j * offset_rad[k])) < 0:
                    offset_rad[k] += np.pi
        bar[here] = _own_curve(curve, kappa[here]).target(np.pi, offset_rad[here])
        later = here[~layout.alone[here]]
        scanned(column)
    return ThetaScan(offset_rad, kappa, bar)


def _scanned(
    layout: TwinLayout,
    read: Read,
    curve: HeaterCurve,
    bar: Array,
    column: int,
    later: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Return the readings of one column's scan, and `_power_by_class`; `later` are the next column's interferometers.

    The scan is repeated with other phases in earlier columns while it is not clear which of `later` are in bar.
    """
    here, behind = np.flatnonzero(layout.column == column), layout.column > column
    kept = np.concatenate((layout.theta[here], layout.phi[here], layout.theta[behind]))
    readings, power = np.empty(0), np.zeros((2, layout.ports))
    for _ in range(1 + RESCANS):
        x = random_phases(layout, curve, rng)
        x[layout.theta[behind]] = bar[behind]
        readings = read(_scan_settings(layout, curve, x, column, rng), column, kept)
        power = power + _power_by_class(readings)
        in_bar, in_cross = _bar_and_cross(layout, here, later, power)
        larger, smaller = np.maximum(in_bar, in_cross), np.minimum(in_bar, in_cross)
        if np.all((larger > LEAST_RATIO * smaller) | (larger == 0)):
            break
    return readings, power


def random_phases(layout: TwinLayout, curve: HeaterCurve, rng: np.random.Generator) -> Array:
    """Return random nominal heater phases, uniform over 2π, shape (channels,).

    Output phases are 0: no reading depends on them, and their heat would use up the power limits of a small mesh.
    """
    phases = curve.nominal(LOW_RAD + 2 * np.pi * rng.random(layout.channels))
    phases[layout.gamma] = 0.0
    return phases


class TrialBases(NamedTuple):
    """Functions of a scan of one class for several κ, (κ,), as orthonormal vectors and as they are, (κ, POINTS, 5)."""

    kappa: Array
    orthonormal: Array
    functions: Array


def _trial_bases(curve: HeaterCurve) -> list[TrialBases]:
    """Return the functions of both classes."""
    kappa, found = curve.kappa * np.linspace(0.88, 1.12, KAPPAS), []
    for angles in _angles():
        y = np.array([dataclasses.replace(curve, kappa=each).phase(curve.nominal(angles)) for each in kappa])
        cosine, sine, turns = np.cos(y), np.sin(y), (-1.0) ** np.arange(POINTS)
        functions = np.stack((np.ones_like(y), cosine, sine, turns * cosine, turns * sine), axis=2).astype(np.float64)
        found.append(TrialBases(kappa, np.linalg.qr(functions).Q.astype(np.float64), functions))
    return found


def _fitted_pair(pair: Array, trial: TrialBases) -> tuple[float, Array, Array]:
    """Return κ, and the complex coefficients of θ without and with the interference, (samples, 2) each.

    `pair` are the readings of the two ports, (POINTS, samples, 2).
    """
    rows = pair.reshape(POINTS, -1)
    gram = rows @ rows.T
    unexplained = np.trace(gram) - np.einsum("kpb,pq,kqb->k", trial.orthonormal, gram, trial.orthonormal)
    unlikely = 0.5 * pair.shape[1] * np.log(np.maximum(unexplained, 1e-14 * np.trace(gram)))
    best = int(np.argmin(unlikely + 0.5 * ((trial.kappa / np.median(trial.kappa) - 1) / KAPPA_SPREAD) ** 2))
    _, c, d, e, f = np.linalg.lstsq(trial.functions[best], rows, rcond=None)[0].reshape(5, *pair.shape[1:])
    return float(trial.kappa[best]), c - 1j * d, f + 1j * e


def _own_curve(curve: HeaterCurve, kappa: Array) -> HeaterCurve:
    """Return the curve with a κ for each heater."""
    return dataclasses.replace(curve, kappa=kappa)


def _angles() -> Array:
    """Return the angles of both classes, shape (2, POINTS)."""
    steps = np.arange(float(POINTS))
    return 0.4 + 2 * np.pi / POINTS * np.stack((steps, 3 * steps % POINTS))


def _scan_settings(layout: TwinLayout, curve: HeaterCurve, x: Array, column: int, rng: np.random.Generator) -> Array:
    """Return the settings of one column's scan, shape (POINTS, channels).

    The φ of later columns are different in each of them. Light that leaks there then acts like noise.
    """
    here, behind = np.flatnonzero(layout.column == column), layout.phi[layout.column > column]
    settings = np.tile(x, (POINTS, 1))
    settings[:, behind] = curve.nominal(LOW_RAD + 2 * np.pi * rng.random((POINTS, behind.size)))
    settings[:, layout.theta[here]] = curve.nominal(_angles())[np.arange(here.size) % 2].T
    settings[:, layout.phi[here]] = curve.nominal(0.8 + np.pi * (np.arange(POINTS) % 2))[:, np.newaxis]
    return settings


def _power_by_class(readings: Array) -> Array:
    """Return how much the readings of each port vary with the angles of each class, shape (2, taps)."""
    waves = np.exp(-1j * _angles())
    return np.sum(np.abs(np.einsum("cj,jsk->csk", waves, readings)) ** 2, axis=1)


def _bar_and_cross(layout: TwinLayout, here: NDArray[np.int64], later: NDArray[np.int64], power: Array) -> tuple[Array, Array]:
    """Return the power that the next column's interferometers, `later`, pass on as in bar and as in cross."""
    power = np.append(power, np.zeros((1, layout.ports)), axis=0)
    follows = np.full(layout.ports, 2)  # 2: no interferometer of this column
    for number, k in enumerate(here):
        follows[layout.top[k]] = number % 2
        if not layout.alone[k]:
            follows[layout.top[k] + 1] = number % 2
    t = layout.top[later]
    bar = power[follows[t], t] + power[follows[t + 1], t + 1]
    return bar, power[follows[t], t + 1] + power[follows[t + 1], t]


def _root(u: Array, rho: float) -> Array:
    """Return p that solves p · (1 + ρp) = u."""
    return 2 * u / (1 + np.sqrt(1 + 4 * rho * u))


def _minimum(function: Callable[[float], float], low: float, high: float, tolerance: float) -> tuple[float, float]:
    """Return the place and the value of the minimum of a function between two bounds."""
    found: Any = minimize_scalar(function, bounds=(low, high), method="bounded", options={"xatol": tolerance})
    return float(found.x), float(found.fun)
