"""The chip in double precision, effect after effect, without noise: what the kernels must come to, the slow way.

Nothing here is compiled, shared among threads or remembered. For tests and scripts in the chip's own process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from protocols.device import Drive
from simulator import crosstalk, heater, modulator, nonlinearity, photodiode
from simulator.ambient import Moment
from simulator.chip import Chip
from simulator.mesh import transfer_matrix
from simulator.stage import stage_power_w


def moment_now(chip: Chip) -> Moment:
    """Return the present moment on the chip's clock."""
    return chip.ambient().moment(chip.status().clock_s)


def power_w(chip: Chip, stage: int, volts: Drive, moment: Moment | None = None) -> NDArray[np.float64]:
    """Return the settled power [W] of each heater of a stage at `volts`, shape (channels of the stage,), before crosstalk."""
    return stage_power_w(chip.parameters, chip.stages_at(moment or moment_now(chip))[stage], np.asarray(volts, np.float64))


def phases_rad(chip: Chip, stage: int, power_w: NDArray[np.float64], moment: Moment | None = None) -> NDArray[np.float64]:
    """Return the phases [rad] of a stage whose heaters give off `power_w`, shape (channels,): crosstalk, drift, curve."""
    moment = moment or moment_now(chip)
    here = chip.stages_at(moment)[stage]
    added_rad = chip.ambient().offset_rad(stage, moment, here.truth.imbalance)
    offset_rad = here.truth.offset_rad if added_rad is None else here.truth.offset_rad + added_rad
    felt_w = crosstalk.felt_w(power_w, here.pairs)
    return heater.phase_rad(felt_w, here.truth.pi_power_w, offset_rad, chip.parameters.heater.curvature)


def matrix(chip: Chip, stage: int, phases_rad: NDArray[np.float64], moment: Moment | None = None) -> NDArray[np.complex128]:
    """Return the matrix of a stage at its phases, complex128 (ports, ports); taps and nonlinearity come behind it."""
    here = chip.stages_at(moment or moment_now(chip))[stage]
    theta, phi, gamma = np.split(phases_rad, (here.mesh.interferometers, 2 * here.mesh.interferometers))
    truth, shifter_db = here.truth, chip.parameters.loss.shifter_db
    return transfer_matrix(here.mesh, theta, phi, gamma, truth.coupler_error_rad, truth.loss_db, shifter_db=shifter_db)


def passed(chip: Chip, stage: int, field: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return fields behind the tap and the nonlinearity of a stage; |E|² = 1 is one port's share of the nominal laser power."""
    parameters, here = chip.parameters, chip.stages[stage].levels
    field = np.sqrt(here.passed) * field
    if parameters.nonlinearity.kind == "none":
        return field
    own = parameters.nonlinearity
    return nonlinearity.electro_optic(field, own.detected_fraction, here.gain_rad, own.bias_rad)


def currents_a(
    chip: Chip, powers_w: list[NDArray[np.float64]], inputs: NDArray, moment: Moment | None = None
) -> NDArray[np.float64]:
    """Return the photocurrents [A], dark current included, behind the stage of the last of `powers_w`.

    Parameters
    ----------
    powers_w
        Power of the heaters of stage 0, 1, …, (channels of the stage,) each: settled or at whatever instant.
    inputs
        Amplitudes as they were asked for, shape (samples, ports).
    moment
        When; None: now.

    Returns
    -------
        (samples, ports) [A], before saturation of the converter.
    """
    moment = moment or moment_now(chip)
    exact = np.asarray(inputs, np.complex128 if np.iscomplexobj(inputs) else np.float64)
    field = modulator.modulated(exact, chip.parameters.modulator, chip.input_truth()).astype(np.complex128)
    field = field * np.sqrt(chip.ambient().laser_power(moment))
    for stage, watts in enumerate(powers_w):
        if stage > 0:
            field = passed(chip, stage - 1, field)
        field = field @ matrix(chip, stage, phases_rad(chip, stage, watts, moment), moment).T
    return _detected_a(chip, len(powers_w) - 1, field, moment)


def settled_currents_a(
    chip: Chip, stage: int, volts: Drive, inputs: NDArray, moment: Moment | None = None
) -> NDArray[np.float64]:
    """Return `currents_a` of one setting of a stage, `volts` (channels of the stage,), the others settled at the held drive."""
    held = chip.held_drive()
    drives = [held[s.channels] for s in chip.stages[:stage]] + [np.asarray(volts)]
    return currents_a(chip, [power_w(chip, k, v, moment) for k, v in enumerate(drives)], inputs, moment)


def converted_a(chip: Chip, stage: int, currents_a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what the converter of a stage makes of currents [A]."""
    own = chip.stages[stage].levels
    if own.saturates:
        currents_a = np.minimum(currents_a, own.full_scale_a)
    return np.maximum(np.floor(currents_a / own.code_a + 0.5), 0.0) * own.code_a if own.code_a > 0 else currents_a


def _detected_a(chip: Chip, stage: int, field: NDArray[np.complex128], moment: Moment) -> NDArray[np.float64]:
    diode, here = chip.parameters.photodiode, chip.stages_at(moment)[stage]
    linear_a = here.levels.ampere * here.truth.responsivity * np.abs(field) ** 2
    current_a = photodiode.compressed_a(linear_a, diode.saturation_a) + diode.dark_a
    for fault in chip.ambient().struck(moment):
        if fault.kind == "open_detector" and fault.stage == stage and fault.port is not None:
            current_a[:, fault.port] = 0.0
    return current_a
