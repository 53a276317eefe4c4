"""What nobody outside can know, in double precision: for tests and scripts in the chip's own process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.device import Drive, Inputs
from simulator.adjoint import Fields, backward, forward
from simulator.chip import Chip
from simulator.heater import dac_step_v, phase_rad, quantised_v
from simulator.mesh import elements, transfer_matrix
from simulator.nonlinearity import electro_optic

LossAndSlope = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]
"""From readings [A], shape (samples, tap ports), to a loss and its slope by every reading, of the same shape."""


class Phases(NamedTuple):
    """True phases of one stage [rad]: θ and φ by interferometer, γ by output."""

    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]


def true_phases(chip: Chip, stage: int, drive: Drive | None = None) -> Phases:
    """Return the phases of stage number `stage` at `drive` [V], shape (channels of the stage,); None: at the held drive."""
    here, parameters = chip.stages[stage], chip.parameters
    volts = chip.held_drive()[here.channels] if drive is None else np.asarray(drive, np.float64)
    volts = quantised_v(volts, dac_step_v(parameters.dac.bits, parameters.dac.range_v))
    phase = phase_rad(volts, parameters.heater.resistance_ohm, here.truth.pi_power_w, here.truth.offset_rad)
    return Phases(*np.split(phase, (here.mesh.interferometers, 2 * here.mesh.interferometers)))


def stage_matrix(chip: Chip, stage: int, drive: Drive | None = None) -> NDArray[np.complex128]:
    """Return the matrix of stage number `stage`, coupler errors and loss included, complex128 (ports, ports).

    `drive` as in `true_phases`. Taps and nonlinearity come behind it.
    """
    truth = chip.stages[stage].truth
    return transfer_matrix(chip.stages[stage].mesh, *true_phases(chip, stage, drive), truth.coupler_error_rad, truth.loss_db)


class Gradient(NamedTuple):
    """A loss on the readings of one stage and its slopes, all at one drive.

    Parameters
    ----------
    loss
        The loss at noise-free readings.
    theta, phi, gamma
        By the true phases [1/rad], shapes as in `Phases`.
    drive_v
        By the volts of the stage's channels [1/V], shape (channels,), as if the converter had no steps.
    power_w
        By V²/R with the nominal R [1/W], shape (channels,). Unlike `drive_v` it says something at zero volts too.
    """

    loss: float
    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]
    drive_v: NDArray[np.float64]
    power_w: NDArray[np.float64]


def gradient(chip: Chip, stage: int, drive: Drive | None, inputs: Inputs, loss_and_slope: LossAndSlope) -> Gradient:
    """Return the exact gradient of a loss on the readings of stage number `stage`, by the adjoint method (`simulator.adjoint`).

    Readings are those of `evaluate` without noise, saturation and converter. Stages before it are at the held drive; stages
    behind it play no part.

    Parameters
    ----------
    drive
        Volts of the stage's channels [V]; None: the held drive.
    inputs
        Field amplitudes at the chip's input ports, shape (samples, input ports).
    loss_and_slope
        The loss, for instance `controller.rules` by hand.
    """
    here, heater = chip.stages[stage], chip.parameters.heater
    phases = true_phases(chip, stage, drive)
    parts = elements(here.mesh, phases.theta, phases.phi, here.truth.coupler_error_rad, here.truth.loss_db)
    passage = forward(here.mesh, parts, phases.gamma, entering_fields(chip, stage, inputs))
    ampere = here.levels.ampere
    loss, slope = loss_and_slope((ampere * np.abs(passage.fields) ** 2 + chip.parameters.photodiode.dark_a).T)
    found = backward(here.mesh, parts, phases.gamma, passage, ampere * slope.T * passage.fields.conj())
    volts = chip.held_drive()[here.channels] if drive is None else np.asarray(drive, np.float64)
    power_w = np.concatenate(found[:3]) * np.pi / here.truth.pi_power_w
    return Gradient(float(loss), found.theta, found.phi, found.gamma, power_w * 2.0 * volts / heater.resistance_ohm, power_w)


def entering_fields(chip: Chip, stage: int, inputs: Inputs) -> Fields:
    """Return the fields that enter stage number `stage`, shape (ports, samples), with the stages before it at the held drive."""
    fields = np.asarray(inputs, np.complex128).T
    nonlinearity = chip.parameters.nonlinearity
    for before, here in enumerate(chip.stages[:stage]):
        fields = np.sqrt(here.levels.passed) * (stage_matrix(chip, before) @ fields)
        if nonlinearity.kind == "electro-optic":
            fields = electro_optic(fields, nonlinearity.detected_fraction, here.levels.gain_rad, nonlinearity.bias_rad)
    return fields
