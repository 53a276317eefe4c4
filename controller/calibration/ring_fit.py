"""Fit of the model of a weight bank to readings, by Levenberg–Marquardt with exact derivatives.

A residual is z = (predicted - measured) / √(σ² + τ²), with the noise σ of the readings and the model error τ. τ is
estimated from the residuals, as in `twin_misfit`: large at the start of a fit, and 0 if the model describes the bank up
to noise. The loss is Huber's. Readings of a bank have a sign, so there are no square roots.

`fit_values` fits all values of `RingValues`. `fit_row` fits what every heater does to the rings of one row, beyond the
law of crosstalk: given the values that rows have in common, rows are independent, so that this takes one small fit per
row instead of a large one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.detector_memory import with_memory
from photonloop.controller.calibration.heater_phases import heater_phases
from photonloop.controller.calibration.ring_readings import (
    RingModel,
    predict_at,
    predict_readings,
    readings_and_jacobian,
    slopes_at,
)
from photonloop.controller.calibration.ring_values import RingPrior, ring_values, ring_vector
from photonloop.controller.calibration.twin_misfit import HUBER, Observations, ReadingNoise, huber_weights

Array = NDArray[np.float64]

READINGS_AT_ONCE = 8192
"""Readings whose derivatives are kept in memory at a time."""

SETTINGS_AT_ONCE = 64
"""Settings whose slopes are kept in memory at a time."""

PHASE_RAD = 1e-3
"""Standard deviation of the phase of a ring that the model cannot describe: 4 LSB of a 16-bit source at P_π."""

NORMAL_90 = 1.645
"""90th percentile of the absolute value of a standard normal variable."""

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e9

INFLUENCE = 0.3
"""Prior standard deviation of an influence, relative to that of the law of crosstalk."""

OFFSET_RAD, BUS_RAD, OWN_RAD = 0.1, 0.5, 0.1
"""Prior standard deviations of a ring's offset, of a phase between rings, and of a ring's phase at its own P_π."""


class RingFit(NamedTuple):
    """Result of a fit.

    Parameters
    ----------
    model
        The fitted model.
    sigma
        Standard deviations of what was fitted.
    model_error
        τ [unit of the readings].
    """

    model: RingModel
    sigma: Array
    model_error: float


@dataclass(frozen=True)
class _Unknowns:
    """What a fit changes, and how.

    Parameters
    ----------
    off
        From a model to the differences of the unknowns from their prior means.
    spread
        Prior standard deviations.
    moved
        From a model and a step of the unknowns to a model.
    predict
        From a model to the readings.
    derivatives
        From a model and some settings to readings, and their derivatives by the unknowns.
    """

    off: Callable[[RingModel], Array]
    spread: Array
    moved: Callable[[RingModel, Array], RingModel]
    predict: Callable[[RingModel], Array]
    derivatives: Callable[[RingModel, slice], tuple[Array, Array]]


class _Data(NamedTuple):
    readings: Array
    sigma: Array


def reading_sigma(model: RingModel, data: Observations, noise: ReadingNoise) -> Array:
    """Return the standard deviation of each reading, from its noise and from small changes of all ring phases.

    Voltages are not exact and rings drift. Where a weight is steep, this changes a reading by far more than noise does.
    """
    sigma, m = np.hypot(noise.dark, noise.relative * np.nan_to_num(data.readings)), model.layout.wavelengths
    for first in range(0, len(data.phases), SETTINGS_AT_ONCE):
        here = slice(first, first + SETTINGS_AT_ONCE)
        steep = slopes_at(model, model.ring_phases(data.phases[here]).reshape(-1, model.layout.rows, m), data.inputs).by_phase
        sigma[here] = np.hypot(sigma[here], PHASE_RAD * np.linalg.norm(steep, axis=-1))
    return sigma


def fit_values(
    start: RingModel, prior: RingPrior, data: Observations, sigma: Array, max_steps: int = 40, tolerance: float = 1e-5
) -> RingFit:
    """Fit all values whose prior standard deviation is not 0; `RingFit.sigma` has one number per value.

    Parameters
    ----------
    start
        The start: every ring should be right within half a linewidth.
    prior, data, sigma
        Prior, readings (NaN: not to be used), and their standard deviations. Inputs have shape (samples, M).
    max_steps, tolerance
        The fit ends after this many steps, or if the objective falls by a smaller part of itself twice in a row.
    """
    mean, spread = ring_vector(prior.mean), ring_vector(prior.sigma)
    free = np.flatnonzero(spread > 0)

    def moved(model: RingModel, step: Array) -> RingModel:
        vector = ring_vector(model.values)
        vector[free] += step
        return replace(model, values=ring_values(model.layout, vector))

    def derivatives(model: RingModel, here: slice) -> tuple[Array, Array]:
        readings, jacobian = readings_and_jacobian(model, data.phases[here], data.inputs)
        return readings, jacobian[..., free]

    unknowns = _Unknowns(
        off=lambda model: (ring_vector(model.values) - mean)[free],
        spread=spread[free],
        moved=moved,
        predict=lambda model: predict_readings(model, data.phases, data.inputs),
        derivatives=derivatives,
    )
    fit = _fit(start, unknowns, _Data(data.readings, sigma), max_steps, tolerance)
    found = np.zeros(spread.size)
    found[free] = fit.sigma
    return fit._replace(sigma=found)


def fit_row(start: RingModel, row: int, data: Observations, sigma: Array, max_steps: int = 8) -> RingFit:
    """Fit offsets, phases between rings, and the influence of every heater on the rings of one row.

    Parameters
    ----------
    start
        A fitted model.
    row
        Number of the row.
    data, sigma
        Readings of all rows, and their standard deviations.
    max_steps
        Largest number of steps.

    Returns
    -------
        The fit; `RingFit.sigma` has the standard deviations of the row's part of `RingModel.influence_rad`.
    """
    layout, m = start.layout, start.layout.wavelengths
    rings = slice(row * m, (row + 1) * m)
    heaters = heater_phases(layout.heaters, start.values.heaters(layout), start.crosstalk, data.phases)
    law = np.pi * start.values.crosstalk_share * start.crosstalk.unit.toarray()[rings]
    spread = np.maximum(INFLUENCE * law, 1e-5)
    spread[np.arange(m), rings.start + np.arange(m)] = OWN_RAD

    def off(model: RingModel) -> Array:
        return np.concatenate((np.zeros(m), model.influence_rad[rings].ravel(), np.zeros(m - 1)))

    def moved(model: RingModel, step: Array) -> RingModel:
        influence, offset, bus = model.influence_rad.copy(), model.values.offset_rad.copy(), model.values.bus_rad.copy()
        offset[rings] += step[:m]
        influence[rings] += step[m : m + spread.size].reshape(spread.shape)
        bus[row] += step[m + spread.size :]
        return replace(model, values=replace(model.values, offset_rad=offset, bus_rad=bus), influence_rad=influence)

    def phases(model: RingModel, here: slice) -> Array:
        added = model.values.offset_rad[rings] - start.values.offset_rad[rings]
        return heaters.effective[here, rings] + added + heaters.q[here] @ model.influence_rad[rings].T

    def derivatives(model: RingModel, here: slice) -> tuple[Array, Array]:
        found, kept = slopes_at(model.row(row), phases(model, here), data.inputs), model.values.kept
        by_phase, by_bus = with_memory(found.by_phase[:, :, 0], kept), with_memory(found.by_bus[:, :, 0, :-1], kept)
        by_influence = by_phase[..., np.newaxis] * heaters.q[here, np.newaxis, np.newaxis]
        parts = (by_phase, by_influence.reshape(*by_phase.shape[:2], -1), by_bus)
        return with_memory(found.readings, kept), np.concatenate(parts, axis=-1)[:, :, np.newaxis]

    unknowns = _Unknowns(
        off=off,
        spread=np.concatenate((np.full(m, OFFSET_RAD), spread.ravel(), np.full(m - 1, BUS_RAD))),
        moved=moved,
        predict=lambda model: predict_at(model.row(row), phases(model, slice(None)), data.inputs),
        derivatives=derivatives,
    )
    fit = _fit(start, unknowns, _Data(data.readings[..., row : row + 1], sigma[..., row : row + 1]), max_steps, 1e-4)
    return fit._replace(sigma=fit.sigma[m : m + spread.size].reshape(spread.shape))


def _fit(start: RingModel, unknowns: _Unknowns, data: _Data, max_steps: int, tolerance: float) -> RingFit:
    model, damping, calm = start, FIRST_DAMPING, 0
    predicted = unknowns.predict(model)
    tau = _model_error(data, predicted)
    matrix, slope = _equations(model, unknowns, data, tau)
    for _ in range(max_steps):
        value = _objective(model, unknowns, data, predicted, tau)
        step = _step(model, unknowns, data, tau, (matrix, slope, value), damping)
        if step is None:
            break
        model, reached, predicted, damping = step
        before, tau = tau, min(tau, _model_error(data, predicted))
        calm = calm + 1 if value - reached <= tolerance * value and tau >= 0.99 * before else 0
        matrix, slope = _equations(model, unknowns, data, tau)
        if calm == 2:
            break
    return RingFit(model, np.sqrt(np.diag(np.linalg.inv(matrix))), tau)


def _step(
    model: RingModel, unknowns: _Unknowns, data: _Data, tau: float, equations: tuple[Array, Array, float], damping: float
) -> tuple[RingModel, float, Array, float] | None:
    """Return the model, objective, readings and next damping of the first step that lowers the objective, or None."""
    matrix, slope, value = equations
    while damping < MOST_DAMPING:
        step = np.linalg.solve(matrix + np.diag(damping * np.diag(matrix)), -slope)
        tried = unknowns.moved(model, step.astype(np.float64))
        with np.errstate(all="ignore"):  # a step may lead out of the range of the model
            predicted = unknowns.predict(tried)
            reached = _objective(tried, unknowns, data, predicted, tau)
        if np.isfinite(reached) and reached <= value:
            return tried, reached, predicted, max(damping / 5, LEAST_DAMPING)
        damping *= 4
    return None


def _residuals(data: _Data, predicted: Array, tau: float, settings: slice = slice(None)) -> Array:
    measured = data.readings[settings]
    return np.where(np.isfinite(measured), (predicted - measured) / np.hypot(data.sigma[settings], tau), 0.0)


def _objective(model: RingModel, unknowns: _Unknowns, data: _Data, predicted: Array, tau: float) -> float:
    size, pull = np.abs(_residuals(data, predicted, tau)), unknowns.off(model) / unknowns.spread
    return float(np.where(size <= HUBER, 0.5 * size**2, HUBER * (size - 0.5 * HUBER)).sum() + 0.5 * np.sum(pull**2))


def _equations(model: RingModel, unknowns: _Unknowns, data: _Data, tau: float) -> tuple[Array, Array]:
    """Return the normal matrix and the slope of the objective."""
    matrix, slope = np.diag(unknowns.spread**-2.0), unknowns.off(model) / unknowns.spread**2
    at_once = max(1, READINGS_AT_ONCE // data.readings[0].size)
    for first in range(0, len(data.readings), at_once):
        here = slice(first, first + at_once)
        predicted, jacobian = unknowns.derivatives(model, here)
        z = _residuals(data, predicted, tau, here)
        weights = np.sqrt(huber_weights(z)) * np.isfinite(data.readings[here])
        rows = jacobian.reshape(z.size, -1) * (weights / np.hypot(data.sigma[here], tau)).reshape(-1, 1)
        matrix += rows.T @ rows
        slope = slope + rows.T @ (weights * z).ravel()
    return matrix, slope


def _model_error(data: _Data, predicted: Array) -> float:
    """Return τ from the 90th percentile of the differences: a wrong row must not count as outliers."""
    difference = np.abs(predicted - data.readings)
    if not np.nanquantile(difference / data.sigma, 0.9) > 1.1 * NORMAL_90:
        return 0.0
    excess = float(np.nanquantile(difference, 0.9) / NORMAL_90) ** 2 - float(np.median(data.sigma)) ** 2
    return float(np.sqrt(max(excess, 0.0)))
