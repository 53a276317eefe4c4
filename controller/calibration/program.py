"""Programming of a matrix on a calibrated mesh: from a target to nominal heater phases.

    target ──▶ decomposition ──▶ signs of θ ──▶ refinement on the twin ──▶ inversion ──▶ nominal heater phases
               (ideal mesh)      (losses)       (couplers)                 (crosstalk, least power)

The decomposition assumes couplers of 50:50. With others an interferometer has no perfect bar or cross state. The
refinement moves all phases such that the whole mesh makes up for it, as far as it can. A unitary mesh cannot make up
for unequal losses, but some of the equivalent decompositions suffer less from them (`phase_signs`).

References
----------
.. [1] D. A. B. Miller, "Perfect optics with imperfect components", Optica 2, 747 (2015).
.. [2] S. Bandyopadhyay, R. Hamerly and D. Englund, "Hardware error correction for programmable photonics",
   Optica 8, 1247 (2021).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from photonloop.controller.calibration.calibrated_device import StageCalibration
from photonloop.controller.calibration.heater_phases import heater_phases, phases_adjoint
from photonloop.controller.calibration.matrix_merit import MatrixMerit, device_matrix, input_phases, matrix_merit
from photonloop.controller.calibration.phase_inversion import NominalPhases, PhaseInversion
from photonloop.controller.calibration.phase_signs import LARGEST_PORTS, best_signs
from photonloop.controller.calibration.program_errors import MatrixErrors, expected_errors
from photonloop.controller.decompose.fidelity import InputPhases, best_diagonals
from photonloop.controller.decompose.stage_phases import stage_phases
from photonloop.controller.learning.variables import Bounds, Phases, project
from photonloop.protocols.device import DriveDescription

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

MOST_STEPS = 500
"""Steps of one refinement."""

LEAST_RAD = 1e-3
"""Smallest nominal heater phase of a refinement within bounds: at 0 the derivative by it is not finite."""


@dataclass(frozen=True)
class ProgrammedMatrix:
    """Nominal heater phases for a matrix, and what the calibration predicts for them.

    Parameters
    ----------
    nominal
        Nominal heater phases [rad], shape (channels,).
    effective
        Wanted effective phases [rad], shape (channels,); NaN for heaters that no reading depends on.
    target
        The target, shape (ports, ports).
    matrix
        Predicted matrix from requested amplitudes to output fields, shape (ports, ports).
    expected
        Predicted errors of `matrix`, with the uncertainty of the calibration.
    input_phases
        Qualification of the fidelity: "fixed" if it holds for inputs that are lit together, "free" if their phases are
        not known. Amplitudes and phases of the outputs are always free.
    limited
        Channels whose bounds do not allow the wanted phase.
    steps
        Steps of the refinement.
    """

    nominal: Array
    effective: Array
    target: Complex
    matrix: Complex
    expected: MatrixErrors
    input_phases: InputPhases
    limited: tuple[int, ...]
    steps: int

    def heater_power_w(self, drive: DriveDescription) -> float:
        """Return the nominal electrical power of all heaters of the stage [W]."""
        return float(self.nominal.sum()) * drive.pi_power_w / np.pi


@dataclass(frozen=True)
class _Refined:
    """Phases with the least infidelity: effective or nominal ones, those of the inputs, infidelity and steps."""

    phases: Array
    input_phase_rad: Array
    infidelity: float
    steps: int


def program_matrix(found: StageCalibration, target: Complex, bounds: Bounds, rng: np.random.Generator) -> ProgrammedMatrix:
    """Return the nominal heater phases with which a calibrated stage has a transfer matrix.

    Parameters
    ----------
    found
        Calibration of the stage, a mesh of topology "clements", "reck" or "svd".
    target
        Target matrix, as `targets.checked_target` returns it, shape (ports, ports).
    bounds
        Bounds of the nominal heater phases.
    rng
        Draws the starts of the search for signs (`phase_signs`).

    Raises
    ------
    ConfigError, ValueError
        As `stage_phases`.

    Notes
    -----
    Heaters of output phases γ stay at their lower bounds, because no reading of this stage depends on them.
    """
    merit = matrix_merit(found, target)
    start = stage_phases(found.stage, target @ np.linalg.inv(merit.entering))
    if found.stage.ports <= LARGEST_PORTS:
        start = best_signs(merit, start, rng)
    refined = _descended(merit, start, np.zeros(len(target)), found.steady_inputs)
    effective = refined.phases.copy()
    effective[found.layout.gamma] = np.nan
    inverted = PhaseInversion(found.twin, bounds).nominal(effective[np.newaxis])
    nominal, steps = inverted.nominal[0], refined.steps
    if inverted.limited.any() or nominal.sum() > bounds.total:
        within = _within_bounds(merit, refined, project(nominal, bounds), found.steady_inputs, bounds)
        nominal, steps = within.phases, steps + within.steps
    return _programmed(found, nominal, effective, target, inverted, steps)


def program_phases(found: StageCalibration, phases: Array, target: Complex, bounds: Bounds) -> ProgrammedMatrix:
    """Return the nominal heater phases for effective `phases` [rad], shape (channels,), without refinement.

    `target` is the matrix from requested amplitudes to outputs of an ideal mesh with these phases.

    Raises
    ------
    ValueError
        The heaters may not give the power that these phases need.
    """
    inverted = PhaseInversion(found.twin, bounds).nominal(phases[np.newaxis])
    nominal = inverted.nominal[0]
    if nominal.sum() > bounds.total:
        raise ValueError(
            f"these phases need {nominal.sum():.4g} rad of nominal heater phase together, but the power limit of stage "
            f"{found.stage.name} allows {bounds.total:.4g} rad: program a matrix instead, whose phases can be chosen"
        )
    return _programmed(found, nominal, phases, target, inverted, 0)


def reprogrammed(found: StageCalibration, target: Complex, nominal: Phases, bounds: Bounds) -> Phases:
    """Return nominal heater phases for `target` near `nominal`, shape (channels,), after the calibration changed.

    No heater moves by a turn, except if its bounds leave no other way.
    """
    merit = matrix_merit(found, target)
    matrix = device_matrix(found, found.twin, nominal)
    inputs = np.angle(best_diagonals(target, matrix, input_phases(found), restarts=1).inputs)
    refined = _descended(merit, found.phases(nominal[np.newaxis])[0], inputs, found.steady_inputs)
    effective, gamma = refined.phases.copy(), found.layout.gamma
    effective[gamma] = np.where(nominal[gamma] > bounds.low[gamma], effective[gamma], np.nan)
    inversion = PhaseInversion(found.twin, bounds)
    return project(inversion.nominal(effective[np.newaxis], nominal[np.newaxis], keep_turns=True).nominal[0], bounds)


def _programmed(
    found: StageCalibration, nominal: Array, effective: Array, target: Complex, inverted: NominalPhases, steps: int
) -> ProgrammedMatrix:
    return ProgrammedMatrix(
        nominal=nominal,
        effective=effective,
        target=target,
        matrix=device_matrix(found, found.twin, nominal),
        expected=expected_errors(found, nominal, target),
        input_phases=input_phases(found),
        limited=tuple(int(channel) for channel in np.flatnonzero(inverted.limited[0])),
        steps=steps,
    )


def _descended(merit: MatrixMerit, start: Array, inputs: Array, steady_inputs: bool) -> _Refined:
    """Return effective phases of least infidelity near `start`, with phases of the inputs from `inputs`."""
    channels = start.size

    def objective(vector: Array) -> tuple[float, Array]:
        value, by_phases, by_inputs = merit.value_and_slopes(vector[:channels], vector[channels:])
        return value, np.concatenate((by_phases, np.zeros_like(by_inputs) if steady_inputs else by_inputs))

    done = minimize(
        objective,
        np.concatenate((start, inputs)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": 1e-11, "gtol": 1e-9, "maxcor": 30},
    )
    return _Refined(done.x[:channels], done.x[channels:], float(done.fun), int(done.nit))


def _within_bounds(merit: MatrixMerit, start: _Refined, nominal: Array, steady_inputs: bool, bounds: Bounds) -> _Refined:
    """Return nominal heater phases of least infidelity within `bounds`, from `nominal`."""
    layout, own, crosstalk = merit.twin.layout, merit.twin.parameters, merit.twin.crosstalk
    channels = nominal.size

    def objective(vector: Array) -> tuple[float, Array]:
        at = heater_phases(layout, own, crosstalk, vector[np.newaxis, :channels])
        value, by_effective, by_inputs = merit.value_and_slopes(at.effective[0], vector[channels:])
        by_x = phases_adjoint(layout, own, crosstalk, at, by_effective[np.newaxis]).by_x[0]
        excess = max(float(vector[:channels].sum()) - bounds.total, 0.0)
        by_inputs = np.zeros_like(by_inputs) if steady_inputs else by_inputs
        return value + excess**2, np.concatenate((by_x + 2 * excess, by_inputs))

    low = np.minimum(bounds.low + LEAST_RAD, bounds.high)
    limits = [*zip(low, bounds.high, strict=True), *[(None, None)] * len(merit.target)]
    done = minimize(
        objective,
        np.concatenate((np.clip(nominal, low, bounds.high), start.input_phase_rad)),
        jac=True,
        method="L-BFGS-B",
        bounds=limits,
        options={"maxiter": MOST_STEPS, "maxfun": 2 * MOST_STEPS, "ftol": 1e-11, "gtol": 1e-9, "maxcor": 30},
    )
    return _Refined(project(done.x[:channels], bounds), done.x[channels:], float(done.fun), int(done.nit))
