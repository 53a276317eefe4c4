"""First values of a weight bank, from sweeps of all rings.

Ring m of every row is swept at once, for m = 0 … M-1, with one wavelength lit at a time. Within a sweep, the reading of
wavelength k is a constant plus a Lorentzian in the phase of the ring,

    R_k = A_k + B_k / (1 + (2F/π)² sin²(ψ_k / 2)),   ψ_k = offset + y(κx) + λ_k,   B_k ≥ 0

with the finesse F and the phase λ_k of the wavelength [1]_. For given F, κ and offset, the best A and B have a closed
form, so a grid is searched. A ring that was swept is parked half way between two wavelengths, where it disturbs the
sweeps of the others least.

References
----------
.. [1] A. N. Tait et al., "Multi-channel control for microring weight banks", Opt. Express 24, 8895 (2016).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_scans import HeaterCurve
from photonloop.controller.calibration.ring_layout import RingLayout
from photonloop.controller.learning.variables import Bounds

Array = NDArray[np.float64]

Read = Callable[[Array, Array], Array]
"""From nominal heater phases, (settings, channels), and inputs, (samples, M), to readings, (settings, samples, N)."""

FINESSES = (8.0, 12.0, 18.0, 27.0, 40.0, 60.0)
"""Finesses that are tried."""

KAPPAS = tuple(np.arange(0.92, 1.15, 0.02).tolist())
"""κ that are tried. The same ring of other rows is swept too, and its heat makes κ seem larger."""

OFFSETS = 180
"""Offsets that are tried, over 2π."""

WIDEST_RAD = 1.08 * 2 * np.pi
"""Range of a sweep, if the limits allow it: all resonances, for every κ."""


@dataclass(frozen=True)
class RingScan:
    """First values of all rings.

    Parameters
    ----------
    offset_rad, kappa
        Of each ring, shape (channels,); offsets are those for wavelength 0.
    explained
        Share of the variance of each sweep that the Lorentzians explain, shape (channels,).
    response
        Largest B of each sweep relative to `level`, shape (channels,).
    finesse
        Of all rings.
    wavelength_rad
        λ, shape (M,).
    level
        Reading for all light of a wavelength in one detector.
    dark
        Reading without light, shape (N,).
    parked
        Nominal heater phases with all rings half way between wavelengths, shape (channels,).
    """

    offset_rad: Array
    kappa: Array
    explained: Array
    response: Array
    finesse: float
    wavelength_rad: Array
    level: float
    dark: Array
    parked: Array


def one_at_a_time(wavelengths: int) -> Array:
    """Return the inputs of sweeps, shape (M + 1, M): none lit, then each one alone."""
    return np.concatenate((np.zeros((1, wavelengths)), np.eye(wavelengths)))


def scan_rings(layout: RingLayout, read: Read, curve: HeaterCurve, bounds: Bounds, points: int) -> RingScan:
    """Return first values of all rings from M sweeps of `points` settings.

    Parameters
    ----------
    layout, curve, bounds
        The bank, the curve of its heaters, and the bounds of its nominal heater phases.
    read
        Reads settings.
    points
        Settings of a sweep: at least 1.5 times the finesse, so that no resonance is missed.
    """
    count, m = layout.channels, layout.wavelengths
    low = float(bounds.low.max())
    swept = np.linspace(low, min(low + WIDEST_RAD, float(bounds.high.min())), points)
    shapes = _shapes(swept, curve)
    x, readings = np.full(count, low), np.empty((m, points, m, layout.rows))
    dark = np.zeros(layout.rows)
    for ring in (*range(m), *range(m)):
        channels = ring + m * np.arange(layout.rows)
        settings = np.tile(x, (points, 1))
        settings[:, channels] = swept[:, np.newaxis]
        found = read(settings, one_at_a_time(m))
        dark += found[:, 0].mean(axis=0) / (2 * m)
        readings[ring] = found[:, 1:] - found[:, :1]
        for row, channel in enumerate(channels):
            guesses = [_guess(readings[ring, :, :, row], shape, order) for shape in shapes for order in _orders(m)]
            x[channel] = _between(max(guesses, key=lambda guess: guess.score), swept, curve)
    return _together(layout, readings, shapes, dark, x)


@dataclass(frozen=True)
class _Guess:
    score: float
    offset_rad: float
    kappa: float
    finesse: float
    wavelength_rad: Array


def _orders(m: int) -> tuple[Array, Array]:
    """Return λ for wavelengths whose number increases, or decreases, with optical frequency."""
    apart: Array = 2 * np.pi / m * np.arange(float(m))
    return apart, -apart


@dataclass(frozen=True)
class _Shapes:
    """Lorentzians of a finesse, without mean and of norm 1, for all κ and offsets, shape (κ, offsets, points)."""

    finesse: float
    values: Array


def _shapes(swept: Array, curve: HeaterCurve) -> list[_Shapes]:
    """Return the Lorentzians of all finesses."""
    offsets = 2 * np.pi / OFFSETS * np.arange(float(OFFSETS))
    found = []
    for finesse in FINESSES:
        phase = curve.phase(np.outer(KAPPAS, swept))[:, np.newaxis] + offsets[:, np.newaxis]
        shape = 1 / (1 + (2 * finesse / np.pi * np.sin(phase / 2)) ** 2)
        shape -= shape.mean(axis=2, keepdims=True)
        found.append(_Shapes(finesse, shape / np.linalg.norm(shape, axis=2, keepdims=True)))
    return found


def _guess(signal: Array, shapes: _Shapes, wavelength_rad: Array) -> _Guess:
    """Return the best offset and κ of one ring for readings (points, M) of its sweep."""
    matched = np.maximum(shapes.values @ (signal - signal.mean(axis=0)), 0.0) ** 2
    step = np.rint(wavelength_rad * (OFFSETS / (2 * np.pi))).astype(np.int64)
    score = np.sum([np.roll(matched[..., k], -step[k], axis=1) for k in range(step.size)], axis=0)
    kappa, offset = np.unravel_index(int(np.argmax(score)), score.shape)
    return _Guess(float(score[kappa, offset]), 2 * np.pi / OFFSETS * float(offset), KAPPAS[kappa], shapes.finesse, wavelength_rad)


def _between(guess: _Guess, swept: Array, curve: HeaterCurve) -> float:
    """Return the smallest heat at which a ring is about as far from all wavelengths as it can be."""
    phase = guess.offset_rad + curve.phase(guess.kappa * swept)[:, np.newaxis] + guess.wavelength_rad
    far = np.min(np.abs(np.sin(phase / 2)), axis=1)
    return float(swept[int(np.argmax(far > 0.95 * far.max()))])


def _together(layout: RingLayout, readings: Array, shapes: list[_Shapes], dark: Array, parked: Array) -> RingScan:
    """Return the values for the finesse and the order of wavelengths that describe all sweeps best."""
    m = layout.wavelengths
    signals = [readings[channel % m, :, :, channel // m] for channel in range(layout.channels)]
    tried = [[_guess(signal, shape, order) for signal in signals] for shape in shapes for order in _orders(m)]
    guesses = max(tried, key=lambda each: sum(guess.score for guess in each))
    level = float(-np.median(np.min(readings, axis=1)))
    variance = [float(np.sum((signal - signal.mean(axis=0)) ** 2)) for signal in signals]
    return RingScan(
        offset_rad=np.array([guess.offset_rad for guess in guesses]),
        kappa=np.array([guess.kappa for guess in guesses]),
        explained=np.array([guess.score / max(own, 1e-300) for guess, own in zip(guesses, variance, strict=True)]),
        response=np.array([float(np.ptp(signal, axis=0).max()) for signal in signals]) / level,
        finesse=guesses[0].finesse,
        wavelength_rad=guesses[0].wavelength_rad,
        level=level,
        dark=dark,
        parked=parked,
    )
