"""Fit of the twin to sweeps with one interferometer at a time away from bar.

Readings of such sweeps depend on few phases each, so the fit finds offsets that are wrong by far more than those from
which a fit to random settings succeeds (0.3 rad at 16 ports).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np

from photonloop.controller.calibration.fit_problem import FitProblem, predicted_all
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_descent import descended
from photonloop.controller.calibration.twin_fit import fit_least_squares
from photonloop.controller.calibration.twin_misfit import Observations, ReadingNoise
from photonloop.controller.calibration.twin_parameters import TwinPrior


@dataclass(frozen=True)
class SweepFitOptions:
    """Options of `fit_sweeps`.

    Parameters
    ----------
    descent_steps, rate_rad
        Updates by Adam, and the step of an offset at the start [rad].
    samples
        Readings per setting and output that Levenberg–Marquardt uses: this many of the lit inputs, drawn at random.
    most_steps
        Largest number of its steps.
    """

    descent_steps: int = 800
    rate_rad: float = 0.02
    samples: int = 4
    most_steps: int = 5


def with_level(twin: Twin, prior: TwinPrior, data: Observations) -> tuple[Twin, TwinPrior]:
    """Return the twin and the prior with the level at which the twin gives as much light as was read."""
    own = dataclasses.replace(twin.parameters, level=1.0, detector_memory=0.0)
    expected = predicted_all(Twin(twin.layout, own), data) - own.detector_dark
    usable = np.isfinite(data.readings)
    light = float(np.where(usable, data.readings - own.detector_dark, 0.0).sum())
    level = light / float(np.where(usable, expected, 0.0).sum())
    mean, sigma = dataclasses.replace(prior.mean, level=level), dataclasses.replace(prior.sigma, level=0.3 * level)
    return Twin(twin.layout, dataclasses.replace(twin.parameters, level=level)), TwinPrior(mean, sigma)


def fit_sweeps(
    start: Twin,
    prior: TwinPrior,
    noise: ReadingNoise,
    sweeps: list[Observations],
    rng: np.random.Generator,
    options: SweepFitOptions,
) -> Twin:
    """Return the twin fitted to the readings of sweeps, first by Adam, then by Levenberg–Marquardt.

    Parameters
    ----------
    start
        The start.
    prior, noise
        As for `FitProblem`.
    sweeps
        The readings, all with the same inputs. Each is a mean over samples with the same input, so that it does not
        depend on the sample before.
    rng
        Draws batches and samples.
    options
        Numbers of steps and samples.
    """
    # Readings do not depend on the sample before, so the detectors' memory is absent here; the prior's is kept.
    kept = start.parameters.detector_memory
    no_memory = TwinPrior(
        dataclasses.replace(prior.mean, detector_memory=0.0), dataclasses.replace(prior.sigma, detector_memory=0.0)
    )
    twin = Twin(start.layout, dataclasses.replace(start.parameters, detector_memory=0.0))
    data = Observations(
        np.concatenate([part.phases for part in sweeps]),
        sweeps[0].inputs,
        np.concatenate([part.readings for part in sweeps]),
    )
    twin = descended(twin, FitProblem(no_memory, data, noise), rng, options.descent_steps, options.rate_rad)
    if options.most_steps:
        fit = fit_least_squares(twin, FitProblem(no_memory, _thinned(data, rng, options.samples), noise), options.most_steps)
        twin = Twin(twin.layout, fit.parameters)
    return Twin(twin.layout, dataclasses.replace(twin.parameters, detector_memory=kept))


def _thinned(data: Observations, rng: np.random.Generator, samples: int) -> Observations:
    """Return observations with some of the inputs of each setting, drawn at random."""
    rows = np.argsort(rng.random(data.readings.shape[:2]), axis=1)[:, :samples]
    return Observations(data.phases, data.inputs[rows], np.take_along_axis(data.readings, rows[:, :, np.newaxis], axis=1))
