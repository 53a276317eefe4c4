"""Run one case of the fault matrix: a fault on a transport in a phase. `fault_matrix.py` runs all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench.bench_clock import WallClock
from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.bench_opening import open_bench, open_table
from photonloop.drivers.station.loading import load_station
from photonloop.drivers.station.schema import Station
from photonloop.protocols.device import Readings
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import SERIAL, BenchChoices
from photonloop.simulator.emulators.laboratory import STAMPS, Measurement, stamped_sequence
from photonloop.simulator.emulators.running import RunningBench

Phase = Literal["apply", "read", "idle"]
PHASES: tuple[Phase, ...] = ("apply", "read", "idle")
FAULTS = ("silence", "late", "garbage", "disconnect", "reset", "error")
CONTINUED, STOPPED = "retry-and-continue", "clean stop"

TIMEOUT_S = 0.25
"""Timeout of one answer [s]. The drivers' own timeouts, for a lab, are 0.5 to 2 s."""

LATE_S = 1.5 * TIMEOUT_S
"""Delay of a late answer [s]."""

EXCHANGES = 10
"""Exchanges of one call with an instrument that fails: the one that fails, then those that make it safe."""

MARGIN_S = 2.0
"""Additional time [s] for a machine that is busy with other work."""

WATCH_S = 3600.0
"""Time between the bench's checks of its instruments [s]: they happen only when the clock is moved."""

LASTING = 1_000_000
"""Messages that a lasting fault happens to."""

AT_ONCE, UNCONFIRMED, LATER = "at once", "at once, unconfirmed", "once it answered again"

CARRIED_OUT = frozenset({"late", "garbage"})
"""Faults of a source that still carries out all commands."""

IN_TRANSIT_S = 0.5
"""Time [s] for commands that were sent without waiting for an answer, and may arrive after the call has returned."""

BASE_V = np.linspace(0.5, 1.5, 16)
NEXT_V = np.linspace(1.6, 0.6, 16)
SETTINGS_V = np.stack([np.linspace(0.7, 1.7, 16), np.linspace(1.1, 2.1, 16)])
LIGHT = np.array([[1.0, 0.2, 0.3, 0.4], [0.1, 0.9, 0.5, 0.6], [0.7, 0.4, 0.8, 0.2]], np.float32)
TOLERANCE_V = 2e-3
"""Larger than the resolution of any instrument here."""


@dataclass(frozen=True)
class TransportSetup:
    """A transport, the instruments that use it, and how their messages are recognised.

    Parameters
    ----------
    transport
        Its name in the table.
    choices
        The instruments of the bench.
    faulty
        Instrument at which the fault is injected, by phase.
    match
        Text in the messages of a phase. A phase that is left out matches all messages.
    retries
        How often the transport repeats a query.
    codes
        The instruments' own error code, by phase.
    """

    transport: str
    choices: BenchChoices
    faulty: dict[Phase, str]
    match: dict[Phase, str]
    retries: int
    codes: dict[Phase, int]

    @property
    def deadline_s(self) -> float:
        """Longest time of a call [s]: each try of an exchange takes at most 3 timeouts."""
        return EXCHANGES * 3 * (self.retries + 1) * TIMEOUT_S

    @property
    def is_modbus(self) -> bool:
        """Whether the instrument is a Modbus readout, which only answers requests."""
        return self.transport == "modbus-tcp"


_SCPI = BenchChoices(heaters="scpi-source", modulators="qdac2", detectors="scpi-readout", laser="scpi-laser")

SETUPS = (
    TransportSetup(
        "visa-tcp",
        _SCPI,
        {"apply": "scpi-source", "read": "scpi-readout", "idle": "scpi-source"},
        {"apply": "VOLT ", "read": "MEAS:VOLT?"},
        1,
        {"apply": -240, "read": -240, "idle": -240},
    ),
    TransportSetup(
        "serial",
        replace(_SCPI, heaters="qontrol", serial=SERIAL | {"scpi-readout"}),
        {"apply": "qontrol", "read": "scpi-readout", "idle": "qontrol"},
        {"apply": "VVEC", "read": "MEAS:VOLT?"},
        2,
        {"apply": 2, "read": -240, "idle": 2},
    ),
    TransportSetup(
        "modbus-tcp",
        replace(_SCPI, detectors="labjack-t7"),
        dict.fromkeys(PHASES, "labjack-t7"),
        {"apply": "\x01\x10", "read": "\x01\x03\x00\x00"},  # unit, function, first half of the register
        1,
        dict.fromkeys(PHASES, 4),
    ),
)


@dataclass(frozen=True)
class Case:
    """The result of one case, a row of the table."""

    transport: str
    fault: str
    times: Literal["once", "lasting"]
    phase: Phase
    instrument: str
    outcome: str
    safe: str
    detail: str
    seconds: float
    hangs: int
    readings: int
    stale: int

    @property
    def good(self) -> bool:
        """Whether the case passed."""
        return self.outcome in {CONTINUED, STOPPED} and not self.hangs and not self.stale


