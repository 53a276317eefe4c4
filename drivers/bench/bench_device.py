"""A bench: instruments composed into a `PhotonicDevice`.

    request ─▶ limits ─▶ evaluator ─▶ outputs, light, detectors          fault handling ◀─ any exception, monitors

Nothing is written before the whole request has passed every limit. What is written then also passes the limits in the
drivers. However a request ends (in order, by a stop, a failing instrument, an exception, Ctrl-C), the heaters are at
the held drive or at the safe drive afterwards, never at a probe. An instrument that fails and a reading beyond its
bound make the bench safe and latch a fault. Every drive is refused until the fault is cleared by name.

Threads: one thread drives, as the contract requires. `status`, `cancel`, `safe` and `watch` may be called from any
thread. An instrument serves one thread at a time (`InstrumentHandle.lock`), and so do all heaters and all modulators
(`photonloop.drivers.bench.bench_outputs`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np

from photonloop.drivers.bench.bench_clock import BenchClock, WallClock
from photonloop.drivers.bench.bench_outputs import BenchOutputs
from photonloop.drivers.bench.evaluator import Evaluator
from photonloop.drivers.bench.fault_handling import FaultHandler, log_errors
from photonloop.drivers.bench.input_settings import check_samples, input_settings
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle
from photonloop.drivers.bench.laser_light import LaserControl
from photonloop.drivers.bench.monitors import MonitorReader
from photonloop.drivers.bench.preparation import prepare_instruments
from photonloop.drivers.bench.readback import measure
from photonloop.drivers.bench.wiring import Wiring
from photonloop.protocols.device import (
    DeviceDescription,
    DeviceStatus,
    Drive,
    Inputs,
    LoadedRows,
    Readback,
    Readings,
)
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.fault_latch import FaultLatch
from photonloop.protocols.limits import (
    check_held_drive,
    check_inputs,
    check_light_switch,
    check_settings,
    check_size,
    check_wait,
    heater_power_w,
)
from photonloop.protocols.loaded_inputs import LoadedInputs


class Bench:
    """Opened instruments as one device; made by `photonloop.drivers.bench.bench_opening.open_bench`, which prepares it.

    Parameters
    ----------
    wiring
        What each channel is connected to, and all limits.
    handles
        The instruments, by their names in the station file.
    clock
        The clock of the bench; all its waits use it.
    on_close
        Called once, at the end of `close`.
    """

    def __init__(
        self,
        wiring: Wiring,
        handles: Mapping[str, InstrumentHandle],
        clock: BenchClock | None = None,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._wiring = wiring
        self._handles = handles
        self._clock = clock or WallClock()
        self._on_close = on_close
        laser = wiring.station.laser
        self._light = LaserControl(laser, handles[laser.instrument] if laser is not None else None)  # pyright: ignore[reportArgumentType]  (wire checked)
        self._outputs = BenchOutputs(wiring, handles, self._clock)
        self._monitor = MonitorReader(wiring, handles, self._outputs.heaters, self._light, self._clock)
        self._evaluator = Evaluator(wiring, handles, self._outputs, self._light, self._monitor, self._clock)
        self._faults = FaultLatch()
        self._on_fault = FaultHandler(self._faults, self._make_outputs_safe, self._light)
        self._counter_lock = threading.Lock()
        """Guards `_stops` and `_safes`; held for nothing else."""
        self._held: Drive = np.zeros(wiring.description.channels)
        self._loaded = LoadedInputs(wiring.description.limits.max_loaded_bytes)
        self._stops = self._safes = 0
        self._busy = self._closed = False
        self._evaluating_s = 0.0

    # ---- the contract -----------------------------------------------------------------------------------------------

    def describe(self) -> DeviceDescription:
        """Return what the device is, within the limits of hardware, station file and device string together."""
        return self._wiring.description

    def apply(self, drive: Drive) -> None:
        """Hold these voltages. Returns once they are written; the next reading waits for the settle time."""
        self._check_ready()
        safes = self._safes
        volts = check_held_drive(self.describe(), drive).copy()
        with self._on_fault.safe_on_failure(), self._outputs.heaters_lock:
            if not self._outputs.set_heaters(volts, lambda: self._safes == safes):
                raise DeviceError(
                    "interlock",
                    "safe was called while the drive was being applied: the bench holds the safe drive",
                    outcome="unknown",
                )
            self._held = volts

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Keep `inputs` in this computer's memory under `name`."""
        self._check_open()
        self._loaded.load(name, np.array(self._checked_inputs(inputs), np.float32))

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """Read every sample at every setting; see `PhotonicDevice.evaluate`. Can be stopped before every sample."""
        self._check_ready()
        stops, safes, held = self._stops, self._safes, self._held
        volts = check_settings(self.describe(), stage, drives, held)
        if isinstance(inputs, LoadedRows):
            amplitudes: Inputs = self._loaded.rows(inputs)
        else:
            amplitudes = self._checked_inputs(inputs)
        check_size(self.describe(), stage, len(volts), len(amplitudes))
        index = self.describe().stage_index(stage)
        rows = input_settings(self._wiring.station, amplitudes.real)
        began_s = self._clock.now_s()
        self._busy = True
        try:
            with self._on_fault.safe_on_failure():
                readings = self._evaluator.read_settings(index, volts, rows, held, lambda: self._stops == stops)
                with self._outputs.heaters_lock:
                    self._outputs.clear_announced_drives()
                    self._outputs.set_heaters(held, lambda: self._safes == safes)
        finally:
            self._busy = False
            self._evaluating_s += self._clock.now_s() - began_s
        if readings is None:
            self._faults.check()
            raise DeviceError("interlock", "the evaluation was stopped between settings: none of its settings is held")
        return readings

    def set_light(self, on: bool) -> None:
        """Switch the laser on and wait until it is warm, or off; see `PhotonicDevice.set_light`.

        A latched fault refuses to switch it on, never to switch it off.
        """
        check_light_switch(self.describe())
        if not on:
            self._check_open()
            self._light.stays_off = True
            with self._on_fault.safe_on_failure():
                self._light.switch_off()
            return
        self._check_ready()
        allowed = self._stop_check()
        self._light.stays_off = False
        with self._on_fault.safe_on_failure(), self._marked_busy():
            is_warm = self._light.switch_on(self._clock, allowed)
        if not is_warm:
            self._faults.check()
            raise DeviceError("interlock", "the wait for the light to warm up was stopped", outcome="unknown")

    def wait(self, seconds: float) -> None:
        """Wait in real time; see `PhotonicDevice.wait`. What is monitored is read whenever it is due."""
        self._check_ready()
        allowed = self._stop_check()
        end_s = self._clock.now_s() + check_wait(seconds)
        with self._on_fault.safe_on_failure(), self._marked_busy():
            while (is_allowed := allowed()) and self._clock.now_s() < end_s:
                if self._monitor.is_due:
                    self._monitor.read()
                self._clock.wait_until(min(end_s, self._monitor.due_at_s), lambda: not allowed())
        if not is_allowed:
            self._faults.check()
            raise DeviceError("interlock", "the wait was stopped before its end")

    def readback(self) -> Readback:
        """Measure all heaters at the held drive, once it has settled; see `PhotonicDevice.readback`.

        Also while a fault is latched, to find its cause.
        """
        self._check_open()
        allowed = self._stop_check()
        with self._on_fault.safe_on_failure():
            if self._outputs.wait_until_settled(allowed):
                return measure(self._outputs.heaters, self.describe().channels)
        raise DeviceError("interlock", "the readback was stopped while the drive settled")

    def status(self) -> DeviceStatus:
        """Return the present state, with monitored values as last read by `watch`. Calls no instrument."""
        held, light = self._held, self._light
        # With the safe drive held, modulators may be on, but not if a command to turn them off was not confirmed.
        is_known = all(output.is_at_zero for output in self._outputs.heaters) and all(
            output.is_known for output in self._outputs.modulators
        )
        return DeviceStatus(
            clock_s=self._clock.now_s(),
            safe=is_known and not light.unconfirmed and not (light.is_switch and light.is_on) and not held.any(),
            light=light.is_on if light.is_switch else None,
            busy=self._busy,
            heater_power_w=heater_power_w(self.describe(), held),
            evaluations=self._evaluator.evaluations,
            faults=self._faults.all(),
            health=self._health(),
        )

    def cancel(self) -> None:
        """Stop a running evaluation at its next sample, or a wait."""
        with self._counter_lock:
            self._stops += 1
        self._clock.wake()

    def safe(self) -> None:
        """Ramp every heater to 0 V, then set the modulators to 0 V and switch the light off.

        A source that cannot be ramped is brought to 0 V at once by its driver's `safe`. The light stays on if it is not
        part of the safe state (`keep_on` in the station file).

        Raises
        ------
        DeviceError
            After everything else was made safe: an instrument could not be made safe by any means, or did not confirm
            it.
        """
        self._light.stays_off = False
        errors = self._make_outputs_safe()
        errors += self._latched(self._light.make_safe())
        if errors:
            raise DeviceError("device", f"the bench could not be made safe: {errors[0].detail}", outcome="unknown")

    def clear_fault(self, name: str) -> None:
        """Clear a fault, after every instrument that failed was identified, configured and brought to its safe state
        again.

        Raises
        ------
        DeviceError
            "bad_request" if the fault is not latched. The error of an instrument that still fails; the fault then
            stays.
        """
        self._check_open()
        self._faults.require(name)
        self.prepare(only_suspects=True)
        self._faults.clear(name)

    def close(self) -> None:
        """Make the bench safe and close every instrument, whatever fails on the way.

        Raises
        ------
        DeviceError
            The first failure, after everything else was done.
        """
        if self._closed:
            return
        errors: list[DeviceError] = []
        try:
            steps: list[Callable[[], object]] = [self.safe]
            steps += [
                lambda handle=handle: handle.query("close", lambda instrument: instrument.close())
                for handle in self._handles.values()
            ]
            for step in steps:
                try:
                    step()
                except DeviceError as error:
                    errors.append(error)
        finally:
            self._closed = True
            self._on_close()
        if errors:
            raise errors[0]

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- beyond the contract ----------------------------------------------------------------------------------------

    def prepare(self, *, only_suspects: bool = False) -> None:
        """Configure all instruments, or those that failed, and make the bench safe; see `prepare_instruments`.

        Raises
        ------
        InstrumentError
            The first instrument that failed.
        """
        prepare_instruments(self._wiring, self._handles, self._outputs, only_suspects=only_suspects)
        self._light.retry_off()

    def watch(self) -> None:
        """Read errors, currents, monitors and laser if that is due; the server calls this a few times per second.

        While a fault is latched, it tries again to make safe what is not. Raises nothing: a failure or a value beyond
        its bound makes the bench safe and latches a fault.
        """
        if self._closed or not self._monitor.is_due:
            return
        if self._faults.all():
            self._monitor.restart_interval()
            self._retry_safe()
            return
        with suppress(DeviceError), self._on_fault.safe_on_failure():
            self._monitor.read()

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _make_outputs_safe(self) -> list[InstrumentError]:
        """Stop everything and bring all outputs to 0 V; latch and return an error for every source that failed."""
        with self._counter_lock:
            self._stops += 1
            self._safes += 1
        self._clock.wake()
        with self._outputs.heaters_lock:
            self._held = np.zeros(self.describe().channels)
            errors = self._outputs.make_heaters_safe()
        errors += self._outputs.make_modulators_safe()
        return self._latched(errors)

    def _latched(self, errors: list[InstrumentError]) -> list[InstrumentError]:
        """Latch a fault for each instrument that could not be made safe; return `errors`."""
        for error in errors:
            self._faults.latch(f"{error.instrument}_failed", error.detail)
        return errors

    def _stop_check(self) -> Callable[[], bool]:
        """Return a function that returns False once `cancel` or `safe` has been called after this moment."""
        stops = self._stops
        return lambda: self._stops == stops

    @contextmanager
    def _marked_busy(self) -> Iterator[None]:
        """Report the bench as busy meanwhile."""
        self._busy = True
        try:
            yield
        finally:
            self._busy = False

    def _retry_safe(self) -> None:
        """Try again to bring outputs and light to their safe state, if they are not known to be there."""
        if not self._outputs.are_at_zero:
            log_errors(self._make_outputs_safe())
        try:
            self._light.retry_off()
        except InstrumentError as error:
            log_errors([error])

    def _checked_inputs(self, inputs: Inputs) -> Inputs:
        """Return `inputs` as an array that the instruments of this bench can set."""
        amplitudes = check_inputs(self.describe(), inputs)
        check_samples(self._wiring.station.inputs, amplitudes.real, has_dark=self._wiring.has_dark)
        return amplitudes

    def _check_ready(self) -> None:
        self._check_open()
        self._faults.check()

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("device", "the bench is closed")

    def _health(self) -> dict[str, str | float]:
        """Return monitored values, and counters of the time that the parts of an evaluation take."""
        health = dict(self._monitor.values)
        for handle in self._handles.values():
            health[f"{handle.name}_calls"] = float(handle.calls)
            health[f"{handle.name}_busy_s"] = handle.busy_s
        health["settling_s"] = self._outputs.settling_s
        health["evaluating_s"] = self._evaluating_s
        health["heater_writes"] = float(sum(output.writes for output in self._outputs.heaters))
        health["input_writes"] = float(self._outputs.input_writes)
        return health
