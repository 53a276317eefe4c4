"""Slow changes of a chip over time: phases, temperature, inputs, light, sources, converters and faults.

All of them are functions of the chip's clock. The processes that act on the same part of the chip share one time grid
(`TimeGrids`), whose step is a fraction of their shortest correlation time. A fast process of one part does not refine
the grids of the others. Between steps a part is constant, so results that depend on it can be cached. A `Moment` has
the step number of every part, and a cache is keyed by the steps of the parts on which its values depend.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator import kernels
from photonloop.simulator.engine.port_processes import PortProcesses
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.chip_faults import FaultParameters, exchanged, in_order
from photonloop.simulator.physics.drift import Normals, OrnsteinUhlenbeck
from photonloop.simulator.physics.fabrication import slow_key
from photonloop.simulator.physics.laser import HEATER_M, drifted_power, own_laser, path_phase_rad
from photonloop.simulator.physics.modulator import input_factor, own_modulator
from photonloop.simulator.physics.weight_bank import wavelength_shift_rad

STEPS_PER_TAU = 2**14
"""Grid steps of phases and laser per shortest correlation time. Per step a value moves by 1.1 % of its standard
deviation. For the phases of preset `soi` that is 1e-4 rad, less than half an LSB of the voltage source. Input phases
move by at most 0.011 rad, also if their standard deviation is many radians."""

COARSE_STEPS_PER_TAU = 2**6
"""Grid steps of sources and converters per shortest correlation time. Per step a value moves by 18 % of its standard
deviation, which itself is comparable to one LSB."""

# Kinds of processes. Do not renumber them: the drift of every chip of an existing seed would change.
_PHASE, _TEMPERATURE, _LASER, _INPUT_PHASE, _COUPLING, _WAVELENGTH = 0, 1, 2, 3, 4, 5
_SOURCE_VOLTAGE, _SOURCE_GAIN, _CONVERTER_OFFSET, _CONVERTER_GAIN = 10, 11, 12, 13


class TimeGrids(NamedTuple):
    """Step of the time grid of each part of the chip [s]; 0 if the part does not change.

    Parameters
    ----------
    phases
        Phase drift and temperature of all stages.
    laser
        Laser power; of a weight bank, of all lasers.
    sources
        Slow noise and gain of the voltage sources.
    detectors
        Offset and gain of the detectors' converters.
    wavelength
        Laser wavelength, or the wavelengths of a weight bank's lasers.
    inputs
        Phase drift and coupling drift of the input ports.
    ageing
        Faults whose effect grows with time; the grid begins with the first of them.
    """

    phases: float
    laser: float
    sources: float
    detectors: float
    wavelength: float = 0.0
    inputs: float = 0.0
    ageing: float = 0.0


class Moment(NamedTuple):
    """State of the slow processes at a time: step number of each part on its time grid, number of faults so far.

    Parameters
    ----------
    phases, laser, sources, detectors, wavelength, inputs, ageing
        Step numbers on the grids of `TimeGrids`.
    faults
        Number of faults that have occurred.
    """

    phases: int = 0
    laser: int = 0
    sources: int = 0
    detectors: int = 0
    wavelength: int = 0
    inputs: int = 0
    ageing: int = 0
    faults: int = 0


_AGEING = TimeGrids._fields.index("ageing")


class SlowChanges(NamedTuple):
    """Relative gain, and value added, of each source [V] or converter [LSB] of a stage; float64, one per channel."""

    gain: NDArray[np.float64]
    added: NDArray[np.float64]


_FIELDS_AT_ONCE = 2**22
"""Number of fields of settings with different inputs that are read together, to bound memory."""


def settings_together(moments: Sequence[Moment], fields: int) -> Iterator[slice]:
    """Yield the settings that are read together, in order: those at whose moments only the inputs differ.

    The moments are in the order of time.

    `fields` is the number of fields that enter the chip at one setting.
    """
    if moments[0] == moments[-1]:
        yield slice(0, len(moments))
        return
    most = max(1, _FIELDS_AT_ONCE // fields)
    for _, group in groupby(range(len(moments)), lambda s: moments[s]._replace(inputs=0)):
        here = list(group)
        first, stop = here[0], here[-1] + 1
        at_once = len(here) if moments[first] == moments[stop - 1] else most
        for start in range(first, stop, at_once):
            yield slice(start, min(start + at_once, stop))


@dataclass(frozen=True)
class MonitorValues:
    """Values of the laser's power monitor and of the chip's thermistor.

    `temperature_k` is without heating by heaters, and None if the chip's temperature is constant.
    """

    laser_power_w: float
    temperature_k: float | None


class Ambient:
    """Slow processes and faults of one chip as functions of time.

    Parameters
    ----------
    parameters
        Parameters of the chip.
    channels
        Number of phase shifters of each stage.
    detectors
        Number of detectors of each stage.
    """

    def __init__(self, parameters: ChipParameters, channels: tuple[int, ...], detectors: tuple[int, ...] = ()) -> None:
        self._parameters = parameters
        self.faults = in_order(parameters.faults)
        self._fault_times_s = [fault.at_s for fault in self.faults]
        self._gradual = [fault for fault in self.faults if fault.is_gradual]
        self._ageing_from_s = min((fault.at_s for fault in self._gradual), default=0.0)
        self._is_bank = parameters.mesh.topology == "weight_bank"
        self._lasers = parameters.ports if self._is_bank else 1
        drift, temperature, dac, adc = parameters.drift, parameters.temperature, parameters.dac, parameters.adc
        laser, modulator = self._laser_parameters, self._modulator = own_laser(parameters), own_modulator(parameters)
        self.grids = _time_grids(parameters, self._gradual)
        """Steps of the time grids."""

        def process(kind: int, stage: int, size: int, sigma: float, tau_s: float, step_s: float) -> OrnsteinUhlenbeck | None:
            if sigma == 0:
                return None
            return OrnsteinUhlenbeck(_normals(parameters.seed, kind, stage), size, sigma, tau_s / step_s)

        phases_s = self.grids.phases
        self._phases = [process(_PHASE, k, n, drift.sigma_rad, drift.tau_s, phases_s) for k, n in enumerate(channels)]
        self._temperature = process(_TEMPERATURE, 0, 1, temperature.sigma_k, temperature.tau_s, phases_s)
        self._laser = process(_LASER, 0, self._lasers, laser.drift_sigma, laser.drift_tau_s, self.grids.laser)
        self._wavelengths = process(_WAVELENGTH, 0, self._lasers, laser.jitter_pm, laser.jitter_tau_s, self.grids.wavelength)
        self._sources = [
            (
                process(_SOURCE_GAIN, k, n, dac.gain_drift_sigma, dac.gain_drift_tau_s, self.grids.sources),
                process(_SOURCE_VOLTAGE, k, n, dac.slow_noise_v, dac.slow_noise_tau_s, self.grids.sources),
            )
            for k, n in enumerate(channels)
        ]
        self._converters = [
            (
                process(_CONVERTER_GAIN, k, n, adc.gain_drift_sigma, adc.gain_drift_tau_s, self.grids.detectors),
                process(_CONVERTER_OFFSET, k, n, adc.offset_drift_lsb, adc.offset_drift_tau_s, self.grids.detectors),
            )
            for k, n in enumerate(detectors)
        ]

        def of_ports(kind: int, sigma: float, tau_s: float) -> PortProcesses | None:
            if sigma == 0:
                return None
            return PortProcesses(slow_key(parameters.seed, kind, 0), parameters.ports, sigma, tau_s / self.grids.inputs)

        self._input_phases = of_ports(_INPUT_PHASE, modulator.phase_drift_rad, modulator.phase_drift_tau_s)
        self._coupling = of_ports(_COUPLING, modulator.coupling_drift_sigma, modulator.coupling_drift_tau_s)
        self._paths_move = (self._temperature is not None and temperature.phase_rad_per_k > 0) or (
            not self._is_bank and (self._wavelengths is not None or laser.detuning_pm != 0) and laser.phase_rad_per_pm > 0
        )

    def moment(self, time_s: float) -> Moment:
        """Return the state of the slow processes at `time_s` on the chip's clock."""
        steps = [int(time_s / step_s) if step_s > 0 else 0 for step_s in self.grids]
        if self._gradual:
            steps[_AGEING] = int(max(time_s - self._ageing_from_s, 0.0) / self.grids.ageing)
        return Moment(*steps, faults=bisect.bisect_right(self._fault_times_s, time_s))

    def moments(self, times_s: NDArray[np.float64]) -> list[Moment]:
        """Return the state of the slow processes at times in ascending order [s], shape (times,).

        Step numbers do not decrease, so if they are equal at both ends, they are equal in between.
        """
        first, last = self.moment(float(times_s[0])), self.moment(float(times_s[-1]))
        return [first] * times_s.size if first == last else [self.moment(time_s) for time_s in times_s.tolist()]

    def faults_at(self, moment: Moment) -> tuple[FaultParameters, ...]:
        """Return the faults that have occurred."""
        return self.faults[: moment.faults]

    def ageing_s(self, moment: Moment) -> float:
        """Return the time [s] on the chip's clock for which gradual faults are computed."""
        return self._ageing_from_s + moment.ageing * self.grids.ageing

    def input_order(self, moment: Moment) -> NDArray[np.int64] | None:
        """Return which input's fibre enters each port, shape (ports,), or None if no fibres are exchanged."""
        faults = self.faults_at(moment)
        if all(fault.kind != "swapped_inputs" for fault in faults):
            return None
        return exchanged(self._parameters.ports, faults, "swapped_inputs")

    def input_factors(
        self, moments: Sequence[Moment], path_m: NDArray[np.float64], heating_k: float = 0.0
    ) -> NDArray[np.complex128] | None:
        """Return the factors of the fields that enter the ports at each moment, (moments, ports), or None if all are 1.

        `path_m` are the path lengths of the ports, relative to their mean [m], and `heating_k` is the rise of the
        chip's temperature due to its heaters.
        """
        paths_matter = self._paths_matter(heating_k) and self._modulator.path_sigma_m > 0
        if self._input_phases is None and self._coupling is None and not paths_matter:
            return None
        steps = np.array([moment.inputs for moment in moments])
        phase_rad = np.zeros((len(moments), self._parameters.ports))
        if self._input_phases is not None:
            phase_rad += self._input_phases.at(steps)
        if paths_matter:
            phase_rad += [self._path_phase_rad(moment, path_m / HEATER_M, heating_k) for moment in moments]
        coupling = None if self._coupling is None else self._coupling.at(steps)
        return input_factor(phase_rad, coupling)

    def wavelength_pm(self, moment: Moment) -> float:
        """Return a mesh's laser wavelength minus the design wavelength [pm]; 0 for a weight bank."""
        mean_pm = self._laser_parameters.detuning_pm
        if self._is_bank or self._wavelengths is None:
            return mean_pm
        return mean_pm + float(self._wavelengths.at(moment.wavelength)[0])

    def offset_rad(
        self, stage: int, moment: Moment, imbalance: NDArray[np.float64], heating_k: float = 0.0
    ) -> NDArray[np.float64] | None:
        """Return the phase [rad] that drift, temperature and wavelength add to each channel of a stage, (channels,).

        `imbalance` is the relative path difference of each channel, `heating_k` the rise of the chip's temperature due
        to its heaters. Returns None if nothing is added.
        """
        phases = self._phases[stage]
        drifted = None if phases is None else phases.at(moment.phases).astype(np.float64)
        if not self._paths_matter(heating_k) or not imbalance.any():
            return drifted
        path_rad = self._path_phase_rad(moment, imbalance, heating_k)
        return path_rad if drifted is None else drifted + path_rad

    def wavelength_shift_rad(self, moment: Moment) -> NDArray[np.float64] | None:
        """Return the phase shift [rad] by the drift of each laser's wavelength, shape (inputs,); None without drift.

        Also None for a mesh, whose paths have phases of their own (`offset_rad`).
        """
        if not self._is_bank or self._wavelengths is None:
            return None
        drift_pm = self._wavelengths.at(moment.wavelength).astype(np.float64)
        return wavelength_shift_rad(drift_pm, self._parameters.ring.fsr_nm)

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

    def source_changes(self, stage: int, moment: Moment) -> SlowChanges | None:
        """Return gain and added voltage [V] of each source of a stage; None if the sources do not change."""
        return _changes(*self._sources[stage], moment.sources)

    def converter_changes(self, stage: int, moment: Moment) -> SlowChanges | None:
        """Return gain and added offset [LSB] of each converter of a stage; None if the converters do not change."""
        return _changes(*self._converters[stage], moment.detectors)

    def monitor_values(self, moment: Moment) -> MonitorValues:
        """Return the values of the laser's power monitor and of the chip's thermistor."""
        temperature_k = None
        if self._temperature is not None:
            temperature_k = self._parameters.temperature.set_k + self._warming_k(moment)
        return MonitorValues(self._parameters.laser.total_power_w * self.laser_power(moment), temperature_k)

    def _warming_k(self, moment: Moment) -> float:
        return 0.0 if self._temperature is None else float(self._temperature.at(moment.phases)[0])

    def _paths_matter(self, heating_k: float) -> bool:
        """Return whether path differences add phases at some moment, with heaters that warm the chip by `heating_k`."""
        return self._paths_move or (heating_k > 0 and self._parameters.temperature.phase_rad_per_k > 0)

    def _path_phase_rad(self, moment: Moment, lengths: NDArray[np.float64], heating_k: float) -> NDArray[np.float64]:
        detuning_pm, warming_k = self.wavelength_pm(moment), self._warming_k(moment) + heating_k
        return path_phase_rad(self._laser_parameters, self._parameters.temperature, detuning_pm, warming_k, lengths)


