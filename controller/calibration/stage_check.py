"""Check of the calibration of one stage: random settings are read again and compared with the twin.

A fit of what drifts (`drift_fit`) shows whether small changes explain the readings, and which channels moved. If they
do not explain them, the stage is broken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import HeldOut, StageCalibration, Trouble
from photonloop.controller.calibration.drift_fit import DriftSize, fit_drift
from photonloop.controller.calibration.fit_problem import TwinFit, predicted_all
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_misfit import Observations, relative_misfit, residuals, root_scale
from photonloop.controller.learning.variables import start_variables

Array = NDArray[np.float64]

Verdict = Literal["fresh", "drifted", "broken"]


@dataclass(frozen=True)
class CheckOptions:
    """Options of a check.

    Parameters
    ----------
    settings, samples
        Random settings, and inputs of each.
    tolerated_misfit
        A change of the twin's predictions below this, relative to the fields, does not count as drift.
    unexplained
        The stage is broken if, after a fit of what drifts, the misfit is more than this many times that at the
        calibration.
    significance
        A channel has moved if its offset has changed by more than this many standard deviations.
    largest_rad
        Changes of offsets larger than this are no drift.
    drift
        Expected size of drift.
    """

    settings: int = 24
    samples: int = 24
    tolerated_misfit: float = 6e-3
    unexplained: float = 2.5
    significance: float = 5.0
    largest_rad: float = 0.5
    drift: DriftSize = field(default_factory=DriftSize)


@dataclass(frozen=True)
class Agreement:
    """How well a twin predicts some settings: `residual`, `misfit` and `tvd` of `HeldOut`, rms over the settings."""

    residual: float
    misfit: float
    tvd: float


@dataclass(frozen=True)
class MovedChannel:
    """A channel whose offset has changed.

    Parameters
    ----------
    channel
        Channel within the stage.
    change_rad
        Change of its offset since the calibration [rad].
    significance
        The change in standard deviations.
    """

    channel: int
    change_rad: float
    significance: float


@dataclass(frozen=True)
class StageCheck:
    """Result of the check of one stage.

    Parameters
    ----------
    stage
        Name of the stage.
    verdict
        fresh: the twin predicts the readings as well as it did. drifted: it does not, but small changes of offsets and
        inputs explain the difference. broken: they do not.
    then, now
        Agreement at the calibration, on its held-out settings, and now.
    explained
        Agreement now after a fit of what drifts.
    moved
        Channels that have moved, the most significant first.
    drift_rad
        Root mean square change of all offsets [rad].
    troubles
        Defects that explain a broken stage.
    settings
        Settings that were read.
    """

    stage: str
    verdict: Verdict
    then: Agreement
    now: Agreement
    explained: Agreement
    moved: tuple[MovedChannel, ...]
    drift_rad: float
    troubles: tuple[Trouble, ...]
    settings: int


def check_stage(
    reader: SettingReader,
    found: StageCalibration,
    rng: np.random.Generator,
    options: CheckOptions | None = None,
    search: Callable[[Observations], tuple[Trouble, ...]] = lambda _: (),
) -> StageCheck:
    """Read random settings and compare them with a calibration.

    Parameters
    ----------
    reader
        Reads settings of the stage.
    found
        The calibration.
    rng
        Draws settings and inputs.
    options
        None: the defaults.
    search
        Searches for the defects of a broken stage, from what was read.
    """
    options, before = options or CheckOptions(), reader.settings
    phases = np.array([start_variables(reader.bounds, rng) for _ in range(options.settings)])
    data = reader.read(phases, check_inputs_of(found, options.samples, rng)).observations()
    fit = fit_drift(found, data, options.drift)
    now, explained = agreement(found, found.twin, data), agreement(found, Twin(found.layout, fit.parameters), data)
    then = Agreement(*(_rms(values) for values in (found.held_out.residual, found.held_out.misfit, found.held_out.tvd)))
    moved = moved_channels(found, fit, options.significance)
    change_rad = fit.parameters.offset_rad - found.parameters.offset_rad
    known = fit.sigma.offset_rad < options.drift.offset_rad / 2
    verdict = _verdict(found, data, fit, then, explained, moved, options)
    return StageCheck(
        stage=found.stage.name,
        verdict=verdict,
        then=then,
        now=now,
        explained=explained,
        moved=moved,
        drift_rad=_rms(change_rad[known]),
        troubles=search(data) if verdict == "broken" else (),
        settings=reader.settings - before,
    )


def check_inputs_of(found: StageCalibration, samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return inputs for a check: each port alone if input phases are not known, otherwise random, half of them 0."""
    ports = found.layout.ports
    if not found.steady_inputs:
        return np.eye(ports, dtype=np.float32)
    lit = rng.random((samples, ports)) < 0.5
    return (rng.random(lit.shape) * lit).astype(np.float32)


