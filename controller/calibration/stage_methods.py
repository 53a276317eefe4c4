"""The methods by which a stage is calibrated, with one signature for all."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from photonloop.controller.calibration.calibrated_device import Method, StageCalibration, Trouble
from photonloop.controller.calibration.columns import calibrate_columns
from photonloop.controller.calibration.diagonal import calibrate_diagonal
from photonloop.controller.calibration.evidence import CalibrationEvidence, Fringe, gather_evidence
from photonloop.controller.calibration.noise_readings import MeasuredNoise
from photonloop.controller.calibration.random_settings import FittedStage, RandomSettingsOptions, fit_random_settings
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_layout import TwinLayout, twin_layout
from photonloop.controller.calibration.twin_parameters import TwinPrior, nominal_prior

Progress = Callable[[str], None]
"""Called with the name of each step when it begins."""


@dataclass(frozen=True)
class MeasuredStage:
    """A calibrated stage, and what it was fitted to and tested with."""

    calibration: StageCalibration
    evidence: CalibrationEvidence


def calibrate_mesh(
    reader: SettingReader, method: Method, measured: MeasuredNoise, rng: np.random.Generator, progress: Progress
) -> MeasuredStage:
    """Calibrate a mesh.

    Parameters
    ----------
    reader
        Reads settings of the stage.
    method
        How the start of the fit is found.
    measured
        Dark levels and noise of the detectors.
    rng
        Draws settings and inputs.
    progress
        Is called with the name of each step.
    """
    layout = twin_layout(reader.description, reader.stage)
    prior = prior_with_dark(layout, measured)
    progress("scans")

    def scanned(done: int, total: int) -> None:
        progress(f"scans, {done} of {total}" if done < total else "random settings and fit")

    if method == "diagonal":
        return _diagonal(reader, measured, prior, rng, scanned)
    found = calibrate_columns(reader, measured.noise, rng, prior=prior, progress=scanned)
    return _stage(reader, "columns", measured, found.fitted)


def _diagonal(
    reader: SettingReader,
    measured: MeasuredNoise,
    prior: TwinPrior,
    rng: np.random.Generator,
    scanned: Callable[[int, int], None],
) -> MeasuredStage:
    """Calibrate a mesh with one lit input at a time."""
    start = calibrate_diagonal(reader, measured.noise, rng, prior=prior, progress=scanned)
    # The start is so close that few steps by Adam suffice.
    options = RandomSettingsOptions(inputs_at_once="one", descent_steps=300)
    fitted = fit_random_settings(reader, start.twin, start.prior, measured.noise, rng, options)
    name = reader.stage.name
    troubles = [
        Trouble("no signal", name, (channel,), (), f"no light path showed θ of channel {channel}: its offset is a guess")
        for channel in start.not_found
    ]
    troubles += [
        Trouble("low visibility", name, (channel,), (), f"the fringe of channel {channel} is too weak: its offset is a guess")
        for channel in start.low_visibility
    ]
    return _stage(reader, "diagonal", measured, fitted, start.fringes, tuple(troubles))


def prior_with_dark(layout: TwinLayout, measured: MeasuredNoise) -> TwinPrior:
    """Return the prior with the measured dark levels.

    If the light could not be switched off, they contain light that the modulators let through, and are less certain.
    """
    prior = nominal_prior(layout, 1.0, measured.level)
    if measured.light_off:
        return prior
    sigma = np.hypot(prior.sigma.detector_dark, measured.level)
    return TwinPrior(prior.mean, dataclasses.replace(prior.sigma, detector_dark=sigma))


def _stage(
    reader: SettingReader,
    method: Method,
    measured: MeasuredNoise,
    fitted: FittedStage,
    fringes: tuple[Fringe, ...] = (),
    troubles: tuple[Trouble, ...] = (),
) -> MeasuredStage:
    """Return the result of a fit, whose random settings were read last."""
    random = reader.done[-1].observations()
    count = len(random.phases) - fitted.held_out.residual.size
    found = StageCalibration(
        stage=reader.stage,
        method=method,
        layout=fitted.twin.layout,
        parameters=fitted.twin.parameters,
        sigma=fitted.sigma,
        draws=fitted.draws,
        noise=measured.noise,
        held_out=fitted.held_out,
        settings=reader.settings + measured.settings,
        steady_inputs=method == "columns",
        troubles=troubles,
    )
    evidence = gather_evidence(found, random.part(slice(0, count)), random.part(slice(count, None)), fringes)
    return MeasuredStage(found, evidence)
