"""Misfit between measured readings and those of a twin, on the scale of their square roots.

The square root of a reading is proportional to a field. On this scale weak and strong readings count alike, and a model
that is far from the chip has bounded residuals. A residual is

    z = (√(predicted - dark + ε) - √(measured - dark + ε)) / √(σ² + τ²)

with the standard deviation σ of the measured square root from the noise of the readings, and the model error τ. τ is
estimated from the residuals themselves: large at the start of a fit, and 0 if the twin describes the chip up to noise.
ε keeps the square root linear in the noise of dark readings. The loss is Huber's, quadratic up to |z| = HUBER.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, Vector, pack

Array = NDArray[np.float64]

HUBER = 3.0
"""|z| beyond which the loss is linear."""

SOFTENING = 16.0
"""ε divided by the noise of a dark reading: the bias of a square root is 1/64 of its standard deviation."""

NORMAL_MAD = 1.4826
"""Standard deviation of a normal distribution divided by its median absolute deviation."""


@dataclass(frozen=True)
class Observations:
    """Settings and what was read at them.

    Parameters
    ----------
    phases
        Nominal heater phases [rad], shape (settings, channels).
    inputs
        Amplitudes, shape (samples, ports), or (settings, samples, ports).
    readings
        Readings, shape (settings, samples, taps). NaN: not to be used.
    """

    phases: Array
    inputs: NDArray[np.inexact]
    readings: Array

    def part(self, settings: NDArray[np.int64] | slice) -> Observations:
        """Return the observations of some settings."""
        inputs = self.inputs[settings] if self.inputs.ndim == 3 else self.inputs
        return replace(self, phases=self.phases[settings], inputs=inputs, readings=self.readings[settings])

    def inputs_of(self, setting: int) -> NDArray[np.inexact]:
        """Return the inputs of one setting, shape (samples, ports)."""
        return self.inputs[setting] if self.inputs.ndim == 3 else self.inputs


@dataclass(frozen=True)
class ReadingNoise:
    """Standard deviation of a reading R: √(dark² + (relative · R)²).

    Parameters
    ----------
    dark
        Of a reading without light [unit of the readings], larger than 0.
    relative
        Of the laser power and of everything else in proportion to the reading.
    """

    dark: float
    relative: float = 1e-3


class RootScale(NamedTuple):
    """Measured readings on the scale of their square roots.

    Parameters
    ----------
    roots
        √(measured - dark + ε); NaN if the reading is not to be used.
    sigma
        Its standard deviation.
    shift
        What is subtracted from readings before the square root, dark - ε, shape (taps,).
    least
        Smallest argument of the square root.
    """

    roots: Array
    sigma: Array
    shift: Array
    least: float


class Residuals(NamedTuple):
    """Residuals of predicted readings, all of the shape of the readings.

    Parameters
    ----------
    z
        The residuals; 0 for readings that are not to be used.
    by_reading
        Derivative of z by the predicted reading; 0 likewise.
    loss
        Huber's loss of each.
    """

    z: Array
    by_reading: Array
    loss: Array


class PriorPull(NamedTuple):
    """½ Σ ((parameter - mean)/σ)², its gradient, and 1/σ² of each parameter."""

    value: float
    slope: Vector
    precision: Vector


def root_scale(readings: Array, dark: Vector, noise: ReadingNoise) -> RootScale:
    """Return readings on the scale of their square roots; `dark`: assumed dark reading of each detector, (taps,)."""
    shift, least = dark - SOFTENING * noise.dark, SOFTENING * noise.dark / 4
    roots = np.sqrt(np.maximum(readings - shift, least))
    return RootScale(roots, np.hypot(noise.dark, noise.relative * readings) / (2 * roots), shift, least)


def scale_of(measured: RootScale, setting: int) -> RootScale:
    """Return the readings of one setting, shape (1, samples, taps)."""
    here = slice(setting, setting + 1)
    return measured._replace(roots=measured.roots[here], sigma=measured.sigma[here])


def model_error(measured: RootScale, predicted: Array) -> float:
    """Return τ, the robust standard deviation of the differences that noise does not explain."""
    difference = np.abs(_roots(measured, predicted) - measured.roots)
    ratio = NORMAL_MAD * float(np.nanmedian(difference / measured.sigma))
    if not ratio > 1.1:
        return 0.0
    excess = (NORMAL_MAD * float(np.nanmedian(difference))) ** 2 - float(np.nanmedian(measured.sigma)) ** 2
    return float(np.sqrt(max(excess, 0.0)))


def residuals(measured: RootScale, predicted: Array, tau: float) -> Residuals:
    """Return the residuals of `predicted` readings for a model error `tau`."""
    roots = _roots(measured, predicted)
    usable = np.isfinite(measured.roots)
    sigma = np.sqrt(measured.sigma**2 + tau**2)
    z = np.where(usable, (roots - measured.roots) / sigma, 0.0)
    by_reading = np.where(usable & (roots**2 > measured.least), 0.5 / (roots * sigma), 0.0)
    size = np.abs(z)
    return Residuals(z, by_reading, np.where(size <= HUBER, 0.5 * z**2, HUBER * (size - 0.5 * HUBER)))


def huber_weights(z: Array) -> Array:
    """Return the derivative of the loss by z, divided by z."""
    return np.minimum(1.0, HUBER / np.maximum(np.abs(z), HUBER))


def relative_misfit(observed: Array, predicted: Array, dark: Vector) -> Array:
    """Return the rms difference of square roots per setting, relative to the rms square root of all readings.

    About the relative error of a field; all arguments as in `residuals`, the result has shape (settings,).
    """
    measured, modelled = np.maximum(observed - dark, 0.0), np.maximum(predicted - dark, 0.0)
    difference = np.sqrt(modelled) - np.sqrt(measured)
    return np.sqrt(np.nanmean(difference**2, axis=(1, 2)) / np.nanmean(measured))


def prior_pull(parameters: TwinParameters, prior: TwinPrior) -> PriorPull:
    """Return the prior's part of the objective; fixed parameters, σ = 0, count as 0."""
    sigma = pack(prior.sigma)
    precision = np.where(sigma > 0, 1.0 / np.where(sigma > 0, sigma, 1.0) ** 2, 0.0)
    off = pack(parameters) - pack(prior.mean)
    return PriorPull(0.5 * float(precision @ off**2), precision * off, precision)


def _roots(measured: RootScale, predicted: Array) -> Array:
    return np.sqrt(np.maximum(predicted - measured.shift, measured.least))
