"""Slow changes of a chip over time: phase drift, chip temperature, laser power and wavelength, faults.

All of them are functions of the chip's clock. The processes that act on the same part of the chip share one time grid
(`TimeGrids`), whose step is a fraction of their shortest correlation time. A fast process of one part does not refine
the grids of the others. Between steps a part is constant, so results that depend on it can be cached. A `Moment` has
the step number of every part, and a cache is keyed by the steps of the parts on which its values depend.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.chip_faults import FaultParameters, in_order
from photonloop.simulator.physics.drift import Normals, OrnsteinUhlenbeck
from photonloop.simulator.physics.fabrication import slow_key
from photonloop.simulator.physics.laser import drifted_power
from photonloop.simulator.physics.weight_bank import wavelength_shift_rad

STEPS_PER_TAU = 2**14
"""Grid steps of phases and laser per shortest correlation time. Per step a value moves by 1.1 % of its standard
deviation. For the phases of preset `soi` that is 1e-4 rad, less than half an LSB of the voltage source."""

# Kinds of processes. Do not renumber them: the drift of every chip of an existing seed would change.
_PHASE, _TEMPERATURE, _LASER = 0, 1, 2
_BANK_WAVELENGTH = 8


class TimeGrids(NamedTuple):
    """Step of the time grid of each part of the chip [s]; 0 if the part does not change.

    Parameters
    ----------
    phases
        Phase drift and temperature of all stages, and the wavelengths of a weight bank's lasers.
    laser
        Laser power.
    """

    phases: float
    laser: float


class Moment(NamedTuple):
    """State of the slow processes at a time: step number of each part on its time grid, number of faults so far.

    Parameters
    ----------
    phases, laser
        Step numbers on the grids of `TimeGrids`.
    faults
        Number of faults that have occurred.
    """

    phases: int = 0
    laser: int = 0
    faults: int = 0


@dataclass(frozen=True)
class MonitorValues:
    """Values of the laser's power monitor and of the chip's thermistor.

    `temperature_k` is None if the chip's temperature is constant.
    """

    laser_power_w: float
    temperature_k: float | None


class Ambient:
    """Drift, temperature, laser power and faults of one chip as functions of time.

    Parameters
    ----------
    parameters
        Parameters of the chip.
    channels
        Number of phase shifters of each stage.
    """

    def __init__(self, parameters: ChipParameters, channels: tuple[int, ...]) -> None:
        self._parameters = parameters
        self.faults = in_order(parameters.faults)
        self._fault_times_s = [fault.at_s for fault in self.faults]
        drift, temperature, laser = parameters.drift, parameters.temperature, parameters.laser
        self._is_bank = parameters.mesh.topology == "weight_bank"
        self._lasers = parameters.ports if self._is_bank else 1
        of_phases = [(drift.sigma_rad, drift.tau_s), (temperature.sigma_k, temperature.tau_s)]
        wavelength_pm = parameters.ring.wavelength_drift_pm if self._is_bank else 0.0
        of_phases.append((wavelength_pm, parameters.ring.wavelength_drift_tau_s))
        self.grids = TimeGrids(
            phases=_grid_step_s(of_phases, STEPS_PER_TAU),
            laser=_grid_step_s(((laser.drift_sigma, laser.drift_tau_s),), STEPS_PER_TAU),
        )
        """Steps of the time grids."""

        def process(kind: int, stage: int, size: int, sigma: float, tau_s: float, step_s: float) -> OrnsteinUhlenbeck | None:
            if sigma == 0:
                return None
            return OrnsteinUhlenbeck(_normals(parameters.seed, kind, stage), size, sigma, tau_s / step_s)

        phases_s = self.grids.phases
        self._phases = [process(_PHASE, k, n, drift.sigma_rad, drift.tau_s, phases_s) for k, n in enumerate(channels)]
        self._temperature = process(_TEMPERATURE, 0, 1, temperature.sigma_k, temperature.tau_s, phases_s)
        self._laser = process(_LASER, 0, self._lasers, laser.drift_sigma, laser.drift_tau_s, self.grids.laser)
        self._wavelengths = process(_BANK_WAVELENGTH, 0, self._lasers, *of_phases[-1], phases_s)

    def moment(self, time_s: float) -> Moment:
        """Return the state of the slow processes at `time_s` on the chip's clock."""
        steps = (int(time_s / step_s) if step_s > 0 else 0 for step_s in self.grids)
        return Moment(*steps, faults=bisect.bisect_right(self._fault_times_s, time_s))

    def faults_at(self, moment: Moment) -> tuple[FaultParameters, ...]:
        """Return the faults that have occurred."""
        return self.faults[: moment.faults]

    def offset_rad(self, stage: int, moment: Moment, imbalance: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Return the phase [rad] that drift and temperature add to each channel of a stage, shape (channels,).

        `imbalance` is the relative path difference of each channel. Returns None if neither adds anything.
        """
        phases, temperature = self._phases[stage], self._parameters.temperature
        drifted = None if phases is None else phases.at(moment.phases).astype(np.float64)
        if self._temperature is None or temperature.phase_rad_per_k == 0 or not imbalance.any():
            return drifted
        warmed = imbalance * (temperature.phase_rad_per_k * float(self._temperature.at(moment.phases)[0]))
        return warmed if drifted is None else drifted + warmed

    def wavelength_shift_rad(self, moment: Moment) -> NDArray[np.float64] | None:
        """Return the phase shift [rad] by the drift of each laser's wavelength, shape (inputs,); None without drift."""
        if self._wavelengths is None:
            return None
        return wavelength_shift_rad(self._wavelengths.at(moment.phases).astype(np.float64), self._parameters.ring.fsr_nm)

    def laser_powers(self, moment: Moment) -> list[float]:
        """Return each laser's power relative to nominal: of one for a mesh, of one per input for a weight bank."""
        if any(fault.kind == "laser_off" for fault in self.faults_at(moment)):
            return [0.0] * self._lasers
        if self._laser is None:
            return [1.0] * self._lasers
        return [drifted_power(deviation) for deviation in self._laser.at(moment.laser).tolist()]

    def laser_power(self, moment: Moment) -> float:
        """Return the power of all lasers relative to nominal."""
        return sum(self.laser_powers(moment)) / self._lasers

    def monitor_values(self, moment: Moment) -> MonitorValues:
        """Return the values of the laser's power monitor and of the chip's thermistor."""
        temperature_k = None
        if self._temperature is not None:
            temperature_k = self._parameters.temperature.set_k + float(self._temperature.at(moment.phases)[0])
        return MonitorValues(self._parameters.laser.total_power_w * self.laser_power(moment), temperature_k)


def _grid_step_s(processes: Iterable[tuple[float, float]], steps_per_tau: int) -> float:
    """Return the step [s] of a grid for processes of given (standard deviation, correlation time); 0 if there is none."""
    return min((tau_s for sigma, tau_s in processes if sigma > 0), default=0.0) / steps_per_tau


def _normals(seed: int, kind: int, stage: int) -> Normals:
    key = slow_key(seed, kind, stage)

    def fill(number: int, out: NDArray[np.float32]) -> None:
        lanes = kernels.LANES
        padded = np.empty((-(-out.size // (2 * lanes)) * 2, lanes), np.float32)
        kernels.fill_normals(key, number, padded)
        out[:] = padded.reshape(-1)[: out.size]

    return fill
