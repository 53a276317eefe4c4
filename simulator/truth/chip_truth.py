"""True phases, matrices and exact gradients of a chip in double precision, for tests and scripts in the chip's process.

All values are for settled heaters at the present time of the chip's clock, including crosstalk, drift, faults and laser
power.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.protocols.device import Drive, Inputs
from photonloop.simulator.engine.chip import Chip
from photonloop.simulator.engine.heater_operation import heater_operation, source_of
from photonloop.simulator.engine.stage import Stage
from photonloop.simulator.physics import crosstalk, dac, photodiode
from photonloop.simulator.physics.ring_rows import row_slopes
from photonloop.simulator.physics.running_phase import effective_phases_transposed
from photonloop.simulator.truth import reference
from photonloop.simulator.truth.adjoint import Fields, backward, forward

LossAndSlope = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
"""From readings [A], (samples, tap ports), to a loss and its derivatives by the readings [1/A], same shape."""


class TruePhases(NamedTuple):
    """Effective phases of one stage [rad] (`running_phase`): θ and φ per interferometer, γ per output."""

    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]


class Gradient(NamedTuple):
    """A loss on the readings of one stage at one drive, and its derivatives.

    Parameters
    ----------
    loss
        The loss at noise-free readings.
    theta, phi, gamma
        With respect to the true phases [1/rad], shapes as in `TruePhases`; empty for a weight bank.
    ring
        With respect to the true phases of a weight bank's rings [1/rad], shape (channels,); empty for a mesh.
    drive_v
        With respect to the voltages of the stage's channels [1/V], shape (channels,), as if the DAC were continuous.
    power_w
        With respect to V²/R with the nominal R [1/W], shape (channels,). Unlike `drive_v`, it does not vanish at 0 V,
        where it leaves out the shared ground.
    """

    loss: float
    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]
    ring: NDArray[np.float64]
    drive_v: NDArray[np.float64]
    power_w: NDArray[np.float64]


def true_phases(chip: Chip, stage: int, drive: Drive | None = None) -> TruePhases:
    """Return the phases of stage number `stage` at `drive` [V], (channels of the stage,); None: the held drive."""
    count = chip.stages[stage].mesh.interferometers
    return TruePhases(*np.split(_phases_rad(chip, stage, _volts(chip, stage, drive)), (count, 2 * count)))


def stage_matrix(chip: Chip, stage: int, drive: Drive | None = None) -> NDArray[np.complex128]:
    """Return the transfer matrix of stage number `stage`, including coupler errors and loss, complex128 (ports, ports).

    `drive` as in `true_phases`. Tap and nonlinearity are not included.
    """
    return reference.matrix(chip, stage, _phases_rad(chip, stage, _volts(chip, stage, drive)))


def entering_fields(chip: Chip, stage: int, inputs: Inputs) -> Fields:
    """Return the fields that enter stage number `stage`, (ports, samples), with earlier stages at the held drive.

    `inputs` are amplitudes as in `Chip.evaluate`, shape (samples, input ports).
    """
    fields = reference.entering(chip, inputs).T
    for before in chip.stages[stage].upstream:
        fields = reference.passed(chip, before, stage_matrix(chip, before) @ fields)
    return fields


def gradient(chip: Chip, stage: int, drive: Drive | None, inputs: Inputs, loss_and_slope: LossAndSlope) -> Gradient:
    """Return the exact gradient of a loss on the readings of stage number `stage`, by the adjoint method (`adjoint`).

    Readings are those of `evaluate` without noise and ADC. The stages before it are at the held drive. The stages
    behind it do not matter.

    Parameters
    ----------
    drive
        Voltages of the stage's channels [V], shape (channels of the stage,); None: the held drive.
    inputs
        Field amplitudes at the chip's input ports, shape (samples, input ports).
    loss_and_slope
        The loss, as a function of the readings.
    """
    moment, volts = reference.moment_now(chip), _volts(chip, stage, drive)
    phases, none = _phases_rad(chip, stage, volts), np.empty(0)
    if chip.stages[stage].rings is not None:
        loss, ring = _bank_gradient(chip, stage, phases, reference.entering(chip, inputs), loss_and_slope)
        return Gradient(loss, none, none, none, ring, *_by_drive(chip, stage, volts, ring))
    mesh, parts = chip.stages[stage].mesh, reference.parts(chip, stage, phases, moment)
    transmitted = forward(mesh, parts, entering_fields(chip, stage, inputs))
    linear_a, ampere = reference.linear_currents_a(chip, stage, transmitted.fields.T, moment)
    loss, slope = _remembered_loss(chip, reference.detected_a(chip, stage, linear_a, moment), loss_and_slope)
    by_field = (ampere * _compression(chip, linear_a) * slope).T * transmitted.fields.conj()
    found = backward(mesh, parts, transmitted, by_field)
    by_drive = _by_drive(chip, stage, volts, np.concatenate(found[:3]))
    return Gradient(float(loss), found.theta, found.phi, found.gamma, none, *by_drive)


def _remembered_loss(
    chip: Chip, currents_a: NDArray[np.float64], loss_and_slope: LossAndSlope
) -> tuple[float, NDArray[np.float64]]:
    """Return the loss on readings behind amplifiers with memory, and its derivatives by the currents before them."""
    loss, slope = loss_and_slope(reference.remembered_a(chip, currents_a))
    kept = photodiode.kept_share(chip.parameters.photodiode, chip.parameters.sample_s)
    return loss, photodiode.back_filtered(slope, kept)


def _bank_gradient(
    chip: Chip, stage: int, phases_rad: NDArray[np.float64], fields: NDArray[np.complex128], loss_and_slope: LossAndSlope
) -> tuple[float, NDArray[np.float64]]:
    """Return a loss on the readings of a weight bank and its derivatives by the rings' phases, shape (channels,)."""
    moment, shares = reference.moment_now(chip), reference.ring_shares(chip, stage, phases_rad)
    loss, slope = _remembered_loss(chip, reference.balanced_a(chip, stage, shares, fields, moment), loss_and_slope)
    power, (linear_a, ampere) = np.abs(fields) ** 2, reference.pair_currents_a(chip, stage, shares, fields, moment)
    by_drop, by_through = (((ampere * _compression(chip, each_a) * slope).T @ power) for each_a in linear_a)
    slopes = row_slopes(*reference.row_arguments(chip, stage, phases_rad, moment))
    by_ring = np.einsum("nk,nkm->nm", by_drop, slopes.drop_port) - np.einsum("nk,nkm->nm", by_through, slopes.through_port)
    return float(loss), by_ring.ravel()


