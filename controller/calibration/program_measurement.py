"""Measured errors of a programmed matrix: readings with one lit input each, compared with those of the target.

Modulators are not perfectly dark, so an input at amplitude 0 gives some light as well. The target is therefore applied
to the light that the inputs give, as the calibration found it. This light interferes. If the phases of the inputs are
not known, the twin is fitted to the readings with one phase per input. Readings are divided by the detectors' gains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.detector_memory import without_memory
from photonloop.controller.calibration.input_fields import input_fields
from photonloop.controller.calibration.matrix_merit import device_matrix
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_parameters import TwinParameters
from photonloop.controller.decompose.fidelity import best_diagonals, power_errors, total_variation_distance
from photonloop.controller.learning.variables import Phases

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

MEAN_OF_NORMAL = np.sqrt(2 / np.pi)
"""Mean absolute value of a standard normal variable."""

STARTS = 6
"""Random starts of a search for the phases of the inputs."""


@dataclass(frozen=True)
class MeasuredErrors:
    """Measured errors of the powers at the outputs.

    Parameters
    ----------
    tvd
        Total variation distance of the output distributions, mean over the inputs.
    tvd_noise
        The distance that the noise of the readings alone would give; NaN for a single repeat.
    power_rms, power_largest
        Errors of the powers relative to the power at one input, after one common factor.
    repeats
        Settings that were averaged.
    detectors_left_out
        Detectors whose readings could not be used.
    """

    tvd: float
    tvd_noise: float
    power_rms: float
    power_largest: float
    repeats: int
    detectors_left_out: tuple[int, ...]


def measured_errors(
    reader: SettingReader, found: StageCalibration, nominal: Phases, target: Complex, repeats: int, twin: Twin | None = None
) -> MeasuredErrors:
    """Read a programmed setting `repeats` times with one lit input each, and return its errors.

    Parameters
    ----------
    reader
        Reads the stage.
    found
        Calibration of the stage: gains of inputs and detectors, dark readings and light of dark inputs.
    nominal
        Nominal heater phases [rad], shape (channels,).
    target
        The target, shape (ports, ports).
    repeats
        Number of readings that are averaged.
    twin
        A twin that describes this setting better than `found`; None: there is none.

    Raises
    ------
    ValueError
        No reading can be used.
    """
    read = reader.read(np.repeat(nominal[np.newaxis], repeats, axis=0), np.eye(found.layout.ports))
    return errors_of_readings(found, nominal, target, read.readings, twin)


def errors_of_readings(
    found: StageCalibration, nominal: Phases, target: Complex, readings: Array, twin: Twin | None = None
) -> MeasuredErrors:
    """Return the errors of `readings` of one setting with one lit input each, shape (repeats, inputs, taps).

    `found`, `nominal` and `target` are as for `measured_errors`. `twin` describes this setting better than `found`.
    """
    powers = measured_powers(found, readings)
    used = np.isfinite(powers).all(axis=(0, 2))
    if not used.any():
        raise ValueError(f"no detector of stage {found.stage.name} has usable readings: check the light and the detectors")
    mean = powers.mean(axis=0)
    wanted, powers, mean = (
        target_powers(found, twin or found.twin, nominal, target, mean)[used],
        powers[:, used],
        np.maximum(mean[used], 0.0),
    )
    errors = power_errors(wanted, mean)
    noise = np.nan
    if len(powers) > 1:
        sigma = powers.std(axis=0, ddof=1) / np.sqrt(len(powers))
        noise = float(0.5 * MEAN_OF_NORMAL * (sigma / mean.sum(axis=0)).sum(axis=0).mean())
    left_out = tuple(int(tap) for tap in np.flatnonzero(~used))
    tvd = total_variation_distance(wanted, mean)
    return MeasuredErrors(tvd, noise, errors.rms, errors.largest, len(powers), left_out)


def measured_powers(found: StageCalibration, readings: Array) -> Array:
    """Return powers at the outputs, (repeats, outputs, inputs), in the unit of |E|², from (repeats, inputs, taps).

    Readings are those of successive samples, with the first one at the start of a setting.
    """
    own = found.parameters
    linear = without_memory(readings - own.detector_dark, own.detector_memory)
    linear = linear / (1 - own.compression * linear / found.layout.full_scale)
    return (linear / found.twin.gain).transpose(0, 2, 1)


def target_powers(found: StageCalibration, twin: Twin, nominal: Phases, target: Complex, powers: Array) -> Array:
    """Return the powers that `target` gives at the detectors, (taps, inputs), for one lit input each.

    If the phases of the inputs are not known, they are those with which `twin` describes the measured `powers`,
    (taps, inputs), at nominal heater phases `nominal`, (channels,).
    """
    rows, phases = target[: found.layout.taps], np.zeros(len(target))
    if not found.steady_inputs:
        matrix = device_matrix(found, twin, nominal)
        fitted = fitted_input_phases(found.parameters, matrix[: found.layout.taps], powers)
        phases = fitted - np.angle(best_diagonals(target, matrix, "free").inputs)
    return _powers(found.parameters, rows, phases)


def fitted_input_phases(own: TwinParameters, matrix: Complex, powers: Array) -> Array:
    """Return the phases of the inputs [rad], (ports,), with which `matrix` describes measured powers best.

    They act on the light of dark inputs, which interferes with that of the lit one.

    Parameters
    ----------
    own
        Gains and light of dark inputs.
    matrix
        Matrix from inputs with these phases to the detectors, shape (taps, ports).
    powers
        Measured powers with one lit input each, shape (taps, ports); NaN: not to be used.
    """
    usable = np.isfinite(powers)
    if own.input_leak == 0 or not usable.any():
        return np.zeros(matrix.shape[1])

    def misfit(phases: Array) -> Array:
        expected = _powers(own, matrix, np.append(0.0, phases))
        scale = (expected * powers)[usable].sum() / (expected[usable] ** 2).sum()
        return (scale * expected - powers)[usable]

    starts = np.random.default_rng(0).uniform(0, 2 * np.pi, (STARTS, matrix.shape[1] - 1))
    return np.append(0.0, min((least_squares(misfit, start, method="lm") for start in starts), key=lambda end: end.cost).x)


def _powers(own: TwinParameters, matrix: Complex, phases: Array) -> Array:
    single = np.abs(input_fields(own, np.eye(own.input_gain.size)).single[0])
    return np.abs(matrix @ (np.exp(1j * phases)[:, np.newaxis] * single)) ** 2
