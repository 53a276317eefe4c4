"""Fit of a twin to random settings, the last part of every calibration of a mesh with up to about 16 ports.

Random settings exercise all parameters at once, also those that scans of single heaters do not show: crosstalk, the
ground that heaters share, and losses. The first quarter of them lie around one setting, with a growing spread. They are
predicted well enough by a start that is only roughly right. The others lie anywhere within the bounds. Further ones
are held out: they are never fitted, and test the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import HeldOut
from photonloop.controller.calibration.fit_problem import FitProblem, TwinFit, predicted_all
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_descent import descended
from photonloop.controller.calibration.twin_fit import fit_least_squares
from photonloop.controller.calibration.twin_misfit import Observations, ReadingNoise
from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, Vector, pack
from photonloop.controller.learning.variables import Bounds, project, start_variables

Array = NDArray[np.float64]


@dataclass(frozen=True)
class RandomSettingsOptions:
    """Options of `fit_random_settings`.

    Parameters
    ----------
    inputs_at_once
        "several": every sample lights about half of the inputs; "one": every sample lights one input, in turn.
    samples
        Samples per setting, if several inputs are lit at once.
    settings, held_out
        Settings that are fitted, and further ones that are held out.
    fitted_samples
        Samples per setting that the last fit uses.
    descent_steps
        Steps of the fit by Adam that precedes Levenberg–Marquardt.
    draws
        Random draws from the posterior.
    """

    inputs_at_once: Literal["several", "one"] = "several"
    samples: int = 128
    settings: int = 96
    held_out: int = 8
    fitted_samples: int = 24
    descent_steps: int = 1500
    draws: int = 32


@dataclass(frozen=True)
class FittedStage:
    """Result of `fit_random_settings`.

    Parameters
    ----------
    twin
        The fitted twin.
    sigma
        Standard deviations of its parameters.
    draws
        Random draws from the posterior, as differences from the parameters of the twin in the order of `pack`, shape
        (draws, parameters). Directions that no reading depends on have the standard deviation of the prior.
    held_out
        Test on the settings that were held out.
    fit
        The last fit.
    """

    twin: Twin
    sigma: TwinParameters
    draws: Array
    held_out: HeldOut
    fit: TwinFit


def fit_random_settings(
    reader: SettingReader,
    start: Twin,
    prior: TwinPrior,
    noise: ReadingNoise,
    rng: np.random.Generator,
    options: RandomSettingsOptions | None = None,
) -> FittedStage:
    """Read random settings, and fit the twin to them.

    Parameters
    ----------
    reader
        Reads settings of the stage.
    start
        The start. Its offsets should be right within about 0.3 rad.
    prior
        The prior. Its level should be right within a factor of about 2.
    noise
        Noise of the readings.
    rng
        Draws inputs, settings, batches of the fit by Adam, and draws from the posterior.
    options
        Numbers of settings, samples and steps; None: the defaults.

    Raises
    ------
    ValueError
        The limits of the device leave no range for the heater phases.
    """
    options = options or RandomSettingsOptions()
    inputs = random_inputs(start.layout.ports, rng, options)
    phases = random_phases(reader.bounds, rng, options.settings, options.held_out)
    everything = reader.read(phases, inputs).observations()
    data, held_out = everything.part(slice(0, options.settings)), everything.part(slice(options.settings, None))
    problem = FitProblem(prior, data, noise, held_out)
    twin = descended(start, problem, rng, options.descent_steps, 0.005)
    fit = fit_least_squares(twin, FitProblem(prior, _thinned(data, options.fitted_samples), noise, held_out))
    twin = Twin(start.layout, fit.parameters)
    draws = posterior_draws(problem.free, fit, rng, options.draws)
    return FittedStage(twin, fit.sigma, draws, held_out_test(twin, fit, held_out), fit)


def random_inputs(ports: int, rng: np.random.Generator, options: RandomSettingsOptions) -> NDArray[np.float32]:
    """Return the amplitudes of all samples, shape (samples, ports)."""
    if options.inputs_at_once == "one":
        return np.eye(ports, dtype=np.float32)
    lit = rng.random((options.samples, ports)) < 0.5
    return (rng.random(lit.shape) * lit).astype(np.float32)


def random_phases(bounds: Bounds, rng: np.random.Generator, count: int, held_out: int) -> Array:
    """Return nominal heater phases [rad] within the bounds, those that are held out last, (settings, channels)."""
    start, near = start_variables(bounds, rng), count // 4
    spread = np.linspace(0, 1, near)[:, np.newaxis] * rng.standard_normal((near, start.size))
    around = [project(start + change, bounds) for change in spread]
    anywhere = [start_variables(bounds, rng) for _ in range(count - near + held_out)]
    return np.array(around + anywhere)


def posterior_draws(free: NDArray[np.int64], fit: TwinFit, rng: np.random.Generator, count: int) -> Array:
    """Return random draws from the posterior of a fit, relative to its parameters, shape (count, parameters)."""
    draws = np.zeros((count, pack(fit.parameters).size))
    scale = np.sqrt(np.diag(fit.covariance))
    variance, axes = np.linalg.eigh(fit.covariance / np.outer(scale, scale))
    root = axes * np.sqrt(np.maximum(variance, 0.0))  # directions that rounding makes negative have no spread
    draws[:, free] = (rng.standard_normal((count, scale.size)) @ root.T) * scale
    return draws


def held_out_test(twin: Twin, fit: TwinFit, data: Observations) -> HeldOut:
    """Return how well `twin`, the result of `fit`, predicts settings that were held out."""
    tvd = reading_tvd(twin, data, predicted_all(twin, data))
    return HeldOut(fit.held_out_residual, fit.held_out_misfit, tvd)


def reading_tvd(twin: Twin, data: Observations, predicted: Array) -> Vector:
    """Return the total variation distance of predicted and measured readings, shape (settings,).

    The readings of a sample, without dark levels, are divided by their sum. The result is the mean over all samples
    with light at an input and without a reading that cannot be used; NaN for settings without any.
    """
    dark = twin.parameters.detector_dark
    measured, modelled = np.maximum(data.readings - dark, 0.0), np.maximum(predicted - dark, 0.0)
    total, modelled_total = measured.sum(axis=2), modelled.sum(axis=2)
    used = np.isfinite(total) & (np.abs(data.inputs).max(axis=-1) > 0) & (total > 0) & (modelled_total > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        change = measured / total[..., np.newaxis] - modelled / modelled_total[..., np.newaxis]
    distance = np.where(used, 0.5 * np.abs(change).sum(axis=2), 0.0)
    count = used.sum(axis=1)
    return np.where(count > 0, distance.sum(axis=1) / np.maximum(count, 1), np.nan)


def _thinned(data: Observations, samples: int) -> Observations:
    """Return observations with only the first `samples` inputs."""
    return Observations(data.phases, data.inputs[:samples], data.readings[:, :samples])
