"""Fit of the twin by Adam on batches of settings, for meshes with too many parameters for `twin_fit`.

References
----------
.. [1] D. P. Kingma and J. Ba, arXiv 1412.6980 (2015): Adam.
.. [2] C. Bekas et al., Applied Numerical Mathematics 57, 1214 (2007): the diagonal of a matrix from random vectors.
"""

from __future__ import annotations

import numpy as np

from photonloop.controller.calibration.fit_problem import FitProblem, TwinFit, predicted_all, result
from photonloop.controller.calibration.twin import Twin, adjoint_pass, forward_pass
from photonloop.controller.calibration.twin_misfit import huber_weights, model_error, prior_pull, residuals
from photonloop.controller.calibration.twin_parameters import Vector, filled, pack, unpack
from photonloop.controller.experiment import OptimizerSpec
from photonloop.controller.learning.optimizers import descend, fresh_moments, learning_rate

RATES: dict[str, float] = {
    "offset_rad": 1.0,
    "kappa": 0.06,
    "curvature": 0.02,
    "self_heating": 0.02,
    "crosstalk_share": 0.004,
    "crosstalk_exponent": 0.05,
    "heat_response": 0.004,
    "ground_ratio": 1e-4,
    "coupler_error_rad": 0.4,
    "loss_db": 0.05,
    "shifter_db": 0.05,
    "input_gain": 0.1,
    "input_phase_rad": 0.2,
    "input_leak": 0.05,
    "input_coupling": 0.02,
    "detector_gain": 0.1,
    "compression": 0.05,
    "detector_memory": 0.01,
}
"""Adam's step of each kind of parameters, relative to that of an offset."""

LEVEL_RATE, DARK_RATE = 0.1, 1e-5
"""The same for `level`, relative to its value, and for `detector_dark`, relative to full scale."""


def fit_descent(
    start: Twin,
    problem: FitProblem,
    rng: np.random.Generator,
    steps: int = 1500,
    rate_rad: float = 0.005,
    batch: int = 4,
    focus: int = 0,
) -> TwinFit:
    """Fit by Adam.

    Parameters
    ----------
    start
        The start. The basin is about 0.3 rad wide at 16 ports and 0.1 rad at 64 ports, per offset.
    problem
        What is fitted.
    rng
        Chooses the batches.
    steps
        Number of updates; the rate falls to 0 as a cosine.
    rate_rad
        Step of an offset at the start [rad]; `RATES` has those of the other kinds.
    batch
        Settings of one update.
    focus
        If given, every other batch is from the last settings, so many.

    Returns
    -------
        The fit. Standard deviations are those with all other parameters fixed, from an estimate of the diagonal of the
        normal matrix [2]_, so they are lower bounds.
    """
    twin = descended(start, problem, rng, steps, rate_rad, batch, focus)
    return result(twin, problem, _lower_bounds(twin, problem, rng), np.empty((0, 0)), steps)


def descended(
    start: Twin, problem: FitProblem, rng: np.random.Generator, steps: int, rate_rad: float, batch: int = 4, focus: int = 0
) -> Twin:
    """Return the twin after some updates by Adam.

    If `focus` is given, every other batch is from the last `focus` settings. Other arguments as for `fit_descent`.
    """
    twin, moments = start, fresh_moments(pack(start.parameters).size)
    spec, scale = OptimizerSpec(name="adam", rate=rate_rad, beta2=0.99), _step_sizes(start, problem)
    used, settings = max(1, int(np.isfinite(problem.data.readings).sum())), len(problem.data.phases)
    for step in range(steps):
        first = settings - focus if focus and step % 2 else 0
        some = first + rng.choice(settings - first, min(batch, settings - first), replace=False)
        slope = _slope(twin, problem.part(some)) + prior_pull(twin.parameters, problem.prior).slope / used
        change = descend(spec, moments, slope * scale, learning_rate(spec, step, steps)) * scale
        twin = Twin(twin.layout, unpack(twin.layout, pack(twin.parameters) + change))
    return twin


def _step_sizes(start: Twin, problem: FitProblem) -> Vector:
    rates = {**RATES, "level": LEVEL_RATE * start.parameters.level, "detector_dark": DARK_RATE * start.layout.full_scale}
    return np.where(pack(problem.prior.sigma) > 0, pack(filled(start.layout, **rates)), 0.0)


def _slope(twin: Twin, problem: FitProblem) -> Vector:
    """Return the gradient of Huber's loss per reading."""
    at = forward_pass(twin, problem.data.phases, problem.data.inputs)
    found = residuals(problem.measured, at.readings, model_error(problem.measured, at.readings))
    slopes = found.by_reading * found.z * huber_weights(found.z) / found.z.size
    return pack(adjoint_pass(twin, at, slopes).parameters)


def _lower_bounds(twin: Twin, problem: FitProblem, rng: np.random.Generator) -> Vector:
    """Return the standard deviation of each parameter with all others fixed: (Jᵀs)² has the diagonal of JᵀJ as mean."""
    tau = model_error(problem.measured, predicted_all(twin, problem.data))
    diagonal = prior_pull(twin.parameters, problem.prior).precision
    for setting in range(len(problem.data.phases)):
        part = problem.part(slice(setting, setting + 1))
        at = forward_pass(twin, part.data.phases, part.data.inputs)
        found = residuals(part.measured, at.readings, tau)
        signs = rng.choice([-1.0, 1.0], at.readings.shape)
        slopes = signs * found.by_reading * np.sqrt(huber_weights(found.z))
        diagonal = diagonal + pack(adjoint_pass(twin, at, slopes).parameters) ** 2
    free, sigma = problem.free, np.zeros(diagonal.size)
    sigma[free] = 1 / np.sqrt(diagonal[free])
    return sigma
