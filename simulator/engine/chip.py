"""The virtual chip as a device: a `PhotonicDevice` that computes its readings.

    drive ─▶ DAC step, INL, noise ─▶ V²/R ─▶ thermal lag ─▶ crosstalk ─▶ phase, drift ─▶ mesh (coupler errors, loss)
                                                                                        │
    inputs ─▶ modulators ─▶ drift, power  ─▶ mesh ─▶ tap ─▶ nonlinearity ─▶ next stage ─┘
                                              └▶ RIN, photodiode, noise ─▶ memory ─▶ ADC ─▶ reading

`Chip` owns the state: the held drive (replaced as a whole, never modified), the loaded inputs and the clock. `pipeline`
computes what follows from this state. Each physical effect has a module in `physics`, and `kernels` has the compiled
loops.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np

from photonloop.protocols.device import DeviceDescription, DeviceStatus, Drive, Inputs, LoadedRows, Readback, Readings
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.limits import (
    check_held_drive,
    check_inputs,
    check_light_switch,
    check_size,
    check_wait,
    heater_power_w,
    highest_drive_v,
)
from photonloop.protocols.loaded_inputs import LoadedInputs
from photonloop.simulator import kernels
from photonloop.simulator.engine.ambient import Ambient, Moment, settings_together
from photonloop.simulator.engine.chip_clock import ChipClock
from photonloop.simulator.engine.description import describe
from photonloop.simulator.engine.durations import evaluation_times, ramp_s
from photonloop.simulator.engine.evaluation import HeldDrive, InputBatch
from photonloop.simulator.engine.kernel_arrays import Source, read_only
from photonloop.simulator.engine.light import Light, first_light, switched_off, switched_on
from photonloop.simulator.engine.pipeline import Pipeline
from photonloop.simulator.engine.settings_check import checked_settings
from photonloop.simulator.engine.source_readback import measured_outputs
from photonloop.simulator.engine.stage import Stage, build_stages
from photonloop.simulator.engine.supply import Supply, supply_at
from photonloop.simulator.engine.thermal_lag import ThermalLag
from photonloop.simulator.engine.workers import KernelJob, Workers, default_count
from photonloop.simulator.parameters import ChipParameters
from photonloop.simulator.physics.chip_faults import check_faults
from photonloop.simulator.physics.fabrication import fabricate_inputs, readback_generator
from photonloop.simulator.physics.modulator import InputTruth, has_phases, is_ideal, modulated, own_modulator
from photonloop.simulator.physics.thermal import always_settled

_MODULATED_AT_ONCE = 2**20
"""Number of amplitudes that are passed through the modulators at once, to bound memory."""


class Chip:
    """A virtual chip.

    Parameters
    ----------
    parameters
        Parameters of the chip (`load_chip`).
    threads
        Worker threads that share an evaluation; None: one per processor, at most four. Readings do not depend on it.
    beside
        Number of these threads that take no part in short evaluations, because a client on the same machine needs their
        processors.
    realtime
        If True, operations take the wall time they would take in a lab. If False, only the chip's clock advances.
    """

    def __init__(
        self, parameters: ChipParameters, *, threads: int | None = None, beside: int = 0, realtime: bool = False
    ) -> None:
        self.parameters = parameters
        self.stages = build_stages(parameters)
        self._description = describe(parameters, self.stages, realtime)
        check_faults(parameters.faults, self._description.stages)
        self._inputs = fabricate_inputs(parameters)
        self._max_drive_v = [
            highest_drive_v(self._description, s.description.first_channel, s.description.channels) for s in self.stages
        ]
        self._workers = Workers(default_count() if threads is None else threads, beside)
        self._lock = threading.Lock()
        """Guards replacing the held drive and the light, and counting stops; never held during a computation."""
        self._realtime = realtime
        self._reset()
        self._compile()
        self._reset()

    def _reset(self) -> None:
        parameters, channels = self.parameters, tuple(s.description.channels for s in self.stages)
        zero_v = np.zeros(self._description.channels)
        self._held = HeldDrive(zero_v, (0,) * len(self.stages), (0.0,) * len(self.stages), 0.0, 0.0)
        self._loaded = LoadedInputs(parameters.limits.max_loaded_bytes)
        self._ambient = Ambient(parameters, channels, tuple(s.description.tap_ports for s in self.stages))
        self._monitors = self._ambient.monitor_values(self._ambient.moment(0.0))
        self._supply_cache: tuple[tuple[HeldDrive | None, int, int], Supply] = (None, 0, 0), Supply(0.0, 0.0)
        self._pipeline = Pipeline(parameters, self.stages, self._inputs, self._ambient, self._workers)
        self._thermal = None if always_settled(parameters) else ThermalLag(parameters, self._pipeline, self._ambient, channels)
        self._clock = ChipClock(self._realtime)
        self._light = first_light(parameters.laser)
        self._evaluations = 0
        self._noise_number = self._readback_number = 0
        self._stop_count = self._safe_count = 0
        self._job: KernelJob | None = None
        self._busy = False
        self._waiting = False
        self._closed = False

    def _compile(self) -> None:
        """Run every kernel once, so that no later request waits for the compiler or its disk cache."""
        index = len(self.stages) - 1
        self._light = Light(on=True)
        volts = np.zeros((2, self._description.stages[index].channels))
        volts[1] = 0.1 * self.parameters.dac.max_v  # a change of power, so that the kernels for unsettled heaters run too
        source = self._modulated(np.ones((1, self.parameters.ports), np.float32), copy=False)
        self._evaluate(index, read_only(volts), InputBatch(self._held, "", source, np.zeros(1, np.int64), 0), 0)

    # ---- methods of PhotonicDevice ----------------------------------------------------------------------------------

    def describe(self) -> DeviceDescription:
        """Return the description of the chip, which has nominal values only. The true ones are in `stages[k].truth`."""
        return self._description

    def apply(self, drive: Drive) -> None:
        """Hold these voltages [V]. The clock advances by the duration of the ramp and one settle time."""
        self._check_open()
        safe_count = self._safe_count
        volts = check_held_drive(self._description, drive).copy()
        ramped_s = ramp_s(self._description, self._held.volts, volts)
        duration_s = ramped_s + self._description.drive.settle_s
        new = self._next_held(volts, self._clock.now_s() + ramped_s)
        self._update_thermal_targets(self._held)
        with self._lock:
            if self._safe_count == safe_count:
                self._held = new
        self._update_thermal_targets(self._held)
        self._clock.advance(duration_s, lambda: self._safe_count != safe_count)
        if self._safe_count != safe_count:
            raise DeviceError(
                "interlock",
                "safe was called while the drive was being applied: the chip now holds the safe drive",
                outcome="unknown",
            )

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Keep `inputs` under `name` for later evaluations."""
        self._check_open()
        checked = check_inputs(self._description, inputs)
        size = checked.size * (8 if checked.dtype.kind == "c" else 4)
        self._loaded.check_room(name, size)
        self._pipeline.forget(name)
        self._loaded.load(name, self._modulated(checked, copy=True), size)

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """Read every sample at every setting; see `PhotonicDevice.evaluate`."""
        self._check_open()
        stop_count = self._stop_count
        held = self._held
        index, volts = checked_settings(self._description, self._max_drive_v, stage, drives, held)
        if isinstance(inputs, LoadedRows):
            rows = self._loaded.row_numbers(inputs)
            name, source = inputs.name, self._loaded.array(inputs.name)
        else:
            name, source = "", self._modulated(check_inputs(self._description, inputs), copy=False)
            rows = np.arange(source.shape[0])
        check_size(self._description, stage, volts.shape[0], rows.size)
        self._busy = True
        try:
            self._noise_number += 1
            self._light_up(stop_count)
            return self._evaluate(index, volts, InputBatch(held, name, source, rows, self._noise_number), stop_count)
        finally:
            self._job = None
            self._busy = False

    def set_light(self, on: bool) -> None:
        """Switch the light. The clock advances by its warm-up time."""
        self._check_open()
        check_light_switch(self._description)
        stop_count = self._stop_count
        if on:
            self._light_up(stop_count, always=True)
            self._let_pass(self._light.warm_up_left_s(self._clock.now_s()), stop_count, "the warm-up of the light")
        else:
            with self._lock:
                self._light = switched_off(self._light, self.parameters.laser, stays_off=True)

    def wait(self, seconds: float) -> None:
        """Advance the clock by `seconds`, at the held drive; see `PhotonicDevice.wait`."""
        self._check_open()
        self._let_pass(check_wait(seconds), self._stop_count, "the wait")

    def readback(self) -> Readback:
        """Return the measured voltages and currents at the held drive; they are NaN unless `dac.reads_back`."""
        self._check_open()
        moment = self._ambient.moment(self._clock.now_s())
        self._readback_number += 1
        generator = readback_generator(self.parameters.seed, self._readback_number)
        faults = self._ambient.faults_at(moment)
        return measured_outputs(self.parameters, self.stages_at(moment), self._held.volts, faults, generator)

    def status(self) -> DeviceStatus:
        """Return what instruments around a chip would display. Takes no lock."""
        held, monitors, light = self._held, self._monitors, self._light
        supply = self._supply(held)
        health: dict[str, str | float] = {
            "supply_current_a": supply.current_a,
            "laser_power_w": monitors.laser_power_w if light.on else 0.0,
        }
        temperature = self.parameters.temperature
        if monitors.temperature_k is not None or temperature.heating_k_per_w > 0:
            around_k = temperature.set_k if monitors.temperature_k is None else monitors.temperature_k
            health["chip_temperature_k"] = around_k + temperature.heating_k_per_w * supply.power_w
        if self.parameters.laser.warm_up_s > 0:
            health["light_warm_up_s"] = light.warmed_up_s
        can_switch = self._description.light_switch
        return DeviceStatus(
            clock_s=self._clock.now_s(),
            safe=held.power_w == 0.0 and not (can_switch and light.on),
            light=light.on if can_switch else None,
            busy=self._busy or self._waiting,
            heater_power_w=held.power_w,
            evaluations=self._evaluations,
            health=health,
        )

    def cancel(self) -> None:
        """Stop a running evaluation or a wait."""
        with self._lock:
            self._stop_count += 1
        self._stop_job()

    def safe(self) -> None:
        """Switch the light off, hold 0 V on every channel, and stop a running evaluation or a wait."""
        with self._lock:
            self._stop_count += 1
            self._safe_count += 1
            self._light = switched_off(self._light, self.parameters.laser, stays_off=False)
            self._held = self._next_held(np.zeros(self._description.channels), self._clock.now_s())
        self._stop_job()

    def clear_fault(self, name: str) -> None:
        """Raise a `DeviceError`: a chip latches no faults."""
        raise DeviceError("bad_request", f"fault {name!r} is not latched: a virtual chip latches no faults")

    def close(self) -> None:
        """Make the chip safe and end its worker threads."""
        self.safe()
        self._closed = True
        self._workers.close()

    # ---- for tests and scripts in the same process, not part of PhotonicDevice --------------------------------------

    def held_drive(self) -> Drive:
        """Return a copy of the held drive [V], shape (channels,)."""
        return self._held.volts.copy()

    def let_pass(self, duration_s: float) -> None:
        """Advance the clock by `duration_s`, at the held drive."""
        self._clock.advance(duration_s, lambda: False)

    def ambient(self) -> Ambient:
        """Return the slow processes of the chip."""
        return self._ambient

    def stages_at(self, moment: Moment) -> tuple[Stage, ...]:
        """Return the stages at `moment`, with faults and with the slow changes of sources and converters."""
        return self._pipeline.stages(moment)

    def input_truth(self) -> InputTruth:
        """Return the true amplitude errors and phases of the modulators."""
        return self._inputs

    # ---- private ----------------------------------------------------------------------------------------------------

    def _supply(self, held: HeldDrive) -> Supply:
        """Return what all voltage sources together deliver, once per held drive and fault. Takes no lock."""
        moment = self._ambient.moment(self._clock.now_s())
        key, supply = self._supply_cache
        if key[0] is not held or key[1:] != (moment.faults, moment.ageing):
            supply = supply_at(self.parameters, self.stages, self._ambient, moment, held.volts)
            self._supply_cache = (held, moment.faults, moment.ageing), supply
        return supply

    def _light_up(self, stop_count: int, *, always: bool = False) -> None:
        """Switch the light on, unless `set_light` switched it off, or `cancel` or `safe` were called meanwhile."""
        with self._lock:
            if self._stop_count == stop_count and (always or not self._light.stays_off):
                self._light = switched_on(self._light, self.parameters.laser, self._clock.now_s())

    def _let_pass(self, duration_s: float, stop_count: int, what: str) -> None:
        """Let time pass at the held drive; raise `DeviceError` "interlock" if `what` was stopped."""
        self._waiting = True
        try:
            if not self._clock.advance(duration_s, lambda: self._stop_count != stop_count):
                raise DeviceError("interlock", f"{what} was stopped before its end")
        finally:
            self._waiting = False
            self._monitors = self._ambient.monitor_values(self._ambient.moment(self._clock.now_s()))

    def _evaluate(self, index: int, volts: Drive, batch: InputBatch, stop_count: int) -> Readings:
        def run(job: KernelJob, kernel: Callable[[int], object]) -> None:
            self._job = job
            if self._stop_count != stop_count:
                job.stop()
            if not self._workers.run(job, kernel):
                raise _stopped()

        settings, samples, held = volts.shape[0], batch.rows.size, batch.held
        values = np.empty((settings, samples, self.stages[index].description.tap_ports), np.float32)
        flags = np.zeros((settings, values.shape[2]), np.uint32)
        now_s, light = self._clock.now_s(), self._light
        warm_up_s = light.warm_up_left_s(now_s)
        start_s = now_s + warm_up_s
        own_v = held.volts[self.stages[index].channels]
        time_s, duration_s = evaluation_times(self._description, start_s, volts, own_v, samples)
        if not light.on:
            batch = _dark(batch)
        if self._thermal is not None:
            self._thermal.update_targets(held, start_s, run)
            self._thermal.read(index, volts, batch, time_s, start_s + duration_s, flags, values, run)
        else:
            blocks = -(-samples // kernels.LANES)
            moments = self._ambient.moments(time_s)
            for part in settings_together(moments, samples * self.parameters.ports):
                counters = self._pipeline.noise_counters(batch, part.start * blocks, part.start)
                self._pipeline.read(index, volts[part], batch, moments[part], counters, 0, flags[part], values[part], run)
                self._pipeline.convert(index, moments[part.start], counters, flags[part], values[part], run)
        if not self._clock.advance(warm_up_s + duration_s, lambda: self._stop_count != stop_count):
            raise _stopped()
        self._evaluations += settings
        self._monitors = self._ambient.monitor_values(self._ambient.moment(self._clock.now_s()))
        return Readings(values, time_s, flags)

    def _update_thermal_targets(self, held: HeldDrive) -> None:
        if self._thermal is not None:
            self._thermal.update_targets(held, self._clock.now_s(), self._finish)

    def _finish(self, job: KernelJob, kernel: Callable[[int], object]) -> None:
        """Run a job that cannot be cancelled."""
        self._workers.run(job, kernel)

    def _modulated(self, inputs: Inputs, *, copy: bool) -> Source:
        """Return the modulated inputs for the kernels, float32 (rows, ports, 1), or (rows, ports, 2) with phases.

        `copy`: return a copy even if the modulators change nothing, so that memory is not shared with the caller.
        """
        modulator = own_modulator(self.parameters)
        has_phase = inputs.dtype.kind == "c" or has_phases(modulator)
        kind = np.complex64 if has_phase else np.float32
        if is_ideal(modulator):
            plain = np.array(inputs, kind, order="C", copy=True if copy else None)
        else:
            plain = np.empty(inputs.shape, kind)
            rows = max(1, _MODULATED_AT_ONCE // inputs.shape[1])
            for first in range(0, inputs.shape[0], rows):
                exact = inputs[first : first + rows].astype(np.complex128 if inputs.dtype.kind == "c" else np.float64)
                plain[first : first + rows] = modulated(exact, modulator, self._inputs)
        return plain.view(np.float32).reshape(*plain.shape, 2 if has_phase else 1)

    def _next_held(self, volts: Drive, since_s: float) -> HeldDrive:
        old = self._held
        versions = tuple(
            version + (not np.array_equal(old.volts[s.channels], volts[s.channels]))
            for s, version in zip(self.stages, old.versions, strict=True)
        )
        squares = tuple(float(np.dot(volts[s.channels], volts[s.channels])) for s in self.stages)
        return HeldDrive(volts, versions, squares, heater_power_w(self._description, volts), since_s)

    def _stop_job(self) -> None:
        job = self._job
        if job is not None:
            job.stop()
        self._clock.wake()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("device", "the chip is closed")


def _dark(batch: InputBatch) -> InputBatch:
    """Return a batch of as many samples without light. It has no name, so its fields are not cached."""
    samples, ports = batch.rows.size, batch.source.shape[1]
    return InputBatch(batch.held, "", np.zeros((1, ports, 1), np.float32), np.zeros(samples, np.int64), batch.noise_number)


def _stopped() -> DeviceError:
    return DeviceError("interlock", "the evaluation was stopped between settings: none of its settings is held")