def _compression(chip: Chip, linear_a: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the derivative of `photodiode.compressed_a`."""
    saturation_a = chip.parameters.photodiode.saturation_a
    return 1.0 / (1.0 + linear_a / saturation_a) ** 2 if saturation_a > 0 else np.ones_like(linear_a)


def _volts(chip: Chip, stage: int, drive: Drive | None) -> Drive:
    return chip.held_drive()[chip.stages[stage].channels] if drive is None else np.asarray(drive, np.float64)


def _phases_rad(chip: Chip, stage: int, volts: Drive) -> NDArray[np.float64]:
    return reference.phases_rad(chip, stage, reference.power_w(chip, stage, volts))


def _by_drive(
    chip: Chip, stage: int, volts: Drive, by_phase: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the derivatives by voltage and by nominal heater power, from those by effective phase (chain rule)."""
    here, own, converter = chip.stages_at(reference.moment_now(chip))[stage], chip.parameters.heater, chip.parameters.dac
    operation, sources = heater_operation(chip.parameters, here, volts), source_of(here)
    conductance_s, heating = here.heaters.conductance_s, own.self_heating * operation.power_w / here.truth.pi_power_w
    by_heater = _by_power(chip, stage, operation.power_w, by_phase) / (1.0 + 2.0 * heating) * conductance_s
    by_cold = np.empty_like(by_heater)
    by_cold[sources] = np.where(np.isin(np.arange(by_heater.size), here.heaters.forced), 0.0, by_heater * own.resistance_ohm)
    source_v = dac.quantised_v(volts, dac.lsb_v(converter))
    stretch, slope = np.ones(volts.size), np.ones(volts.size)
    if converter.inl_lsb > 0:
        bow, twist = dac.inl_coefficients(converter, here.truth.inl_shape)
        stretch += (converter.range_v - source_v) * (bow + twist * source_v)
        slope += (converter.range_v - 2.0 * source_v) * (bow + twist * source_v)
        slope += source_v * (converter.range_v - source_v) * twist
    changed_v = stretch * source_v
    if here.heaters.gain.size > 0:
        stretch, slope = stretch * here.heaters.gain, slope * here.heaters.gain
        changed_v = stretch * source_v + here.heaters.added_v
    # The slow noise of a source is left out of the derivative by V²/R, which would not be finite at 0 V with it.
    by_source, nominal = by_cold * slope * 2.0 * changed_v / own.resistance_ohm, by_cold * stretch * slope
    if own.ground_ohm == 0:
        return by_source, nominal
    slopes_s = conductance_s * (2.0 / (1.0 + 2.0 * heating) - 1.0 / (1.0 + heating))
    by_output = _by_output(2.0 * by_heater * operation.across_v, slopes_s, here, own.ground_ohm)
    by_output[here.heaters.forced] = 0.0
    by_drive = np.empty_like(by_output)
    by_drive[sources] = by_output
    by_drive *= slope
    lit = source_v > 0.0
    nominal[lit] += ((by_drive - by_source) * own.resistance_ohm / 2.0)[lit] / source_v[lit]
    return by_drive, nominal


def _by_power(chip: Chip, stage: int, power_w: NDArray[np.float64], by_phase: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the derivatives by the power of each heater, (channels,), from those by effective phase."""
    here, own = chip.stages[stage], chip.parameters
    heat = crosstalk.crosstalk_of(here.segments, own.crosstalk)
    p = (power_w + crosstalk.received_w(heat, power_w)[here.segments.own]) / here.truth.arm_pi_power_w
    eta = own.heater.curvature
    by_own_w = by_phase * np.pi / here.truth.arm_pi_power_w * (1.0 + 2.0 * eta * p) / (1.0 + eta)
    by_segment_w = np.zeros(here.segments.count)
    if here.rings is None:
        by_segment_w += here.unheated_rad_per_w * effective_phases_transposed(here.mesh, by_phase, here.segments.count)
    by_segment_w[here.segments.own] = by_own_w
    return by_own_w + crosstalk.received_transposed(heat, by_segment_w)


def _by_output(
    by_across: NDArray[np.float64], conductance_s: NDArray[np.float64], here: Stage, ground_ohm: float
) -> NDArray[np.float64]:
    """Return the derivatives by the voltages of the sources, from those by the voltages across the heaters.

    `conductance_s`: dI/dV of each heater. A source that is raised also raises the ground that its half column shares.
    """
    found = by_across.copy()
    for start, stop in pairwise(here.heaters.grounds.tolist()):
        group = slice(start, stop)
        lifted = ground_ohm * conductance_s[group] / (1.0 + ground_ohm * conductance_s[group].sum())
        found[group] -= lifted * by_across[group].sum()
    return found
