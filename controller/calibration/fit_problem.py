"""Objective and result of a fit of the twin."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from photonloop.controller.calibration.twin import Twin, predict
from photonloop.controller.calibration.twin_misfit import (
    Array,
    Observations,
    ReadingNoise,
    RootScale,
    model_error,
    prior_pull,
    relative_misfit,
    residuals,
    root_scale,
)
from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, Vector, pack, unpack

SETTINGS = 16
"""Settings of one forward pass."""


@dataclass(frozen=True)
class FitProblem:
    """Observations to be described, and the prior: the objective is Huber's loss of all residuals plus the prior's.

    Parameters
    ----------
    prior
        The prior; parameters with σ = 0 keep their start.
    data
        What was read.
    noise
        Noise of the readings.
    held_out
        Further observations to test the fit with.
    """

    prior: TwinPrior
    data: Observations
    noise: ReadingNoise
    held_out: Observations | None = None

    @cached_property
    def measured(self) -> RootScale:
        """The readings on the scale of their square roots."""
        return root_scale(self.data.readings, self.prior.mean.detector_dark, self.noise)

    @property
    def free(self) -> np.ndarray:
        """Indices of the parameters that are not fixed."""
        return np.flatnonzero(pack(self.prior.sigma) > 0)

    def part(self, settings: np.ndarray | slice) -> FitProblem:
        """Return the problem for some of the settings, without held-out ones."""
        return replace(self, data=self.data.part(settings), held_out=None)

    def objective(self, twin: Twin, predicted: Array, tau: float) -> float:
        """Return the objective for `predicted` readings and the model error `tau`."""
        return float(residuals(self.measured, predicted, tau).loss.sum()) + prior_pull(twin.parameters, self.prior).value


@dataclass(frozen=True)
class TwinFit:
    """Result of a fit.

    Parameters
    ----------
    parameters
        The fitted values.
    sigma
        Their standard deviations. A direction that no reading depends on has that of the prior.
    covariance
        Covariance of the parameters that are not fixed, in the order of `pack`; empty after `fit_descent`.
    residual
        Root mean square z per setting: 1 if the twin describes the chip up to noise, shape (settings,).
    misfit
        Relative error of the square roots per setting (`relative_misfit`), shape (settings,).
    held_out_residual, held_out_misfit
        The same for settings that were not fitted; empty if there are none.
    model_error
        τ relative to the rms square root of all readings; 0 if noise explains the residuals.
    steps
        Steps of Levenberg–Marquardt, or updates of Adam.
    """

    parameters: TwinParameters
    sigma: TwinParameters
    covariance: Array
    residual: Array
    misfit: Array
    held_out_residual: Array
    held_out_misfit: Array
    model_error: float
    steps: int


def predicted_all(twin: Twin, data: Observations) -> Array:
    """Return the predicted readings of all settings, computed in parts."""
    starts = range(0, len(data.phases), SETTINGS)
    parts = (data.part(slice(start, start + SETTINGS)) for start in starts)
    return np.concatenate([predict(twin, part.phases, part.inputs) for part in parts])


def result(twin: Twin, problem: FitProblem, sigma: Vector, covariance: Array, steps: int) -> TwinFit:
    """Return the result of a fit that ended at `twin`, with standard deviations as a flat vector."""
    dark, empty = problem.prior.mean.detector_dark, np.empty(0)
    predicted = predicted_all(twin, problem.data)
    tau = model_error(problem.measured, predicted)
    residual, misfit = _per_setting(problem, problem.data, predicted, dark)
    held_residual, held_misfit = empty, empty
    if problem.held_out is not None:
        held_residual, held_misfit = _per_setting(problem, problem.held_out, predicted_all(twin, problem.held_out), dark)
    rms = float(np.sqrt(np.nanmean(problem.measured.roots**2)))
    return TwinFit(
        parameters=twin.parameters,
        sigma=unpack(twin.layout, sigma),
        covariance=covariance,
        residual=residual,
        misfit=misfit,
        held_out_residual=held_residual,
        held_out_misfit=held_misfit,
        model_error=tau / rms,
        steps=steps,
    )


def _per_setting(problem: FitProblem, data: Observations, predicted: Array, dark: Vector) -> tuple[Array, Array]:
    z = residuals(root_scale(data.readings, dark, problem.noise), predicted, 0.0).z
    used = np.maximum(np.isfinite(data.readings).sum(axis=(1, 2)), 1)
    return np.sqrt((z**2).sum(axis=(1, 2)) / used), relative_misfit(data.readings, predicted, dark)
