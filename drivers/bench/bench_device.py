"""A bench: instruments composed into a `PhotonicDevice`.

    for each setting:   write changed heaters (ramped) ─▶ for each sample:  write changed modulators ─▶ settle ─▶ read detectors

Nothing is written before the whole request has passed every limit; what is written then passes the drivers' own, armed limits as
well. Whatever ends a request (its end, a stop, a failing instrument, an exception, Ctrl-C) leaves the held drive or the safe
drive, never a probe. An instrument that fails, and a reading beyond its bound, make the bench safe and latch a fault: nothing is
driven any more until a person has cleared it by name.

Threads: one drives, as the contract says; `status`, `cancel`, `safe` and `watch` may come from any. An instrument serves one
thread at a time (`InstrumentHandle.lock`); whoever moves heaters holds `_heating`, whoever moves modulators `_shining`. Neither is held while
anything is read or settles, so a readout or a modulator that hangs does not keep `safe` from the heaters.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench import monitors, power_limit
from photonloop.drivers.bench.bench_clock import BenchClock, WallClock
from photonloop.drivers.bench.instrument_handle import InstrumentError, InstrumentHandle, describe_failed_outputs
from photonloop.drivers.bench.laser_light import LaserControl
from photonloop.drivers.bench.output_channels import make_outputs_safe, move, outputs_of
from photonloop.drivers.bench.taps import photocurrents, read_sample
from photonloop.drivers.bench.wiring import Wiring
from photonloop.drivers.instrument import ChannelLimits, DriveSource
from photonloop.protocols.device import (
    FLAG_SATURATED,
    DeviceDescription,
    DeviceStatus,
    Drive,
    Fault,
    Inputs,
    LoadedRows,
    Readings,
)
from photonloop.protocols.errors import DeviceError
from photonloop.protocols.limits import (
    check_held_drive,
    check_inputs,
    check_settings,
    check_size,
    heater_power_w,
)
from photonloop.protocols.loaded_inputs import LoadedInputs

log = logging.getLogger(__name__)

Allowed = Callable[[], bool]


class WrongInstrument(InstrumentError):
    """Another instrument answers where a known one was: nothing is written to it, not even 0 V."""


class Bench:
    """Opened instruments as one device; made by `photonloop.drivers.bench.bench_opening.open_bench`, which arms it.

    Parameters
    ----------
    wiring
        Which channel is what, and all limits.
    lines
        The instruments, by their names in the station file.
    clock
        Its time; every wait of the bench goes through it.
    on_close
        Called once at the very end.
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
        self._heaters = outputs_of(wiring.heaters, handles, wiring.description.limits.slew_v_per_s)
        self._inputs = outputs_of(wiring.inputs, handles)
        laser = wiring.station.laser
        self._light = LaserControl(laser, handles[laser.instrument] if laser is not None else None)  # pyright: ignore[reportArgumentType]  (wire checked)
        self._lock = threading.Lock()
        """Guards counters and faults; never kept while anything else is done."""
        self._heating = threading.RLock()
        self._shining = threading.RLock()
        self._held: Drive = np.zeros(wiring.description.channels)
        self._loaded = LoadedInputs(wiring.description.limits.max_loaded_bytes)
        self._faults: dict[str, Fault] = {}
        self._monitored: dict[str, str | float] = {}
        self._stops = self._safes = 0
        self._busy = self._closed = False
        self._evaluations = 0
        self._waited_s = self._evaluated_s = 0.0
        self._watched_s = -np.inf

    # ---- the contract -----------------------------------------------------------------------------------------------

    def describe(self) -> DeviceDescription:
        """Return what station, instruments and session make of it together."""
        return self._wiring.description

    def apply(self, drive: Drive) -> None:
        """Hold these voltages; returns once they are written, and the next reading waits for the settle time."""
        self._check_ready()
        safes = self._safes
        volts = check_held_drive(self.describe(), drive).copy()

        def allowed() -> bool:
            return self._safes == safes

        with self._safe_on_failure(), self._heating:
            if not self._drive(volts, allowed):
                raise DeviceError(
                    "interlock",
                    "safe was called while the drive was being applied: the bench holds the safe drive",
                    outcome="unknown",
                )
            self._held = volts

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Keep `inputs` in this computer's memory under `name`."""
        self._check_open()
        self._loaded.load(name, np.array(check_inputs(self.describe(), inputs), np.float32))

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """Read every sample at every setting; see `PhotonicDevice.evaluate`. A stop is looked for before every sample."""
        self._check_ready()
        stops, safes, held = self._stops, self._safes, self._held
        volts = check_settings(self.describe(), stage, drives, held)
        if isinstance(inputs, LoadedRows):
            light: Inputs = self._loaded.rows(inputs)
        else:
            light = check_inputs(self.describe(), inputs)
        check_size(self.describe(), stage, len(volts), len(light))
        index = self.describe().stage_index(stage)
        began_s = self._clock.now_s()
        self._busy = True
        try:
            with self._safe_on_failure():
                readings = self._settings(index, volts, self._wiring.input_volts(light.real), held, lambda: self._stops == stops)
                with self._heating:
                    for output in self._heaters:
                        output.expect_nothing()
                    self._drive(held, lambda: self._safes == safes)
        finally:
            self._busy = False
            self._evaluated_s += self._clock.now_s() - began_s
        if readings is None:
            self._check_faults()
            raise DeviceError("interlock", "the evaluation was stopped between settings: nothing of it is held")
        return readings

    def status(self) -> DeviceStatus:
        """Return what is known now: gauges are as they were last read, `watch` reads them. Talks to no instrument."""
        held = self._held
        with self._lock:
            faults = tuple(self._faults.values())
        # Modulators and light may be on with the safe drive held, but not after they were told off and did not confirm it.
        known = all(output.is_at_zero for output in self._heaters) and all(output.is_known for output in self._inputs)
        return DeviceStatus(
            clock_s=self._clock.now_s(),
            safe=known and not self._light.doubtful and not held.any(),
            busy=self._busy,
            heater_power_w=heater_power_w(self.describe(), held),
            evaluations=self._evaluations,
            faults=faults,
            health=self._health(),
        )

    def cancel(self) -> None:
        """Stop a running evaluation at its next sample."""
        with self._lock:
            self._stops += 1
        self._clock.wake()

    def safe(self) -> None:
        """Ramp every heater to 0 V, then the modulators; a source that does not follow is told to drop at once.

        Raises
        ------
        DeviceError
            A source could not be made safe by any means, or was sent its zeros and does not confirm them, after everything else
            was made safe.
        """
        if errors := self._make_safe():
            raise DeviceError("device", f"the bench could not be made safe: {errors[0].detail}", outcome="unknown")

    def _make_safe(self) -> list[InstrumentError]:
        """Do what `safe` promises; return an error, latched as well, for every source that would not."""
        with self._lock:
            self._stops += 1
            self._safes += 1
        self._clock.wake()
        with self._heating:
            self._held = np.zeros(self.describe().channels)
            errors = make_outputs_safe(self._heaters, self._clock)
        with self._shining:
            errors += make_outputs_safe(self._inputs, self._clock)
        for error in errors:
            self._latch(f"{error.instrument}_failed", error.detail)
        return errors

    def clear_fault(self, name: str) -> None:
        """Forget a fault; instruments that failed are asked who they are, and armed again, or put out, first.

        Raises
        ------
        DeviceError
            "bad_request" where there is none of that name; whatever an instrument that is still broken says, and the fault stays.
        """
        self._check_open()
        with self._lock:
            if name not in self._faults:
                raise DeviceError("bad_request", f"fault {name!r} is not latched here")
        self.prepare(only_suspects=True)
        with self._lock:
            self._faults.pop(name, None)

    def close(self) -> None:
        """Make the bench safe, put the light out, let go of every instrument, whatever fails on the way.

        Raises
        ------
        DeviceError
            The first thing that failed, at the end.
        """
        if self._closed:
            return
        errors: list[DeviceError] = []
        laser = self._wiring.station.laser
        try:
            steps: list[Callable[[], object]] = [self.safe]
            if laser is not None and not laser.keep_on:
                steps.append(self._light.switch_off)
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

    # ---- beside the contract: what keeps a bench in order --------------------------------------------------------------

    def prepare(self, *, only_suspects: bool = False) -> None:
        """Write all limits into the sources that have their own, bring every source to 0 V, then hear what others complain of.

        Raises
        ------
        InstrumentError
            The first instrument that failed; the sources that follow stand at 0 V all the same.
        """
        limits: dict[str, dict[int, ChannelLimits]] = {}
        for bank in (*self._wiring.heaters, *self._wiring.inputs):
            limits.setdefault(bank.instrument, {}).update(bank.limits)
        errors: list[InstrumentError] = []
        strangers: set[str] = set()
        with self._heating, self._shining:
            asked = [handle for handle in self._handles.values() if handle.suspect or not only_suspects]
            # 0 V comes before all that may be wrong: a readout that complains, or one source of two, keeps no heater hot.
            for handle in asked:
                if isinstance(handle.instrument, DriveSource):
                    try:
                        self._set_limits(handle, limits.get(handle.name, {}))
                    except WrongInstrument as error:
                        strangers.add(handle.name)
                        errors.append(error)
                    except InstrumentError as error:
                        errors.append(error)
            outputs = [
                (output for output in bank if output.handle.name not in strangers) for bank in (self._heaters, self._inputs)
            ]
            errors += [error for bank in outputs for error in make_outputs_safe(list(bank), self._clock)]
            for error in errors:
                raise error
            for handle in asked:
                self._examine(handle)
        self._light.make_sure()

    def watch(self) -> None:
        """Look at complaints, currents, monitors and laser if that is due; to be called now and then by whoever serves the bench.

        Raises nothing: what is wrong makes the bench safe and latches a fault.
        """
        if self._closed or not self._watch_due():
            return
        self._watched_s = self._clock.now_s()
        if self._faults:  # what did not follow may have come back
            if not all(output.is_at_zero for output in (*self._heaters, *self._inputs)):
                self._try(self.safe)
            self._try(self._light.make_sure)
            return
        with suppress(DeviceError), self._safe_on_failure():
            self._look()

    # ---- reading --------------------------------------------------------------------------------------------------------

    def _settings(
        self, index: int, volts: Drive, modulators: NDArray[np.float64], held: Drive, allowed: Allowed
    ) -> Readings | None:
        """Return the readings of all settings; None where `allowed` said no."""
        here = self.describe().stages[index]
        own = slice(here.first_channel, here.first_channel + here.channels)
        values = np.empty((len(volts), len(modulators), here.tap_ports), np.float32)
        time_s = np.empty(len(volts))
        flags = np.zeros(len(volts), np.uint32)
        taps, raw = self._wiring.taps[index], np.empty(values.shape[1:])
        if not self._light.switch_on(self._clock, allowed):
            return None
        targets = np.tile(held, (len(volts), 1))
        targets[:, own] = volts
        with self._heating:
            for output in self._heaters:
                output.expect(targets[:, output.members])
        for setting, target in enumerate(targets):
            if self._watch_due():
                self._look()
            with self._heating:
                if not self._drive(target, allowed):
                    return None
            for sample, levels in enumerate(modulators):
                if not self._shine(levels, allowed):
                    return None
                if sample == 0:
                    time_s[setting] = self._clock.now_s()
                read_sample(taps, self._handles, raw[sample])
            if photocurrents(taps, self._handles, raw, values[setting]):
                flags[setting] |= FLAG_SATURATED
            self._evaluations += 1
        return Readings(values, time_s, flags)

    def _drive(self, target: Drive, allowed: Allowed) -> bool:
        return all(
            move(self._heaters, [drive[output.members] for output in self._heaters], self._clock, allowed)
            for drive in power_limit.drives_between(self.describe(), self._heaters, target)
        )

    def _shine(self, levels: NDArray[np.float64], allowed: Allowed) -> bool:
        """Set the modulators and wait for whatever settles last; return False where `allowed` said no."""
        with self._shining:
            if not move(self._inputs, [levels[output.members] for output in self._inputs], self._clock, allowed):
                return False
        ready_s = max(
            max(output.written_s for output in self._heaters) + self._wiring.station.settle_s,
            max(output.written_s for output in self._inputs) + self._wiring.station.inputs.settle_s,
        )
        now_s = self._clock.now_s()
        if ready_s <= now_s:
            return allowed()
        self._waited_s += ready_s - now_s
        return self._clock.wait_until(ready_s, lambda: not allowed())

    # ---- when something is wrong ----------------------------------------------------------------------------------------

    def _watch_due(self) -> bool:
        return self._clock.now_s() - self._watched_s >= self._wiring.station.watch_s

    def _look(self) -> None:
        """Read what is watched.

        Raises
        ------
        InstrumentError, TrippedError
            An instrument complains, or a value is beyond its bound.
        """
        self._watched_s = self._clock.now_s()
        for handle in self._handles.values():
            handle.query("check", lambda instrument: instrument.check())
        self._monitored = monitors.read_monitors(self._wiring, self._handles, self._heaters, self._light.lit)

    @contextmanager
    def _safe_on_failure(self) -> Iterator[None]:
        """Make the bench safe on every exception; latch a fault where an instrument or a bound was the reason.

        A refusal with nothing broken behind it passes as it is.
        """
        try:
            yield
        except InstrumentError as error:
            became = self._trip(f"{error.instrument}_failed", error.detail)
            code = error.code if error.code == "transport" else "device"
            raise DeviceError(code, f"{error.detail}; {became}", outcome="unknown") from error
        except monitors.TrippedError as error:
            became = self._trip(error.name, error.detail)
            raise DeviceError("interlock", f"{error.name}: {error.detail}; {became}", outcome="unknown") from error
        except DeviceError:
            raise
        except BaseException:  # Ctrl-C in a script, a bug: nothing stays hot unwatched
            self._try(self.safe)
            raise

    def _trip(self, name: str, detail: str) -> str:
        """Latch a fault, make the bench safe and put the light out; the light first where there is too much of it.

        Returns what became of it, in words that go behind `detail`; the fault tells them where not everything is safe.
        """
        log.error("%s: %s", name, detail)
        self._latch(name, detail)
        steps = [self._make_safe, self._switch_light_off]
        failed = [error for step in (reversed(steps) if name == monitors.OVER_POWER else steps) for error in step()]
        for error in failed:
            log.warning("on the way to safe: %s", error.detail)
        if not failed:
            return "the bench was made safe"
        became = describe_failed_outputs(failed)
        with self._lock:
            if name in self._faults:
                self._faults[name] = Fault(name=name, detail=f"{detail}; {became}")
        return became

    def _switch_light_off(self) -> list[InstrumentError]:
        try:
            self._light.switch_off()
        except InstrumentError as error:
            return [error]
        return []

    def _try(self, step: Callable[[], None]) -> None:
        try:
            step()
        except DeviceError as error:
            log.warning("on the way to safe: %s", error.detail)

    def _latch(self, name: str, detail: str) -> None:
        with self._lock:
            self._faults.setdefault(name, Fault(name=name, detail=detail))

    def _check_ready(self) -> None:
        self._check_open()
        self._check_faults()

    def _check_faults(self) -> None:
        with self._lock:
            for fault in self._faults.values():
                raise DeviceError("interlock", f"fault {fault.name} is latched ({fault.detail}): clear it by name first")

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("device", "the bench is closed")

    def _set_limits(self, handle: InstrumentHandle, limits: Mapping[int, ChannelLimits]) -> None:
        """Make sure of one source, and write its limits into it."""
        self._recognise(handle)
        with suppress(InstrumentError):  # what it complained of before now; a second complaint counts
            handle.query("check", lambda instrument: instrument.check())
        for output in (*self._heaters, *self._inputs):
            if output.handle is handle:
                output.forget()
        handle.mutate("set_limits", lambda source: source.set_limits(limits))
        handle.suspect = False

    def _examine(self, handle: InstrumentHandle) -> None:
        """Make sure that an instrument has nothing to complain of."""
        if not isinstance(handle.instrument, DriveSource):
            self._recognise(handle)
            with suppress(InstrumentError):  # as for sources, which have been asked before they were armed
                handle.query("check", lambda instrument: instrument.check())
        handle.query("check", lambda instrument: instrument.check())
        handle.suspect = False

    def _recognise(self, handle: InstrumentHandle) -> None:
        """Ask an instrument who it is; raise `WrongInstrument` where it is another one than before."""
        try:
            identity = handle.query("identify", lambda instrument: instrument.identify())
        except InstrumentError as error:
            if error.code != "device" or not error.retryable:
                raise
            # It says that it was lost and has been found again, once: what was to be done about that is done here.
            identity = handle.query("identify", lambda instrument: instrument.identify())
        known = handle.identity or identity
        if identity.serial != known.serial:
            detail = f"another instrument answers now: {identity}, not {known}"
            raise WrongInstrument(handle.name, DeviceError("device", detail))
        handle.identity = identity

    # ---- inside -----------------------------------------------------------------------------------------------------

    def _health(self) -> dict[str, str | float]:
        """Return gauges, and counters from which a script tells where the time of an evaluation goes."""
        health = dict(self._monitored)
        for handle in self._handles.values():
            health[f"{handle.name}_calls"] = float(handle.calls)
            health[f"{handle.name}_busy_s"] = handle.busy_s
        health["settling_s"] = self._waited_s
        health["evaluating_s"] = self._evaluated_s
        health["heater_writes"] = float(sum(output.writes for output in self._heaters))
        health["input_writes"] = float(sum(output.writes for output in self._inputs))
        return health