class OutcomeError(Exception):
    """The outcome is neither of the two good ones."""


class HangError(Exception):
    """A call did not return in time."""


class SkippingClock(WallClock):
    """Wall time that can be moved forward, so that what is due in an hour is due at once."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0

    def now_s(self) -> float:
        """Return the time [s], including the skipped time."""
        return super().now_s() + self.skipped_s


class CaseRunner:
    """Makes the calls of one case, checks that each returns in time, and traces all readings."""

    def __init__(self, bench: Bench, virtual: RunningBench, clock: SkippingClock, deadline_s: float) -> None:
        self.bench = bench
        self.clock = clock
        self.virtual = virtual
        self.laboratory = virtual.bench.laboratory
        self.traced = self.stale = self.hangs = 0
        self.slowest_s = 0.0
        self._deadline_s = deadline_s

    def call(self, act: Callable[[], object]) -> str:
        """Make a call; return the message of its DeviceError, empty if it returned."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                act()
            except BaseException as caught:  # noqa: BLE001 - handled in the caller's thread
                raised.append(caught)

        began_s = time.perf_counter()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self._deadline_s + MARGIN_S)
        self.slowest_s = max(self.slowest_s, time.perf_counter() - began_s)
        if thread.is_alive():
            self.hangs += 1
            raise HangError(f"no return within {self._deadline_s:g} s")
        if not raised:
            return ""
        if isinstance(raised[0], DeviceError):
            return raised[0].detail
        raise OutcomeError(f"{type(raised[0]).__name__}: {raised[0]}") from raised[0]

    def call_successfully(self, act: Callable[[], object]) -> None:
        """Make a call that must return; raise OutcomeError if it raises."""
        if refused := self.call(act):
            raise OutcomeError(f"an unexpected error: {refused}")

    def watch(self) -> None:
        """Let the bench check its instruments, as its server does about every second."""
        self.clock.skipped_s += WATCH_S
        self.call_successfully(self.bench.watch)

    def apply(self, volts: NDArray[np.float64]) -> None:
        """Apply `volts`, and check that the virtual heaters hold them."""
        self.bench.apply(volts)
        self.check_heaters(volts)

    def check_heaters(self, volts: NDArray[np.float64]) -> None:
        """Raise OutcomeError if the virtual heaters are not at `volts`."""
        held = np.array(self.virtual.state()["heater_v"])
        if np.abs(held - volts).max() > TOLERANCE_V:
            raise OutcomeError(f"heaters are at {held.round(3).tolist()} V, expected {volts.round(3).tolist()} V")

    def evaluate(self) -> None:
        """Evaluate all samples at all settings, and trace every reading."""
        before = int(self.virtual.state()["measurements"])
        readings = self.bench.evaluate(SETTINGS_V, LIGHT, self.bench.describe().stages[0].name)
        self.stale += self._stale_in(readings, before)

    def _stale_in(self, readings: Readings, before: int) -> int:
        """Count the readings that are not the last measurement of their setting and sample after number `before`."""
        entries = self.virtual.call(lambda: [entry for entry in self.laboratory.log if entry.sequence > before])
        full_scale_a = self.laboratory.full_scale_a[0]
        stale = 0
        for setting, volts in enumerate(SETTINGS_V):
            for sample, light in enumerate(LIGHT):
                here = [entry.sequence for entry in entries if self._is_of(entry, volts, light)]
                self.traced += readings.values.shape[2]
                for amps in readings.values[setting, sample]:
                    stale += not here or stamped_sequence(float(amps), full_scale_a) != here[-1] % STAMPS
        return stale

    def _is_of(self, entry: Measurement, volts: NDArray[np.float64], light: NDArray[np.float32]) -> bool:
        amplitude = np.abs(np.sin(0.5 * np.pi / self.laboratory.v_pi * entry.modulator_v))
        return bool(np.abs(entry.heater_v - volts).max() < TOLERANCE_V and np.abs(amplitude - light).max() < TOLERANCE_V)

    def is_safe(self) -> bool:
        """Return whether the virtual heaters are at 0 V and the light is off."""
        state = self.virtual.state()
        return not any(state["heater_v"]) and not any(state["modulator_v"]) and not state["laser"]["is_on"]


