"""Programming of a weight bank: nominal heater phases for wanted weights, with the least heat.

1. The phases of a row's rings from its weights, by damped Newton steps on the fitted model. A weight belongs to two
   phases, on either side of the resonance, so the steps start from many combinations of sides.
2. Of all combinations that reach the weights, the one that takes the least heat within the bounds.
3. Nominal heater phases for the phases of all rings, by Newton steps on the model of the heaters with crosstalk.
   Heaters can only heat, so a ring that would have to be cooled gets 2π more, and the phases of its row are found
   again: light takes half a round trip through a ring, so 2π more change the sign of the field that it drops.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photonloop.controller.calibration.calibrated_device import RingCalibration
from photonloop.controller.calibration.heater_phases import heater_phases, phases_adjoint
from photonloop.controller.calibration.ring_fields import ring_amplitudes
from photonloop.controller.calibration.ring_readings import RingModel
from photonloop.controller.learning.variables import Bounds

Array = NDArray[np.float64]

MOST_STARTS = 128
"""Combinations of sides that are tried for each row."""

ROW_STEPS, HEATER_STEPS = 40, 30
"""Newton steps for the phases of rings, and for those of heaters."""

REACHED = 1e-3
"""Rms error of a row's weights up to which a combination counts as reaching them."""

FURTHEST_RAD = 0.2
"""Longest step of a ring's phase, about a linewidth."""


def program_weights(found: RingCalibration, weights: ArrayLike, bounds: Bounds) -> Array:
    """Return nominal heater phases [rad], shape (channels,), at which a bank has the given weights.

    Parameters
    ----------
    found
        Calibration of the bank.
    weights
        Wanted weights, shape (N, M). If they are out of reach, the phases are those of the closest weights that were
        found. `RingCalibration.weights` returns what is expected at them.
    bounds
        Bounds of the nominal heater phases.

    Raises
    ------
    ValueError
        The weights have another shape or are not in [-1, 1], or the bounds leave too little power.
    """
    layout, wanted = found.layout, np.asarray(weights, np.float64)
    if wanted.shape != (layout.rows, layout.wavelengths):
        raise ValueError(
            f"the weights have shape {wanted.shape}, but {found.stage.name} has {layout.rows} rows of {layout.wavelengths} "
            f"rings: give an array of shape ({layout.rows}, {layout.wavelengths})"
        )
    if not np.all(np.abs(wanted) <= 1):  # also if one is NaN
        raise ValueError(f"the weights range from {wanted.min():.4g} to {wanted.max():.4g}: scale them to [-1, 1]")
    model, floor = found.model, _floor(found.model, bounds)
    starts = floor + np.mod(_starts(model, wanted) - floor, 2 * np.pi)
    phase_rad, error = ring_phases_for(model, wanted, starts)
    chosen = _least_heat(phase_rad, error, floor, (bounds.high - bounds.low).reshape(floor.shape))
    nominal = nominal_for(model, chosen.ravel())
    for _ in range(layout.channels):
        cold = (nominal < bounds.low).reshape(chosen.shape)
        if not cold.any():
            break
        again = ring_phases_for(model, wanted, (chosen + 2 * np.pi * cold)[np.newaxis])[0][0]
        chosen = np.where(cold.any(axis=1, keepdims=True), again, chosen).astype(np.float64)
        nominal = nominal_for(model, chosen.ravel())
    nominal = np.clip(nominal, bounds.low, bounds.high)
    if nominal.sum() > bounds.total:
        raise ValueError(
            f"the weights take nominal heater phases of {nominal.sum():.4g} rad together, but the limit of the total power is "
            f"{bounds.total:.4g} rad: raise it"
        )
    return nominal