def agreement(found: StageCalibration, twin: Twin, data: Observations) -> Agreement:
    """Return how well a twin predicts settings, with noise and dark readings of a calibration."""
    test = held_out(found, twin, data)
    return Agreement(_rms(test.residual), _rms(test.misfit), _rms(test.tvd))


def held_out(found: StageCalibration, twin: Twin, data: Observations) -> HeldOut:
    """Return the test of a twin on settings that were not fitted, with noise and dark readings of a calibration."""
    predicted, dark = predicted_all(twin, data), found.parameters.detector_dark
    z = residuals(root_scale(data.readings, dark, found.noise), predicted, 0.0).z
    used = np.maximum(np.isfinite(data.readings).sum(axis=(1, 2)), 1)
    residual = np.sqrt((z**2).sum(axis=(1, 2)) / used)
    return HeldOut(residual, relative_misfit(data.readings, predicted, dark), distances(data, predicted, dark))


def moved_channels(found: StageCalibration, fit: TwinFit, significance: float) -> tuple[MovedChannel, ...]:
    """Return the channels whose offsets a fit has changed by more than `significance` standard deviations.

    The uncertainty of the calibration counts, up to that of the prior of the drift.
    """
    change_rad = fit.parameters.offset_rad - found.parameters.offset_rad
    before = np.minimum(found.sigma.offset_rad, fit.sigma.offset_rad)
    normalised = change_rad / np.hypot(fit.sigma.offset_rad, before)
    order = np.argsort(-np.abs(normalised))
    return tuple(
        MovedChannel(int(channel), float(change_rad[channel]), float(normalised[channel]))
        for channel in order
        if abs(normalised[channel]) > significance
    )


def _verdict(
    found: StageCalibration,
    data: Observations,
    fit: TwinFit,
    then: Agreement,
    explained: Agreement,
    moved: tuple[MovedChannel, ...],
    options: CheckOptions,
) -> Verdict:
    largest = max((abs(each.change_rad) for each in moved), default=0.0)
    bound = max(options.unexplained * then.misfit, options.tolerated_misfit)
    if not explained.misfit <= bound or largest > options.largest_rad:
        return "broken"
    drifted = Observations(data.phases, data.inputs, predicted_all(Twin(found.layout, fit.parameters), data))
    change = _rms(relative_misfit(drifted.readings, predicted_all(found.twin, data), found.parameters.detector_dark))
    return "drifted" if moved and change > options.tolerated_misfit else "fresh"


def _rms(values: Array) -> float:
    return float(np.sqrt(np.nanmean(values**2))) if values.size else float("nan")


def distances(data: Observations, predicted: Array, dark: Array) -> Array:
    """Return the total variation distance of measured and predicted output distributions per setting, mean over inputs.

    Inputs that give no light, or readings that are not usable, are left out.
    """
    measured, modelled = np.maximum(data.readings - dark, 0.0), np.maximum(predicted - dark, 0.0)
    usable = np.isfinite(measured)
    measured, modelled = np.where(usable, measured, 0.0), np.where(usable, modelled, 0.0)
    totals = [values.sum(axis=2, keepdims=True) for values in (measured, modelled)]
    lit = (totals[0] > 0) & (totals[1] > 0)
    shares = [values / np.where(lit, total, 1.0) for values, total in zip((measured, modelled), totals, strict=True)]
    apart = 0.5 * np.abs(shares[0] - shares[1]).sum(axis=2)
    return apart.sum(axis=1) / np.maximum(lit[:, :, 0].sum(axis=1), 1)