def run_case(setup: TransportSetup, virtual: RunningBench, fault: str, phase: Phase, *, lasting: bool, locks: Path) -> Case:
    """Run one case and return its result."""
    folder, instrument = virtual.addresses.station.parent, setup.faulty[phase]
    clock = SkippingClock()
    station = with_short_timeouts(load_station(virtual.addresses.station))
    bench = open_bench(station, partial(open_table, folder), clock=clock, locks=locks)
    runner = CaseRunner(bench, virtual, clock, setup.deadline_s)
    outcome = safe = error = ""
    try:
        runner.call_successfully(lambda: runner.apply(BASE_V))
        runner.call_successfully(runner.evaluate)
        inject_fault(setup, virtual, fault, phase, lasting=lasting)
        error = run_phase(runner, setup, phase)
        if error:
            safe = check_stop(runner, error, instrument, fault)
        remove_faults(virtual)
        if error:
            if safe != AT_ONCE:
                check_recovery(runner)
                safe = safe or LATER
            for latched in bench.status().faults:
                runner.call_successfully(partial(bench.clear_fault, latched.name))
        runner.call_successfully(lambda: runner.apply(NEXT_V))
        runner.call_successfully(runner.evaluate)
        runner.call_successfully(lambda: runner.check_heaters(NEXT_V))
        outcome = STOPPED if error else CONTINUED
    except HangError as hung:
        outcome, error = "hang", str(hung)
    except OutcomeError as wrong:
        outcome, error = "wrong", f"{wrong} (error before: {error or 'none'})"
    finally:
        remove_faults(virtual)
        if outcome != "hang":
            runner.call_successfully(bench.close)
    times = "lasting" if lasting else "once"
    seconds = round(runner.slowest_s, 3)
    return Case(
        setup.transport, fault, times, phase, instrument, outcome, safe, error, seconds, runner.hangs, runner.traced, runner.stale
    )


def with_short_timeouts(station: Station) -> Station:
    """Return `station` with short timeouts, and with checks of its instruments only when the clock is moved."""
    instruments = tuple(table.model_copy(update={"timeout_s": TIMEOUT_S}) for table in station.instruments)
    return station.model_copy(update={"instruments": instruments, "watch_s": WATCH_S})


def inject_fault(setup: TransportSetup, virtual: RunningBench, fault: str, phase: Phase, *, lasting: bool) -> None:
    """Schedule the fault for the next message of the phase, or let it happen now if it needs no message."""
    instrument = setup.faulty[phase]
    details: dict[str, Any] = {"delay_s": LATE_S, "code": setup.codes[phase]}
    if setup.is_modbus and phase == "apply":
        virtual.inject(instrument, "disconnect", now=True)  # after a reconnection its ranges are written again
    if lasting:
        virtual.inject(instrument, fault, count=LASTING, **details)
    elif phase == "idle" and fault in {"disconnect", "reset", "error"} and not setup.is_modbus:
        virtual.inject(instrument, fault, now=True, **details)
    else:
        virtual.inject(instrument, fault, match=setup.match.get(phase, ""), **details)


def run_phase(runner: CaseRunner, setup: TransportSetup, phase: Phase) -> str:
    """Make the call that meets the fault; return the message of its error, empty if there was none."""
    bench = runner.bench
    if phase == "idle":
        runner.watch()
        return "; ".join(fault.detail for fault in bench.status().faults) or runner.call(lambda: runner.check_heaters(BASE_V))
    if phase == "apply":
        refused = runner.call(lambda: runner.apply(NEXT_V))
        if not setup.is_modbus:
            return refused
    return runner.call(runner.evaluate)


def check_stop(runner: CaseRunner, error: str, instrument: str, fault: str) -> str:
    """Check a clean stop; return AT_ONCE or UNCONFIRMED if everything is safe, and "" if a source is out of reach.

    Raises
    ------
    OutcomeError
        One of these: the error is not one sentence about the instrument; the bench reports that it is safe although it
        is not; heaters are driven by a source that carries out commands; the error does not state what is not safe.
    """
    if instrument not in error or len(error) > 400 or "\n" in error or "Traceback" in error:
        raise OutcomeError("the error is not one sentence about the instrument")
    if runner.bench.status().safe:
        if runner.is_safe():
            return AT_ONCE
        raise OutcomeError("the bench reports that it is safe, but it is not")
    end_s = time.perf_counter() + IN_TRANSIT_S
    while not (safe := runner.is_safe()) and time.perf_counter() < end_s:
        time.sleep(0.01)
    if not safe and fault in CARRIED_OUT:
        raise OutcomeError("the source carries out commands, but its heaters are driven")
    if "confirm" not in error and (fault in CARRIED_OUT or "could not be made safe" not in error):
        raise OutcomeError("the error does not state that the source may not be safe")
    return UNCONFIRMED if safe else ""


def check_recovery(runner: CaseRunner) -> None:
    """Let the bench check its instruments without the fault; raise OutcomeError if it is not safe then."""
    runner.watch()
    if not (runner.is_safe() and runner.bench.status().safe):
        raise OutcomeError("the bench is not safe although every instrument answers again")


def remove_faults(virtual: RunningBench) -> None:
    """Remove all pending faults."""
    virtual.call(lambda: [unit.faults.clear() for unit in virtual.bench.units.values()])
