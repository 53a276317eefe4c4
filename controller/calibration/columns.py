"""Calibration of a mesh column by column: from an unknown chip to a fitted twin in about 16 N settings.

All settings are read with the same inputs, of which several are lit at a time. The phases of the inputs are taken as
steady: they become part of the offsets of φ.

1. The curvature and the median κ of the heaters, from one scan of the last column (`column_scans.scan_curve`).
2. All θ, from the last column to the first (`column_scans.scan_thetas`).
3. φ, from the first column to the last, and after each column a fit of the twin to all that was read of the columns so
   far (`column_growth.grown`).
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


SATURATED_SHARE, DIMMED, MOST_DIMMED = 0.02, 0.7, 6
"""Share of saturated readings of most detectors above which amplitudes are lowered, factor, and how often at most."""


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
    exact_ports, exact_samples
        Largest number of ports for which Levenberg–Marquardt follows, and inputs per setting that it uses.
    large_random_settings, large_fit_steps, large_rate_rad
        `random_settings` and `fit_steps` for more ports, and the step of an offset at the start of that fit [rad].
    """

    samples: int = 128
    growth: GrowthOptions = field(default_factory=GrowthOptions)
    random_settings: int = 96
    held_out: int = 8
    fit_steps: int = 1500
    exact_ports: int = 16
    exact_samples: int = 24
    large_random_settings: int = 96
    large_fit_steps: int = 4000
    large_rate_rad: float = 0.01

    def random_settings_for(self, ports: int) -> int:
        """Return the number of random settings for a mesh with so many ports."""
        return self.random_settings if ports <= self.exact_ports else self.large_random_settings


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
    Settings: 16 N + 14, and 56 random ones for up to 16 ports, 104 for more, so 1142 at 64 ports. On a chip `soi` with
    32 ports, the outputs of single inputs at random settings were right within a total variation distance of 3.5 % in
    the end, and on one with 64 ports within 10 %. Much of it is crosstalk of distant heaters, which the twin computes
    more exactly than the simulator. Look at `held_out_misfit` before the twin is used.
    """
    options = options or ColumnOptions()
    _check(reader.description, reader.stage)
    layout = twin_layout(reader.description, reader.stage)
    prior = prior or nominal_prior(layout, 1.0)
    lit = rng.random((options.samples, layout.ports)) < 0.5
    read = ScanReader(reader, (rng.random(lit.shape) * lit).astype(np.float32))
    curve = HeaterCurve(prior.mean.curvature, prior.mean.self_heating)
    if prior.sigma.curvature > 0:
        curve, read = _curve(layout, read, curve, rng)
    columns = int(layout.column.max()) + 1
    report = progress or (lambda _done, _total: None)
    scan = scan_thetas(layout, read, curve, read.inputs, rng, lambda column: report(columns - column, 2 * columns))
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


def _curve(layout: TwinLayout, read: ScanReader, curve: HeaterCurve, rng: np.random.Generator) -> tuple[HeaterCurve, ScanReader]:
    """Return the curve of the heaters, and a reader with amplitudes so low that few readings are saturated."""
    found = scan_curve(layout, read, curve, rng)
    for _ in range(MOST_DIMMED):
        if np.median(np.isnan(read.readings).mean(axis=(0, 1))) <= SATURATED_SHARE:
            break
        read = ScanReader(read.reader, (DIMMED * read.inputs).astype(np.float32))
        found = scan_curve(layout, read, curve, rng)
    return found, read


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
    layout, last = twin.layout, int(twin.layout.column.max())
    count = options.random_settings_for(layout.ports)
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
    phases = np.array([project(each, read.bounds) for each in (*(start + spread), *anywhere)])
    read(phases, last, np.arange(layout.channels))
    data, held_out = read.observations(slice(0, -options.held_out)), read.observations(slice(-options.held_out, None))
    problem = FitProblem(prior, data, noise, held_out)
    fit = fit_descent(twin, problem, rng, options.large_fit_steps, options.large_rate_rad, focus=count)
    twin = Twin(layout, fit.parameters)
    return FittedStage(twin, fit.sigma, np.empty((0, pack(fit.parameters).size)), held_out_test(twin, fit, held_out), fit)
