"""Reference computation of a chip's readings in double precision, one effect after the other, without noise.

The compiled kernels are tested against it. Nothing here is compiled, shared among threads or cached. For tests and
scripts in the chip's process.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import Drive
from photonloop.simulator.engine.ambient import Moment
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.heater_operation import stage_power_w
from photonloop.simulator.engine.rings import ring_of
from photonloop.simulator.physics import adc, crosstalk, heater, modulator, nonlinearity, photodiode
from photonloop.simulator.physics.mesh import Elements, elements, propagated
from photonloop.simulator.physics.ring_rows import row_transmissions
from photonloop.simulator.physics.running_phase import effective_phases
from photonloop.simulator.physics.weight_bank import Ring, Transmissions


def moment_now(chip: Chip) -> Moment:
    """Return the present moment on the chip's clock."""
    return chip.ambient().moment(chip.status().clock_s)


def power_w(chip: Chip, stage: int, volts: Drive, moment: Moment | None = None) -> NDArray[np.float64]:
    """Return the settled power [W] of each heater of a stage at `volts`, (channels of the stage,), before crosstalk."""
    return stage_power_w(chip.parameters, chip.stages_at(moment or moment_now(chip))[stage], np.asarray(volts, np.float64))


def phases_rad(chip: Chip, stage: int, power_w: NDArray[np.float64], moment: Moment | None = None) -> NDArray[np.float64]:
    """Return the effective phases [rad] of a stage at heater powers `power_w`, (channels,).

    Crosstalk, curve, offset and drift of every heated arm, the phases of all other segments, and what they add to the
    phases of interferometers and output screen (`running_phase`).
    """
    moment = moment or moment_now(chip)
    here = chip.stages_at(moment)[stage]
    added_rad = chip.ambient().offset_rad(stage, moment, here.truth.imbalance, heating_k(chip, moment))
    offset_rad = here.truth.offset_rad if added_rad is None else here.truth.offset_rad + added_rad
    received_w = segments_w(chip, stage, power_w)
    own_w = power_w + received_w[here.segments.own]
    heated_rad = heater.phase_rad(own_w, here.truth.arm_pi_power_w, offset_rad, chip.parameters.heater.curvature)
    if here.rings is not None:
        return heated_rad
    return effective_phases(here.mesh, heated_rad, here.unheated_rad_per_w * received_w)


def heating_k(chip: Chip, moment: Moment) -> float:
    """Return the rise of the chip's temperature [K] due to all heaters at the held drive."""
    held = chip.held_drive()
    total_w = sum(float(power_w(chip, k, held[s.channels], moment).sum()) for k, s in enumerate(chip.stages))
    return chip.parameters.temperature.heating_k_per_w * total_w