def ring_phases_for(model: RingModel, weights: Array, starts: Array) -> tuple[Array, Array]:
    """Return ring phases for wanted weights, and the rms error of each row's weights.

    Parameters
    ----------
    model
        The model.
    weights
        Wanted weights, shape (N, M).
    starts
        Ring phases that are tried as starts, shape (starts, N, M).

    Returns
    -------
        Phases, (starts, N, M), and errors, (starts, N).
    """
    phase_rad = starts
    residual, jacobian = _weight_errors(model, phase_rad, weights)
    damping = np.full(residual.shape[:2], 1e-3)
    unit = np.eye(weights.shape[1])
    for _ in range(ROW_STEPS):
        transposed = np.swapaxes(jacobian, 2, 3)
        normal = transposed @ jacobian + (damping[..., np.newaxis, np.newaxis] + 1e-12) * unit
        step = -np.linalg.solve(normal, transposed @ residual[..., np.newaxis])[..., 0]
        longest = np.abs(step).max(axis=2, keepdims=True)
        tried = phase_rad + step * np.minimum(1.0, FURTHEST_RAD / np.maximum(longest, 1e-300))
        after, after_jacobian = _weight_errors(model, tried, weights)
        better = np.sum(after**2, axis=2) <= np.sum(residual**2, axis=2)
        phase_rad = np.where(better[..., np.newaxis], tried, phase_rad)
        residual = np.where(better[..., np.newaxis], after, residual)
        jacobian = np.where(better[..., np.newaxis, np.newaxis], after_jacobian, jacobian)
        damping = np.where(better, damping / 5, np.maximum(damping, 1e-6) * 8)
    return phase_rad, np.sqrt(np.mean(residual**2, axis=2))


def nominal_for(model: RingModel, phase_rad: Array) -> Array:
    """Return nominal heater phases, (channels,), for ring phases, (channels,); negative if a ring has to be cooled."""
    layout = model.layout
    nominal, slope = np.full(layout.channels, np.pi), _heater_slope(model, np.full(layout.channels, np.pi))
    for _ in range(HEATER_STEPS):
        heated = np.maximum(nominal, 0.0)
        # Below 0, where there is no heat, the model is continued in proportion.
        missing = phase_rad - model.ring_phases(heated[np.newaxis])[0] - slope @ (nominal - heated)
        if np.abs(missing).max() < 1e-10:
            break
        nominal = nominal + np.linalg.solve(slope, missing)
    return nominal


def _heater_slope(model: RingModel, nominal: Array) -> Array:
    """Return the derivatives of ring phases by nominal heater phases at one setting, shape (channels, channels)."""
    layout, own = model.layout, model.values.heaters(model.layout)
    at = heater_phases(layout.heaters, own, model.crosstalk, nominal[np.newaxis])
    by_x = phases_adjoint(layout.heaters, own, model.crosstalk, at, np.eye(layout.channels)).by_x
    return by_x + model.influence_rad / np.pi


def _floor(model: RingModel, bounds: Bounds) -> Array:
    """Return the phase of each ring if it is not heated and all others have half of P_2π, shape (N, M)."""
    heated = np.full(model.layout.channels, np.pi)
    slope = _heater_slope(model, heated)
    others = slope - np.diag(np.diag(slope))
    cold = model.ring_phases(bounds.low[np.newaxis])[0]
    return (cold + others @ (heated - bounds.low)).reshape(model.layout.rows, -1)


def _starts(model: RingModel, weights: Array) -> Array:
    """Return ring phases of independent rings with these weights, for combinations of sides, shape (starts, N, M)."""
    own, (rows, m) = model.values, weights.shape
    detuning = np.linspace(0.0, np.pi, 400)
    ring = ring_amplitudes(detuning, own.coupler_share, own.round_trip_db)
    curve = np.abs(ring.d) ** 2 - np.abs(ring.t) ** 2
    size = np.interp(-weights, -curve, detuning)
    sides = np.array(list(itertools.product((1.0, -1.0), repeat=m))) if 2**m <= MOST_STARTS else _some_sides(m)
    return size * sides[:, np.newaxis] - own.wavelength_rad * np.ones((rows, 1))


def _some_sides(m: int) -> Array:
    """Return fixed random combinations of sides."""
    return np.random.default_rng(m).choice((1.0, -1.0), (MOST_STARTS, m))


def _weight_errors(model: RingModel, phase_rad: Array, weights: Array) -> tuple[Array, Array]:
    found = model.shares(phase_rad)
    return found.dropped - found.passed - weights, found.by_ring[0] - found.by_ring[1]


def _least_heat(phase_rad: Array, error: Array, floor: Array, widest: Array) -> Array:
    """Return the ring phases, (N, M), with the least heat for each row; `widest`: range of the heaters."""
    heat = phase_rad - floor
    within = np.all((heat >= 0) & (heat <= widest), axis=2)
    error = np.where(within, error, error + 2.0)
    total = np.where(error <= np.maximum(error.min(axis=0), REACHED), heat.sum(axis=2), np.inf)
    return phase_rad[np.argmin(total, axis=0), np.arange(floor.shape[0])]
