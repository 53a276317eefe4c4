"""Refinement of a programmed matrix by measurements around it.

A calibration holds for all settings, within its uncertainty and as far as its model goes. Around one setting a few
readings say more: errors of the model act there like errors of the offsets. So the phases around the programmed setting
are fitted again, and the matrix is programmed again on the twin that describes this neighbourhood.

    programmed setting ──▶ read it, and settings around it ──▶ refit of the offsets ──▶ step to the target on the twin
             ▲                                                                                  │
             └──────────────────────────────────────────────────────────────────────────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.fit_problem import FitProblem
from photonloop.controller.calibration.matrix_merit import device_matrix
from photonloop.controller.calibration.program import reprogrammed
from photonloop.controller.calibration.program_measurement import errors_of_readings, fitted_input_phases, measured_powers
from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin import Twin
from photonloop.controller.calibration.twin_descent import fit_descent
from photonloop.controller.calibration.twin_fit import fit_least_squares
from photonloop.controller.calibration.twin_misfit import Observations
from photonloop.controller.calibration.twin_parameters import TwinParameters, TwinPrior, filled
from photonloop.controller.learning.variables import Bounds, Phases, reflect

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

SPREAD_RAD = 0.25
"""Standard deviation of the heater phases of the settings around a center."""

OFFSET_SIGMA_RAD = 0.1
"""Prior standard deviation of the offsets: what the model's errors amount to around one setting."""

UNKNOWN_PHASE_RAD = 1.8
"""Prior standard deviation of the phase of an input, if it is not known."""

AROUND = 3
"""Settings around each center; the center itself comes in addition."""

LARGEST_LEAST_SQUARES = 16
"""Ports up to which the offsets are fitted by Levenberg–Marquardt."""

DESCENT_STEPS = 150
"""Steps of Adam beyond."""


@dataclass(frozen=True)
class Refinement:
    """Result of a refinement.

    Parameters
    ----------
    nominal
        Nominal heater phases of the best setting [rad], shape (channels,).
    twin
        Twin that describes this neighbourhood.
    tvd
        Total variation distance measured once at each center, in the order of reading.
    settings
        Settings that were read.
    """

    nominal: Array
    twin: Twin
    tvd: tuple[float, ...]
    settings: int


def refined(
    reader: SettingReader,
    found: StageCalibration,
    nominal: Phases,
    target: Complex,
    bounds: Bounds,
    settings: int,
    rng: np.random.Generator,
) -> Refinement:
    """Improve a programmed setting by reading `settings` settings around it.

    Parameters
    ----------
    reader
        Reads the stage.
    found
        Calibration of the stage.
    nominal
        Programmed nominal heater phases [rad], shape (channels,).
    target
        Target matrix, shape (ports, ports).
    bounds
        Bounds of the nominal heater phases.
    settings
        Number of settings to be read, at least 1.
    rng
        Draws the settings and inputs.
    """
    inputs = _inputs(found, rng)
    center, here, left = nominal, found, settings
    parts: list[Observations] = []
    tried: list[tuple[float, Array]] = []
    while left > 0:
        # The last setting is a center: every center is read.
        around = max(min(AROUND, left - 2), 0)
        moved = reflect(center + SPREAD_RAD * rng.standard_normal((around, center.size)), bounds)
        read = reader.read(np.concatenate((center[np.newaxis], moved)), inputs)
        left -= 1 + around
        parts.append(read.observations())
        errors = errors_of_readings(found, center, target, read.readings[:1, : found.layout.ports], here.twin)
        tried.append((errors.tvd, center))
        if left > 0:
            here = replace(here, parameters=_refitted(found, here, _joined(parts), rng))
            center = reprogrammed(here, target, center, bounds)
    best = min(tried, key=lambda each: each[0])[1]
    return Refinement(best, here.twin, tuple(tvd for tvd, _ in tried), settings)


def _inputs(found: StageCalibration, rng: np.random.Generator) -> Array:
    """Return one lit input each and, if the phases of the inputs are known, several lit inputs, (samples, ports)."""
    ports = found.layout.ports
    if not found.steady_inputs:
        return np.eye(ports)
    several = rng.uniform(0, 1, (2 * ports, ports)) * (rng.random((2 * ports, ports)) < 0.5)
    return np.concatenate((np.eye(ports), several))


def _refitted(found: StageCalibration, here: StageCalibration, data: Observations, rng: np.random.Generator) -> TwinParameters:
    """Return the parameters of the twin that describes the neighbourhood that was read, starting from `here`."""
    own, start = found.parameters, here.parameters
    sigma = filled(
        found.layout,
        offset_rad=OFFSET_SIGMA_RAD,
        level=0.02 * own.level,
        input_gain=0.005,
        detector_gain=0.005,
        input_phase_rad=0.0 if found.steady_inputs else UNKNOWN_PHASE_RAD,
    )
    if not found.steady_inputs:
        matrix = device_matrix(here, here.twin, data.phases[0])[: found.layout.taps]
        powers = measured_powers(here, data.readings[:1, : found.layout.ports])[0]
        start = replace(start, input_phase_rad=fitted_input_phases(start, matrix, powers))
    problem = FitProblem(TwinPrior(replace(own, input_phase_rad=start.input_phase_rad), sigma), data, found.noise)
    if found.layout.ports <= LARGEST_LEAST_SQUARES:
        return fit_least_squares(Twin(found.layout, start), problem, max_steps=12, tolerance=1e-4).parameters
    return fit_descent(Twin(found.layout, start), problem, rng, steps=DESCENT_STEPS).parameters


def _joined(parts: list[Observations]) -> Observations:
    """Return observations with the same inputs as one."""
    phases, readings = [part.phases for part in parts], [part.readings for part in parts]
    return Observations(np.concatenate(phases), parts[0].inputs, np.concatenate(readings))