def segments_w(chip: Chip, stage: int, power_w: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the power [W] that each segment receives from other heaters of `power_w`, (channels,); (segments,)."""
    return crosstalk.received_w(crosstalk.crosstalk_of(chip.stages[stage].segments, chip.parameters.crosstalk), power_w)


def matrix(chip: Chip, stage: int, phases_rad: NDArray[np.float64], moment: Moment | None = None) -> NDArray[np.complex128]:
    """Return the transfer matrix of a stage at its phases, complex128 (ports, ports), without tap and nonlinearity."""
    mesh = chip.stages[stage].mesh
    return propagated(mesh, parts(chip, stage, phases_rad, moment), np.eye(mesh.ports, dtype=np.complex128))


def parts(chip: Chip, stage: int, phases_rad: NDArray[np.float64], moment: Moment | None = None) -> Elements:
    """Return the matrices of a stage's interferometers and of its output screen at its phases."""
    here = chip.stages_at(moment or moment_now(chip))[stage]
    theta, phi, gamma = np.split(phases_rad, (here.mesh.interferometers, 2 * here.mesh.interferometers))
    truth, shifter_db = here.truth, chip.parameters.loss.shifter_db
    return elements(here.mesh, theta, phi, gamma, truth.coupler_error_rad, truth.loss_db, shifter_db)


def passed(chip: Chip, stage: int, field: NDArray[np.complex128]) -> NDArray[np.complex128]:
    """Return fields behind tap and nonlinearity of a stage; |E|² = 1 is a port's share of the nominal laser power."""
    parameters, here = chip.parameters, chip.stages[stage].levels
    field = np.sqrt(here.passed) * field
    if parameters.nonlinearity.kind == "none":
        return field
    own = parameters.nonlinearity
    return nonlinearity.electro_optic(field, own.detected_fraction, here.gain_rad, own.bias_rad)


def currents_a(
    chip: Chip, powers_w: list[NDArray[np.float64]], inputs: NDArray, moment: Moment | None = None
) -> NDArray[np.float64]:
    """Return the photocurrents [A], including dark current, of the stage of the last of `powers_w`.

    Parameters
    ----------
    powers_w
        Heater powers of stage 0, 1, …, each of shape (channels of the stage,): settled, or at any time.
        Only the last one counts for weight banks, which are in parallel.
    inputs
        Requested amplitudes, shape (samples, ports).
    moment
        Time; None: now.

    Returns
    -------
        Photocurrents, shape (samples, tap ports) [A], before saturation of the ADC.
    """
    moment = moment or moment_now(chip)
    field, last = entering(chip, inputs, moment), len(powers_w) - 1
    if chip.stages[last].rings is not None:
        shares = ring_shares(chip, last, phases_rad(chip, last, powers_w[last], moment), moment)
        return balanced_a(chip, last, shares, field, moment)
    for stage, watts in enumerate(powers_w):
        if stage > 0:
            field = passed(chip, stage - 1, field)
        field = field @ matrix(chip, stage, phases_rad(chip, stage, watts, moment), moment).T
    return detected_a(chip, last, linear_currents_a(chip, last, field, moment)[0], moment)


def entering(chip: Chip, inputs: NDArray, moment: Moment | None = None) -> NDArray[np.complex128]:
    """Return the fields that enter the chip for amplitudes `inputs`, (samples, ports): modulators, fibres, power.

    |E|² = 1 is a port's share of the nominal laser power.
    """
    moment, ambient = moment or moment_now(chip), chip.ambient()
    exact = np.asarray(inputs, np.complex128 if np.iscomplexobj(inputs) else np.float64)
    field = modulator.modulated(exact, modulator.own_modulator(chip.parameters), chip.input_truth()).astype(np.complex128)
    order = ambient.input_order(moment)
    factors = ambient.input_factors([moment], chip.input_truth().path_m, heating_k(chip, moment))
    if order is not None:
        field = field[:, order]
    if factors is not None:
        field = field * factors[0]
    return field * np.sqrt(ambient.laser_powers(moment))


def ring_shares(chip: Chip, stage: int, phases_rad: NDArray[np.float64], moment: Moment | None = None) -> Transmissions:
    """Return the transmissions of a weight bank's rows, shape (outputs, inputs), at the rings' phases, (channels,)."""
    return row_transmissions(*row_arguments(chip, stage, phases_rad, moment or moment_now(chip)))


def row_arguments(
    chip: Chip, stage: int, phases_rad: NDArray[np.float64], moment: Moment
) -> tuple[NDArray[np.float64], Ring, NDArray[np.float64] | None, NDArray[np.float64] | None]:
    """Return the arguments of `ring_rows.row_transmissions` and `row_slopes` for a weight bank at its phases."""
    bus_rad, shift_rad = chip.stages[stage].truth.bus_rad, chip.ambient().wavelength_shift_rad(moment)
    phases = phases_rad.reshape(-1, chip.parameters.ports)
    return phases, ring_of(chip.parameters), shift_rad, bus_rad.reshape(phases.shape) if bus_rad.size else None


def pair_currents_a(
    chip: Chip, stage: int, shares: Transmissions, field: NDArray[np.complex128], moment: Moment
) -> tuple[tuple[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]:
    """Return the photocurrents [A] of a bank's drop and through diodes without saturation, and those per |E|² = 1."""
    here = chip.stages_at(moment)[stage]
    ampere = here.levels.ampere * here.truth.responsivity
    for port in _open_detectors(chip, stage, moment):
        ampere[port] = 0.0
    power = np.abs(field) ** 2
    return (power @ shares.drop_port.T * ampere, power @ shares.through_port.T * ampere), ampere


def balanced_a(
    chip: Chip, stage: int, shares: Transmissions, field: NDArray[np.complex128], moment: Moment
) -> NDArray[np.float64]:
    """Return the currents [A] of a bank's balanced pairs, shape (samples, outputs). Dark currents cancel."""
    saturation_a = chip.parameters.photodiode.saturation_a
    (drop_a, through_a), _ = pair_currents_a(chip, stage, shares, field, moment)
    return photodiode.compressed_a(drop_a, saturation_a) - photodiode.compressed_a(through_a, saturation_a)


def settled_currents_a(
    chip: Chip, stage: int, volts: Drive, inputs: NDArray, moment: Moment | None = None
) -> NDArray[np.float64]:
    """Return `currents_a` of a stage settled at `volts` [V], (channels of the stage,), the others at the held drive."""
    held = chip.held_drive()
    drives = [held[s.channels] for s in chip.stages[:stage]] + [np.asarray(volts)]
    return currents_a(chip, [power_w(chip, k, v, moment) for k, v in enumerate(drives)], inputs, moment)


def converted_a(chip: Chip, stage: int, currents_a: NDArray[np.float64], moment: Moment | None = None) -> NDArray[np.float64]:
    """Return the readings [A] for the photocurrents of a setting, (samples, tap ports): amplifier memory and ADC."""
    here = chip.stages_at(moment or moment_now(chip))[stage]
    current_a, own = remembered_a(chip, currents_a), here.levels
    changes = chip.ambient().converter_changes(stage, moment or moment_now(chip))
    gain, added_lsb = (1.0, 0.0) if changes is None else changes
    current_a = current_a * gain + (here.truth.zero_lsb + added_lsb) * own.code_a
    full_scale_a = own.full_scale_a if own.saturates else np.inf
    return adc.converted_a(current_a, own.code_a, full_scale_a, is_signed=here.rings is not None)


def remembered_a(chip: Chip, currents_a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the output [A] of the amplifiers for the photocurrents of a setting, (samples, tap ports)."""
    return photodiode.filtered_a(currents_a, photodiode.kept_share(chip.parameters.photodiode, chip.parameters.sample_s))


def linear_currents_a(
    chip: Chip, stage: int, field: NDArray[np.complex128], moment: Moment
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the photocurrents [A] of a stage without saturation, and each detector's current [A] per |E|² = 1.

    `field`, (samples, ports), is the field at the detectors.
    """
    here = chip.stages_at(moment)[stage]
    ampere = here.levels.ampere * here.truth.responsivity
    for port in _open_detectors(chip, stage, moment):
        ampere[port] = 0.0
    return ampere * np.abs(field) ** 2, ampere


def detected_a(chip: Chip, stage: int, linear_a: NDArray[np.float64], moment: Moment) -> NDArray[np.float64]:
    """Return `linear_currents_a` with saturation of the diodes and dark current."""
    diode = chip.parameters.photodiode
    current_a = photodiode.compressed_a(linear_a, diode.saturation_a) + diode.dark_a
    for port in _open_detectors(chip, stage, moment):
        current_a[:, port] = 0.0
    return current_a


def _open_detectors(chip: Chip, stage: int, moment: Moment) -> list[int]:
    faults = chip.ambient().faults_at(moment)
    return [f.port for f in faults if f.kind == "open_detector" and f.stage == stage and f.port is not None]
