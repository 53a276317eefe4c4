"""What nobody outside can know, in double precision: for tests and scripts in the chip's own process."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from protocols.device import Drive
from simulator import reference
from simulator.chip import Chip


class Phases(NamedTuple):
    """True phases of one stage [rad]: θ and φ by interferometer, γ by output."""

    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]


def true_phases(chip: Chip, stage: int, drive: Drive | None = None) -> Phases:
    """Return the phases of stage number `stage` at `drive` [V], shape (channels of the stage,); None: at the held drive.

    Settled, crosstalk and drift of this moment included.
    """
    here = chip.stages[stage]
    phases = _phases_rad(chip, stage, drive)
    return Phases(*np.split(phases, (here.mesh.interferometers, 2 * here.mesh.interferometers)))


def stage_matrix(chip: Chip, stage: int, drive: Drive | None = None) -> NDArray[np.complex128]:
    """Return the matrix of stage number `stage`, coupler errors and loss included, complex128 (ports, ports).

    `drive` as in `true_phases`. Taps and nonlinearity come behind it.
    """
    return reference.matrix(chip, stage, _phases_rad(chip, stage, drive))


def _phases_rad(chip: Chip, stage: int, drive: Drive | None) -> NDArray[np.float64]:
    volts = chip.held_drive()[chip.stages[stage].channels] if drive is None else np.asarray(drive, np.float64)
    return reference.phases_rad(chip, stage, reference.power_w(chip, stage, volts))
