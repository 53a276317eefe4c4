"""Fit of what drifts: offsets, input gains and phases, level and dark readings, starting from a calibration.

All other parameters keep their values. The prior is centred on the calibration and as wide as the expected drift, so a
few settings are enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.fit_problem import FitProblem, TwinFit
from photonloop.controller.calibration.twin_fit import fit_least_squares
from photonloop.controller.calibration.twin_misfit import Observations
from photonloop.controller.calibration.twin_parameters import TwinPrior, filled


@dataclass(frozen=True)
class DriftSize:
    """Expected changes since the calibration, as standard deviations.

    Parameters
    ----------
    offset_rad, input_phase_rad
        Of each offset and of the phase of each input [rad].
    input_gain, detector_gain
        Of each relative gain.
    level
        Of the laser power, relative.
    dark
        Of each dark reading, in standard deviations of a reading without light.

    Notes
    -----
    The defaults are about three times what is published for stabilised silicon chips: 0.01 to 0.02 rad per heater and
    0.5 % of laser power within hours.
    """

    offset_rad: float = 0.06
    input_phase_rad: float = 0.02
    input_gain: float = 0.005
    detector_gain: float = 0.001
    level: float = 0.02
    dark: float = 1.0


def drift_prior(found: StageCalibration, drift: DriftSize) -> TwinPrior:
    """Return the prior of a stage that was calibrated and may have drifted; everything that does not drift is fixed."""
    parameters = found.parameters
    sigma = filled(
        found.layout,
        offset_rad=drift.offset_rad,
        input_phase_rad=drift.input_phase_rad if found.steady_inputs else 0.0,
        input_gain=drift.input_gain,
        detector_gain=drift.detector_gain,
        level=drift.level * parameters.level,
        detector_dark=drift.dark * found.noise.dark,
    )
    return TwinPrior(parameters, sigma)


def fit_drift(
    found: StageCalibration, data: Observations, drift: DriftSize, held_out: Observations | None = None, max_steps: int = 12
) -> TwinFit:
    """Fit what drifts to `data`, starting from a calibration.

    Parameters
    ----------
    found
        The calibration.
    data, held_out
        Settings that were read now; `held_out` are not fitted.
    drift
        Expected size of the changes.
    max_steps
        Largest number of steps of the fit.
    """
    problem = FitProblem(drift_prior(found, drift), data, found.noise, held_out)
    return fit_least_squares(found.twin, problem, max_steps)
