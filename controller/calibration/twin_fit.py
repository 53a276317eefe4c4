"""Fit of the twin by Levenberg–Marquardt, for meshes of up to about 16 ports.

The normal matrix is added up over settings, so the Jacobian of all readings is never in memory: at 16 ports and 200
settings of 16 samples it would take 0.5 GB. `scipy.optimize.least_squares` would need all of it.

References
----------
.. [1] D. W. Marquardt, J. Soc. Indust. Appl. Math. 11, 431 (1963): the damping, relative to the diagonal.
.. [2] P. J. Huber, Ann. Math. Statist. 35, 73 (1964): the loss, by iteratively reweighted least squares.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from photonloop.controller.calibration.fit_problem import FitProblem, TwinFit, predicted_all, result
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_jacobian import readings_jacobian
from photonloop.controller.calibration.twin_misfit import Array, huber_weights, model_error, prior_pull, residuals, scale_of
from photonloop.controller.calibration.twin_parameters import Vector, pack, slices, unpack

FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 1e-2, 1e-9, 1e9


class NormalEquations(NamedTuple):
    """Normal matrix and slope of the objective for the free parameters, and the objective itself."""

    matrix: Array
    slope: Vector
    value: float


class DampedStep(NamedTuple):
    """A step that lowered the objective, by `gain`, the readings behind it, and the damping for the next one."""

    twin: Twin
    predicted: Array
    gain: float
    damping: float


def fit_least_squares(start: Twin, problem: FitProblem, max_steps: int = 60, tolerance: float = 1e-6) -> TwinFit:
    """Fit by Levenberg–Marquardt with exact derivatives.

    Parameters
    ----------
    start
        The start. Offsets should be right within about 0.3 rad.
    problem
        What is fitted.
    max_steps
        Largest number of steps.
    tolerance
        The fit ends if the objective falls by a smaller part of itself twice in a row.

    Returns
    -------
        The fit. Standard deviations are those of the posterior, from the normal matrix.
    """
    twin, damping, calm, steps = start, FIRST_DAMPING, 0, 0
    tau = model_error(problem.measured, predicted_all(twin, problem.data))
    equations = normal_equations(twin, problem, tau)
    while calm < 2 and steps < max_steps:
        step = _damped_step(twin, problem, tau, equations, damping)
        if step is None:
            break
        steps += 1
        twin, damping, before = step.twin, step.damping, tau
        # The model error only falls, so that the objective does not change back and forth.
        tau = min(tau, model_error(problem.measured, step.predicted))
        calm = calm + 1 if step.gain <= tolerance * equations.value and tau >= 0.99 * before else 0
        equations = normal_equations(twin, problem, tau)
    sigma = np.zeros(pack(problem.prior.sigma).size)
    covariance = np.linalg.inv(equations.matrix).astype(np.float64)
    sigma[problem.free] = np.sqrt(np.diag(covariance))
    return result(twin, problem, sigma, covariance, steps)


def normal_equations(twin: Twin, problem: FitProblem, tau: float) -> NormalEquations:
    """Return the normal equations at `twin` for the model error `tau`.

    Derivatives by `heat_response` are products of those by effective phases and of components of the heat, which are
    the same for all readings of a setting. Their part of the matrix is a sum of Kronecker products.
    """
    data, parts = problem.data, slices(twin.layout)
    pull, inside = prior_pull(twin.parameters, problem.prior), parts["heat_response"]
    others = problem.free[(problem.free < inside.start) | (problem.free >= inside.stop)]
    matrix, slope, value = np.diag(pull.precision), pull.slope.copy(), pull.value
    count, channels = others.size, twin.layout.channels
    across = np.zeros((count, channels, twin.layout.heat_components.shape[1]))
    squares, heats = [], []
    for setting in range(len(data.phases)):
        at = readings_jacobian(twin, data.phases[setting], data.inputs_of(setting))
        found = residuals(scale_of(problem.measured, setting), at.readings[np.newaxis], tau)
        value += float(found.loss.sum())
        weights = np.sqrt(huber_weights(found.z)).ravel()
        weighted = np.concatenate((at.by_parameters[:, others], at.by_effective), axis=1)
        weighted *= (weights * found.by_reading.ravel())[:, np.newaxis]
        product, by_z = weighted.T @ weighted, weighted.T @ (weights * found.z.ravel())
        matrix[np.ix_(others, others)] += product[:count, :count]
        slope[others] += by_z[:count]
        slope[inside] += np.outer(by_z[count:], at.heat).ravel()
        across += product[:count, count:, np.newaxis] * at.heat
        squares.append(product[count:, count:].ravel())
        heats.append(np.outer(at.heat, at.heat).ravel())
    if across.size:
        square = (np.array(squares).T @ np.array(heats)).reshape(channels, channels, *across.shape[2:], across.shape[2])
        matrix[inside, inside] += square.transpose(0, 2, 1, 3).reshape(channels * across.shape[2], -1)
        matrix[others, inside] = across.reshape(count, -1)
        matrix[inside, others] = across.reshape(count, -1).T
    free = problem.free
    return NormalEquations(matrix[np.ix_(free, free)], slope[free], value)


def _damped_step(twin: Twin, problem: FitProblem, tau: float, equations: NormalEquations, damping: float) -> DampedStep | None:
    """Return the first step that lowers the objective, with the damping increased until one does; None if none does."""
    vector, diagonal = pack(twin.parameters), np.diag(equations.matrix)
    while damping < MOST_DAMPING:
        moved = vector.copy()
        moved[problem.free] -= np.linalg.solve(equations.matrix + np.diag(damping * diagonal), equations.slope)
        tried = Twin(twin.layout, unpack(twin.layout, moved))
        with np.errstate(all="ignore"):  # a step may lead out of the range of the model
            predicted = predicted_all(tried, problem.data)
            value = problem.objective(tried, predicted, tau)
        if np.isfinite(value) and value <= equations.value:
            return DampedStep(tried, predicted, equations.value - value, max(damping / 5, LEAST_DAMPING))
        damping *= 4
    return None
