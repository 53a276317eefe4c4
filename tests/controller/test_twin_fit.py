"""Fits of the twin: known parameters are found again, and the stated uncertainties are right."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from numpy.typing import NDArray
from support.chips import chip_of
from support.twins import STEADY, drawn, layout_of, random_inputs, true_parameters

from photonloop.controller.calibration.fit_problem import FitProblem
from photonloop.controller.calibration.twin import Twin, predict
from photonloop.controller.calibration.twin_descent import fit_descent
from photonloop.controller.calibration.twin_fit import fit_least_squares, normal_equations
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_misfit import Observations, ReadingNoise, root_scale
from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, nominal_prior, pack, slices, unpack
from photonloop.controller.learning.variables import to_drive

LEVEL = 1e-3
NOISE = ReadingNoise(dark=2e-7, relative=1e-3)


def observed(twin: Twin, settings: int, rng: np.random.Generator, noise: ReadingNoise = NOISE, samples: int = 8) -> Observations:
    """Readings of a twin at random settings, with noise."""
    phases = rng.uniform(0.2, 0.2 + 2 * np.pi, (settings, twin.layout.channels))
    inputs = np.concatenate((np.eye(twin.layout.ports), random_inputs(samples - twin.layout.ports, twin.layout.ports, rng)))
    readings = predict(twin, phases, inputs)
    sigma = np.hypot(noise.dark, noise.relative * readings)
    return Observations(phases, inputs, readings + sigma * rng.standard_normal(readings.shape))


def started(layout: TwinLayout, prior: TwinPrior, true: TwinParameters, rng: np.random.Generator, off_rad: float = 0.2) -> Twin:
    """The prior's mean, with offsets that a first calibration would have found."""
    offset_rad = true.offset_rad + off_rad * rng.standard_normal(layout.channels)
    return Twin(layout, dataclasses.replace(prior.mean, offset_rad=offset_rad, input_phase_rad=true.input_phase_rad))


def normalised_errors(layout: TwinLayout, seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_], float]:
    """Errors of one fitted chip in standard deviations, which of them readings determine, and χ² per parameter."""
    rng, prior = np.random.default_rng(seed), nominal_prior(layout, LEVEL, 1e-9)
    true = drawn(layout, prior, rng)
    data = observed(Twin(layout, true), 48, rng)
    problem = FitProblem(prior, data, NOISE)
    fit = fit_least_squares(started(layout, prior, true, rng, 0.1), problem)
    sigma, error = pack(fit.sigma), pack(fit.parameters) - pack(true)
    assert np.median(fit.residual) < 1.1 and fit.model_error == 0
    known = sigma < 0.5 * pack(prior.sigma)
    inside = np.flatnonzero(known[problem.free])
    chi2 = error[known] @ np.linalg.solve(fit.covariance[np.ix_(inside, inside)], error[known])
    return error / np.where(sigma > 0, sigma, np.inf), known, float(chi2 / inside.size)


@pytest.mark.slow
def test_uncertainties_are_honest() -> None:
    """12 chips: the robust standard deviation of normalised errors is near 1 for every kind with enough parameters."""
    layout = layout_of("clements", 4)
    found = [normalised_errors(layout, seed) for seed in range(12)]
    z, known = np.array([each[0] for each in found]), np.array([each[1] for each in found])
    for kind in ("offset_rad", "coupler_error_rad"):
        part = slices(layout)[kind]
        inside = z[:, part][known[:, part]]
        assert inside.size >= 40
        assert 0.8 <= 1.4826 * np.median(np.abs(inside)) <= 1.3, kind
    # Errors of κ are dominated by a part common to all heaters, so there are only about 12 independent ones.
    part = slices(layout)["kappa"]
    assert 0.7 <= np.sqrt(np.mean(z[:, part][known[:, part]] ** 2)) <= 1.4
    # χ² per parameter has the mean 1, and a standard deviation of √(2/40) for each chip.
    assert np.median([each[2] for each in found]) == pytest.approx(1, abs=0.2)


def small_problem(seed: int = 3, settings: int = 30) -> tuple[TwinLayout, FitProblem, Twin, Twin]:
    layout, rng = layout_of("clements", 3), np.random.default_rng(seed)
    prior = nominal_prior(layout, LEVEL, 1e-9)
    true = drawn(layout, prior, rng)
    truth = Twin(layout, true)
    problem = FitProblem(prior, observed(truth, settings, rng), NOISE, observed(truth, 4, rng))
    return layout, problem, truth, started(layout, prior, true, rng)


def test_the_slope_is_that_of_the_objective() -> None:
    """Huber's loss, weights, prior and Jacobian together, against central differences, far from the minimum."""
    layout, problem, _, start = small_problem()
    tau, vector = 0.002, pack(start.parameters)
    found = normal_equations(start, problem, tau)

    def objective(moved: NDArray[np.float64]) -> float:
        twin = Twin(layout, unpack(layout, moved))
        return problem.objective(twin, predict(twin, problem.data.phases, problem.data.inputs), tau)

    assert found.value == pytest.approx(objective(vector), rel=1e-12)
    step = 1e-5 * np.maximum(pack(problem.prior.sigma), 1e-12)
    for k, index in enumerate(problem.free):
        plus, minus = vector.copy(), vector.copy()
        plus[index] += step[index]
        minus[index] -= step[index]
        expected = (objective(plus) - objective(minus)) / (2 * step[index])
        assert found.slope[k] == pytest.approx(
            expected, rel=2e-4, abs=1e-5 * np.abs(found.slope * step[problem.free]).max() / step[index]
        )