def _changes(gain: OrnsteinUhlenbeck | None, added: OrnsteinUhlenbeck | None, step: int) -> SlowChanges | None:
    deviations = [None if process is None else process.at(step).astype(np.float64) for process in (gain, added)]
    size = next((each.size for each in deviations if each is not None), 0)
    if size == 0:
        return None
    by_gain, by_added = (np.zeros(size) if each is None else each for each in deviations)
    return SlowChanges(1.0 + by_gain, by_added)


def _time_grids(parameters: ChipParameters, gradual: Sequence[FaultParameters]) -> TimeGrids:
    """Return the steps of the time grids of a chip with these gradual faults."""
    drift, temperature, dac, adc = parameters.drift, parameters.temperature, parameters.dac, parameters.adc
    laser, modulator = own_laser(parameters), own_modulator(parameters)
    of_phases = ((drift.sigma_rad, drift.tau_s), (temperature.sigma_k, temperature.tau_s))
    of_sources = ((dac.slow_noise_v, dac.slow_noise_tau_s), (dac.gain_drift_sigma, dac.gain_drift_tau_s))
    of_converters = ((adc.offset_drift_lsb, adc.offset_drift_tau_s), (adc.gain_drift_sigma, adc.gain_drift_tau_s))
    walk_rad = modulator.phase_drift_rad
    of_inputs = (
        (walk_rad, modulator.phase_drift_tau_s / max(1.0, walk_rad**2)),
        (modulator.coupling_drift_sigma, modulator.coupling_drift_tau_s),
    )
    return TimeGrids(
        phases=_grid_step_s(of_phases, STEPS_PER_TAU),
        laser=_grid_step_s(((laser.drift_sigma, laser.drift_tau_s),), STEPS_PER_TAU),
        sources=_grid_step_s(of_sources, COARSE_STEPS_PER_TAU),
        detectors=_grid_step_s(of_converters, COARSE_STEPS_PER_TAU),
        wavelength=_grid_step_s(((laser.jitter_pm, laser.jitter_tau_s),), STEPS_PER_TAU),
        inputs=_at_least_us(_grid_step_s(of_inputs, STEPS_PER_TAU)),
        ageing=_grid_step_s(((1.0, fault.tau_s or 0.0) for fault in gradual), STEPS_PER_TAU),
    )


def _grid_step_s(processes: Iterable[tuple[float, float]], steps_per_tau: int) -> float:
    """Return the step [s] of a grid for processes of (standard deviation, correlation time); 0 if there is none."""
    return min((tau_s for sigma, tau_s in processes if sigma > 0), default=0.0) / steps_per_tau


def _at_least_us(step_s: float) -> float:
    """Return a step of at least a microsecond, shorter than any setting, or 0 for 0. Step numbers stay below 2⁶³."""
    return max(step_s, 1e-6) if step_s > 0 else 0.0


def _normals(seed: int, kind: int, stage: int) -> Normals:
    key = slow_key(seed, kind, stage)

    def fill(number: int, out: NDArray[np.float32]) -> None:
        lanes = kernels.LANES
        padded = np.empty((-(-out.size // (2 * lanes)) * 2, lanes), np.float32)
        kernels.fill_normals(key, number, padded)
        out[:] = padded.reshape(-1)[: out.size]

    return fill
