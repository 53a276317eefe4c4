"""Slow changes of a chip over time: phase drift, chip temperature, laser power and faults.

All of them are functions of the chip's clock. The slow processes share one time grid, whose step is the shortest
correlation time divided by 2¹⁴. Per step a phase moves by 1.1 % of its standard deviation. In preset `soi` that is 1e-4
rad, less than half an LSB of the voltage source. Between steps the chip is constant, so results that depend on it can
be cached.
"""

from __future__ import annotations

import bisect
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

STEPS_PER_TAU = 2**14
"""Grid steps per shortest correlation time."""

_PHASE, _TEMPERATURE, _LASER = 0, 1, 2


class Moment(NamedTuple):
    """State of the slow processes at a time: step number on the time grid, number of faults that have occurred."""

    step: int
    faults: int


@dataclass(frozen=True)
class MonitorValues:
    """Values of the laser's power monitor and of the chip's thermistor.

    `temperature_k` is without heating by heaters, and None if the chip's temperature is constant.
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
        active = [
            tau_s
            for sigma, tau_s in (
                (drift.sigma_rad, drift.tau_s),
                (temperature.sigma_k, temperature.tau_s),
                (laser.drift_sigma, laser.drift_tau_s),
            )
            if sigma > 0
        ]
        self.step_s = min(active) / STEPS_PER_TAU if active else 0.0
        """Step of the time grid [s]; 0 if there is no slow process."""

        def process(kind: int, stage: int, size: int, sigma: float, tau_s: float) -> OrnsteinUhlenbeck | None:
            if sigma == 0:
                return None
            return OrnsteinUhlenbeck(_normals(parameters.seed, kind, stage), size, sigma, tau_s / self.step_s)

        self._phases = [process(_PHASE, k, size, drift.sigma_rad, drift.tau_s) for k, size in enumerate(channels)]
        self._temperature = process(_TEMPERATURE, 0, 1, temperature.sigma_k, temperature.tau_s)
        self._laser = process(_LASER, 0, 1, laser.drift_sigma, laser.drift_tau_s)

    def moment(self, time_s: float) -> Moment:
        """Return the state of the slow processes at `time_s` on the chip's clock."""
        step = int(time_s / self.step_s) if self.step_s > 0 else 0
        return Moment(step, bisect.bisect_right(self._fault_times_s, time_s))

    def faults_at(self, moment: Moment) -> tuple[FaultParameters, ...]:
        """Return the faults that have occurred."""
        return self.faults[: moment.faults]

    def offset_rad(
        self, stage: int, moment: Moment, imbalance: NDArray[np.float64], heating_k: float = 0.0
    ) -> NDArray[np.float64] | None:
        """Return the phase [rad] that drift and temperature add to each channel of a stage, shape (channels,).

        `imbalance` is the relative path difference of each channel, `heating_k` the rise of the chip's temperature due
        to its heaters. Returns None if neither adds anything.
        """
        phases, temperature = self._phases[stage], self._parameters.temperature
        drifted = None if phases is None else phases.at(moment.step).astype(np.float64)
        change_k = heating_k + (0.0 if self._temperature is None else float(self._temperature.at(moment.step)[0]))
        if change_k == 0.0 or temperature.phase_rad_per_k == 0 or not imbalance.any():
            return drifted
        warmed = imbalance * (temperature.phase_rad_per_k * change_k)
        return warmed if drifted is None else drifted + warmed

    def laser_power(self, moment: Moment) -> float:
        """Return the laser power relative to its nominal value."""
        if any(fault.kind == "laser_off" for fault in self.faults_at(moment)):
            return 0.0
        return 1.0 if self._laser is None else drifted_power(float(self._laser.at(moment.step)[0]))

    def monitor_values(self, moment: Moment) -> MonitorValues:
        """Return the values of the laser's power monitor and of the chip's thermistor."""
        temperature_k = None
        if self._temperature is not None:
            temperature_k = self._parameters.temperature.set_k + float(self._temperature.at(moment.step)[0])
        return MonitorValues(self._parameters.laser.total_power_w * self.laser_power(moment), temperature_k)


def _normals(seed: int, kind: int, stage: int) -> Normals:
    key = slow_key(seed, kind, stage)

    def fill(number: int, out: NDArray[np.float32]) -> None:
        lanes = kernels.LANES
        padded = np.empty((-(-out.size // (2 * lanes)) * 2, lanes), np.float32)
        kernels.fill_normals(key, number, padded)
        out[:] = padded.reshape(-1)[: out.size]

    return fill