def test_the_fit_ends_at_a_minimum() -> None:
    """No parameter can be moved by a tenth of its standard deviation without raising the objective."""
    layout, problem, _, start = small_problem()
    fit = fit_least_squares(start, problem)
    slope = normal_equations(Twin(layout, fit.parameters), problem, 0.0).slope
    # slope · sigma is the gain, in units of the objective, per standard deviation.
    assert np.max(np.abs(slope * pack(fit.sigma)[problem.free])) < 0.1
    assert np.median(fit.held_out_residual) < 1.5 and fit.held_out_misfit.shape == (4,)


def test_outliers_and_missing_readings_do_not_matter() -> None:
    _, problem, truth, start = small_problem(settings=20)
    rng, readings = np.random.default_rng(8), problem.data.readings.copy()
    broken = rng.random(readings.shape) < 0.02
    readings[broken] = rng.uniform(0, LEVEL, int(broken.sum()))
    readings[0, :, 1] = np.nan
    fit = fit_least_squares(start, dataclasses.replace(problem, data=dataclasses.replace(problem.data, readings=readings)))
    error = ((pack(fit.parameters) - pack(truth.parameters))[problem.free]) / pack(fit.sigma)[problem.free]
    assert np.isfinite(error).all()
    assert np.sqrt(np.mean(error**2)) < 2
    assert np.median(fit.held_out_residual) < 1.5


def test_a_parameter_with_a_fixed_prior_keeps_its_start() -> None:
    layout, problem, _, start = small_problem()
    sigma = dataclasses.replace(problem.prior.sigma, curvature=0.0, kappa=np.zeros(layout.channels))
    fixed = dataclasses.replace(problem, prior=TwinPrior(problem.prior.mean, sigma))
    least, descent = fit_least_squares(start, fixed, max_steps=5), fit_descent(start, fixed, np.random.default_rng(1), steps=5)
    for fit in (least, descent):
        assert fit.parameters.curvature == start.parameters.curvature and fit.sigma.curvature == 0
        np.testing.assert_array_equal(fit.parameters.kappa, start.parameters.kappa)
    assert least.covariance.shape == (fixed.free.size, fixed.free.size)


def test_adam_finds_the_chip_again() -> None:
    """Most of the way: the rest is left to more steps. At the minimum its uncertainties are lower bounds."""
    layout, rng = layout_of("clements", 4), np.random.default_rng(2)
    prior = nominal_prior(layout, LEVEL, 1e-9)
    true = drawn(layout, prior, rng)
    problem = FitProblem(prior, observed(Twin(layout, true), 40, rng), NOISE, observed(Twin(layout, true), 8, rng))
    start = started(layout, prior, true, rng)
    before = fit_descent(start, problem, rng, steps=0)
    fit = fit_descent(start, problem, rng, steps=1200, rate_rad=0.01)
    assert np.median(fit.held_out_misfit) < 0.06 * np.median(before.held_out_misfit)
    full = fit_least_squares(Twin(layout, fit.parameters), problem)
    bounds = pack(fit_descent(Twin(layout, full.parameters), problem, rng, steps=0).sigma)
    # The diagonal of the normal matrix is known from 40 random vectors, with an error of √(2/40) or less.
    assert np.mean((bounds < 1.3 * pack(full.sigma))[problem.free]) > 0.95


def test_the_square_root_of_a_dark_reading_is_almost_unbiased() -> None:
    """A bias of the fit by dark readings is far below one standard deviation of all of them together."""
    rng = np.random.default_rng(4)
    readings = 1e-9 + 2e-7 * rng.standard_normal((1, 20000, 1))
    scale = root_scale(readings, np.array([1e-9]), NOISE)
    z = (scale.roots - np.sqrt(16 * NOISE.dark)) / scale.sigma
    assert abs(z.mean()) < 1 / 64 + 4 / np.sqrt(20000)
    assert z.std() == pytest.approx(1, abs=0.03)


def test_a_virtual_chip_is_described_up_to_its_noise() -> None:
    """`soi` without slow processes and without its crosstalk, read by `evaluate` with noise and converter."""
    parts = {name: values for name, values in STEADY.items() if name not in {"adc", "dac"}}
    parts |= {"dac": {"inl_lsb": 0.0, "noise_v": 0.0, "slow_noise_v": 0.0, "gain_drift_sigma": 0.0}}
    parts |= {"adc": {"gain_drift_sigma": 0.0, "offset_drift_lsb": 0.0, "offset_sigma_lsb": 0.0, "offset_lsb": 0.0}}
    chip = chip_of("soi", parts, quiet=False, ports=4, stages=1, seed=6)
    description, rng = chip.describe(), np.random.default_rng(3)
    layout = twin_layout(description, description.stages[0])
    true = true_parameters(chip, layout)
    phases = rng.uniform(0.2, 0.2 + 2 * np.pi, (50, layout.channels))
    inputs = np.concatenate((np.eye(4), random_inputs(12, 4, rng))).astype(np.float32)
    readings = chip.evaluate(to_drive(phases, description.drive), inputs, description.stages[0].name)
    values = np.where(readings.values >= layout.full_scale * 0.999, np.nan, readings.values.astype(np.float64))
    data = Observations(phases, inputs.astype(np.float64), values)
    noise = ReadingNoise(dark=layout.full_scale / 2**16, relative=3e-5)
    prior = nominal_prior(layout, 1.1 * true.level, true.detector_dark)
    problem = FitProblem(prior, data.part(slice(0, 40)), noise, data.part(slice(40, 50)))
    fit = fit_least_squares(started(layout, prior, true, rng, 0.15), problem)
    assert np.median(fit.held_out_misfit) < 2e-3
    matrices = Twin(layout, fit.parameters), Twin(layout, true)
    exact = [predict(twin, phases[40:], inputs) for twin in matrices]
    assert np.abs(exact[0] - exact[1]).mean() < 2e-3 * exact[1].mean()
