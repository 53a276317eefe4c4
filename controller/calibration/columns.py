"""Calibration of a mesh column by column: from an unknown chip to a fitted twin in about 16 N settings.

All settings are read with the same inputs, of which several are lit at a time. The phases of the inputs are taken as
steady: they become part of the offsets of φ.

1. The curvature of the heaters, from one scan of the last column (`column_scans.scan_curve`).
2. All θ, from the last column to the first (`column_scans.scan_thetas`).
3. φ, from the first column to the last, with all other columns in bar and this one at θ = π/2. The difference of the
   powers behind an interferometer is 2 Re(e^{iφ} u l*) with the fields u and l that enter it, which the twin predicts.
   After each column the twin is fitted to recent readings for some steps. Otherwise errors would add up.
4. Random settings, and a fit of everything. Some of them are held out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_growth import GrowthOptions, grown
from photonloop.controller.calibration.column_scans import HeaterCurve, random_phases, scan_curve, scan_thetas
from photonloop.controller.calibration.fit_problem import FitProblem, TwinFit
from photonloop.controller.calibration.random_settings import (
    FittedStage,
    RandomSettingsOptions,
    fit_random_settings,
    held_out_test,
)
from photonloop.controller.calibration.scan_reader import ScanReader
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin, predict
from photonloop.controller.calibration.twin_descent import fit_descent
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_misfit import ReadingNoise
from photonloop.controller.calibration.twin_parameters import TwinPrior, nominal_prior, pack
from photonloop.controller.learning.variables import project
from photonloop.protocols.device import DeviceDescription, StageDescription

Array = NDArray[np.float64]

TOPOLOGIES = ("clements", "reck", "svd")
"""Meshes in which light stays on its mode if all interferometers are in bar."""

Progress = Callable[[int, int], None]
"""Called after each column, with the number of columns scanned so far and in all: every column is scanned twice."""


@dataclass(frozen=True)
class ColumnOptions:
    """Options of `calibrate_columns`.

    Parameters
    ----------
    samples
        Inputs of every setting. 32 are too few at 64 ports.
    growth
        Numbers of settings and steps for φ.
    random_settings, held_out
        Random settings at the end, and how many more are held out.
    fit_steps
        Steps of the last fit by Adam.
    exact_ports
        Largest number of ports for which Levenberg–Marquardt follows.
    exact_samples
        Inputs per setting that it uses.
    """

    samples: int = 128
    growth: GrowthOptions = field(default_factory=GrowthOptions)
    random_settings: int = 48
    held_out: int = 8
    fit_steps: int = 1500
    exact_ports: int = 16
    exact_samples: int = 32


@dataclass(frozen=True)
class ColumnCalibration:
    """Result of `calibrate_columns`.

    Parameters
    ----------
    twin
        The fitted twin.
    fit
        The last fit, with uncertainties and held-out residuals.
    fitted
        The same with draws from the posterior and the test on held-out settings.
    prior
        The prior that was used, with the level found.
    settings
        Settings read.
    theta_rad, phi_rad
        Offsets of all θ and φ before the last fit [rad], shape (interferometers,).
    """

    twin: Twin
    fit: TwinFit
    fitted: FittedStage
    prior: TwinPrior
    settings: int
    theta_rad: Array
    phi_rad: Array


def calibrate_columns(
    reader: SettingReader,
    noise: ReadingNoise,
    rng: np.random.Generator,
    options: ColumnOptions | None = None,
    prior: TwinPrior | None = None,
    progress: Progress | None = None,
) -> ColumnCalibration:
    """Calibrate a stage with a rectangular or triangular mesh, or with two of them, by `evaluate` alone.

    Parameters
    ----------
    reader
        Reads the settings of the stage. Its inputs must be the inputs of the device.
    noise
        Noise of the readings.
    rng
        Draws inputs and settings.
    options
        Numbers of settings and steps; None: the defaults.
    prior
        The prior; None: `nominal_prior`. Its level is replaced by that of the readings.
    progress
        Called after each column.

    Raises
    ------
    ValueError
        The topology is another one, inputs can only be lit one at a time, or the limits leave less than 2π per heater.

    Notes
    -----
    On `soi`, the outputs of single inputs at random settings are right within a total variation distance of about 0.3 %
    at 8 ports and 0.8 % at 16 ports. At 64 ports the last fit does not converge: on settings that were not fitted the
    misfit stays near 0.6. Look at `held_out_misfit` before the twin is used.
    """
    options = options or ColumnOptions()
    _check(reader.description, reader.stage)
    layout = twin_layout(reader.description, reader.stage)
    prior = prior or nominal_prior(layout, 1.0)
    lit = rng.random((options.samples, layout.ports)) < 0.5
    read = ScanReader(reader, (rng.random(lit.shape) * lit).astype(np.float32))
    curve = HeaterCurve(prior.mean.curvature, prior.mean.self_heating)
    if prior.sigma.curvature > 0:
        curve = scan_curve(layout, read, curve, rng, read.bounds.total)
    columns = int(layout.column.max()) + 1
    report = progress or (lambda _done, _total: None)
    total_rad = read.bounds.total
    scan = scan_thetas(layout, read, curve, read.inputs, rng, lambda column: report(columns - column, 2 * columns), total_rad)
    prior = _with_level(layout, prior, curve, read)
    offset_rad = np.zeros(layout.channels)
    offset_rad[layout.theta] = scan.offset_rad
    kappa = prior.mean.kappa.copy()
    kappa[layout.theta] = scan.kappa
    twin = Twin(layout, dataclasses.replace(prior.mean, offset_rad=offset_rad, kappa=kappa))
    growth, done = options.growth, lambda column: report(columns + column + 1, 2 * columns)
    twin = grown(twin, scan.bar, prior, noise, read, curve, rng, growth, done)
    before = twin.parameters.offset_rad
    fitted = _fit_everything(twin, prior, noise, reader, read, curve, rng, options)
    settings = reader.settings
    return ColumnCalibration(fitted.twin, fitted.fit, fitted, prior, settings, before[layout.theta], before[layout.phi])


def _check(description: DeviceDescription, stage: StageDescription) -> None:
    if stage.topology not in TOPOLOGIES:
        raise ValueError(f"stage {stage.name} is {stage.topology}, but this calibration needs one of {', '.join(TOPOLOGIES)}")
    if description.inputs_at_once == "one":
        raise ValueError(f"device {description.name} lights one input at a time, but this calibration needs several at once")
    if description.stage_index(stage.name) != 0:
        raise ValueError(f"the inputs of stage {stage.name} are not those of the device: calibrate the first stage")


def _with_level(layout: TwinLayout, prior: TwinPrior, curve: HeaterCurve, read: ScanReader) -> TwinPrior:
    """Return the prior with the level at which a chip as designed gives as much light as was read, and the curve."""
    kappa = np.full(layout.channels, curve.kappa)
    mean = dataclasses.replace(prior.mean, curvature=curve.curvature, kappa=kappa)
    expected = predict(Twin(layout, dataclasses.replace(mean, level=1.0)), read.phases[-1:], read.inputs)
    level = float(np.nansum(read.readings[-1] - mean.detector_dark) / np.sum(expected - mean.detector_dark))
    dark = np.where(prior.sigma.detector_dark > 0, 1e-4 * layout.full_scale, 0.0)
    sigma = dataclasses.replace(prior.sigma, level=0.3 * level, detector_dark=dark)
    return TwinPrior(dataclasses.replace(mean, level=level), sigma)


def _fit_everything(
    twin: Twin,
    prior: TwinPrior,
    noise: ReadingNoise,
    reader: SettingReader,
    read: ScanReader,
    curve: HeaterCurve,
    rng: np.random.Generator,
    options: ColumnOptions,
) -> FittedStage:
    """Return the twin fitted to random settings, of growing spread around a random one and then anywhere."""
    layout, count, columns = twin.layout, options.random_settings, int(twin.layout.column.max()) + 1
    if layout.ports <= options.exact_ports:
        random = RandomSettingsOptions(
            samples=options.samples,
            settings=count,
            held_out=options.held_out,
            fitted_samples=options.exact_samples,
            descent_steps=options.fit_steps,
        )
        return fit_random_settings(reader, twin, prior, noise, rng, random)
    start = random_phases(layout, curve, rng)
    spread = np.linspace(0, 1, count // 2)[:, np.newaxis] * rng.standard_normal((count // 2, layout.channels))
    anywhere = np.array([random_phases(layout, curve, rng) for _ in range(count - count // 2 + options.held_out)])
    read(np.array([project(phases, read.bounds) for phases in (*(start + spread), *anywhere)]), columns - 1)
    data, held_out = read.observations(slice(0, -options.held_out)), read.observations(slice(-options.held_out, None))
    problem = FitProblem(prior, data, noise, held_out)
    fit = fit_descent(twin, problem, rng, options.fit_steps)
    twin = Twin(layout, fit.parameters)
    return FittedStage(twin, fit.sigma, np.empty((0, pack(fit.parameters).size)), held_out_test(twin, fit, held_out), fit)
