"""What nobody outside can know, in double precision: for tests and scripts in the chip's own process."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.device import Drive
from simulator.chip import Chip
from simulator.heater import dac_step_v, phase_rad, quantised_v
from simulator.mesh import transfer_matrix


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
