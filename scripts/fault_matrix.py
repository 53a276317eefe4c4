"""What a bench does about every fault of every transport: each one injected into virtual instruments, and the outcome looked at.

    python scripts/fault_matrix.py [--json] [--small]

A bench of 4 ports drives virtual instruments in a thread beside it, over a socket of text through VISA, a serial line, and
Modbus TCP. A fault strikes one message ("once") or all of them until it is lifted ("lasting"; not with --small):

    apply   the message that sets something: voltages; of the Modbus readout, which nobody applies anything to, its ranges, which
            are written when it was lost and found again
    read    the message that measures
    idle    whatever is said first, or the instrument as it stands, while nobody drives; the bench finds it when it next looks

There are two good outcomes. "retry-and-continue": the call returned, and what it promised is so in the world of the instruments.
"clean stop": one sentence names the instrument, heaters stand at 0 V and the light is out; the fault lifted and cleared, the same
bench goes on. What "heaters safe" says is looked up in the world of the instruments, not asked of the bench:

    at once                 they stood at 0 V when the call had returned, and the bench knew
    at once, unconfirmed    they stood at 0 V, but the source answered nothing that can be understood, so that the bench must not
                            believe it, and said so; it did as soon as it had looked after the fault was lifted
    once it answered again  the source carried nothing out any more, and nobody can bring such a one to 0 V; it stood there as
                            soon as the bench had looked after the fault was lifted, before a person cleared anything

A source that hears and cannot be understood ("late", "garbage") must never end as the last of these.

Detectors show the number of their measurement in place of light, so that every reading that is used can be traced: it must be the
last measurement made of its setting and sample, at their voltages, within the call. Whatever else is counted as stale. A call
that takes longer than its exchanges may (`photonloop.drivers.transports`) is counted as a hang. Exit code 1 if there is any of
either, or any other outcome.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from photonloop.drivers.bench.bench_clock import WallClock
from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.bench_opening import open_bench, open_table
from photonloop.drivers.station.schema import Station, load_station
from photonloop.protocols.device import Readings
from photonloop.protocols.errors import DeviceError
from photonloop.simulator.emulators.bench_choices import SERIAL, BenchChoices
from photonloop.simulator.emulators.laboratory import STAMPS, Measurement, stamped_sequence
from photonloop.simulator.emulators.running import RunningBench, running
from photonloop.simulator.parameters import load_chip

Phase = Literal["apply", "read", "idle"]
PHASES: tuple[Phase, ...] = ("apply", "read", "idle")
FAULTS = ("silence", "late", "garbage", "disconnect", "reset", "error")
CONTINUED, STOPPED = "retry-and-continue", "clean stop"

TIMEOUT_S = 0.25
"""How long the instruments may take for one answer here; in a lab it is their drivers' 0.5 to 2 s."""

LATE_S = 1.5 * TIMEOUT_S

EXCHANGES = 10
"""Of one call with an instrument that fails: the one that found out, then whatever may bring it to its safe state."""

MARGIN_S = 2.0
"""For a machine that does other work beside."""

WATCH_S = 3600.0

LASTING = 1_000_000
"""Messages that a lasting fault strikes."""

AT_ONCE, UNCONFIRMED, LATER = "at once", "at once, unconfirmed", "once it answered again"

HEARD = frozenset({"late", "garbage"})
"""Faults of a source that carries everything out."""

ON_THE_WAY_S = 0.5
"""What was sent without waiting for an answer may still be on its way to the instrument when the call returns."""

_BASE_V = np.linspace(0.5, 1.5, 16)
_NEXT_V = np.linspace(1.6, 0.6, 16)
_SETTINGS_V = np.stack([np.linspace(0.7, 1.7, 16), np.linspace(1.1, 2.1, 16)])
_LIGHT = np.array([[1.0, 0.2, 0.3, 0.4], [0.1, 0.9, 0.5, 0.6], [0.7, 0.4, 0.8, 0.2]], np.float32)
_STEP_V = 2e-3
"""Coarser than any instrument here resolves."""


@dataclass(frozen=True)
class Way:
    """One transport: who speaks over it, and what their messages look like.

    Parameters
    ----------
    transport
        What it is called in the table.
    choices
        The instruments of the bench.
    struck
        Instrument that the fault strikes, by phase.
    match
        Text in the messages of a phase; whatever is said, where there is none.
    repeats
        How often its transport repeats a question.
    codes
        Error that the instruments complain of.
    """

    transport: str
    choices: BenchChoices
    struck: dict[Phase, str]
    match: dict[Phase, str]
    retries: int
    codes: dict[Phase, int]

    @property
    def deadline_s(self) -> float:
        """Longest that a call may take: an exchange takes 3 timeouts a try at most."""
        return EXCHANGES * 3 * (self.retries + 1) * TIMEOUT_S

    @property
    def is_modbus(self) -> bool:
        """Whether the instrument is a readout that speaks only when it is asked."""
        return self.transport == "modbus-tcp"


_SCPI = BenchChoices(heaters="scpi-source", modulators="qdac2", detectors="scpi-readout", laser="scpi-laser")

WAYS = (
    Way(
        "visa-tcp",
        _SCPI,
        {"apply": "scpi-source", "read": "scpi-readout", "idle": "scpi-source"},
        {"apply": "VOLT ", "read": "MEAS:VOLT?"},
        1,
        {"apply": -240, "read": -240, "idle": -240},
    ),
    Way(
        "serial",
        replace(_SCPI, heaters="qontrol", serial=SERIAL | {"scpi-readout"}),
        {"apply": "qontrol", "read": "scpi-readout", "idle": "qontrol"},
        {"apply": "VVEC", "read": "MEAS:VOLT?"},
        2,
        {"apply": 2, "read": -240, "idle": 2},
    ),
    Way(
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
    """One line of the table."""

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
        """Whether that is how it should end."""
        return self.outcome in {CONTINUED, STOPPED} and not self.hangs and not self.stale


class _WrongError(Exception):
    """What was found in place of one of the two good outcomes."""


class _HungError(Exception):
    """A call did not return."""


class SkippingClock(WallClock):
    """Wall time from which a while can be left out: what is due after an hour is due at once."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0

    def now_s(self) -> float:
        """Return the time [s], what was skipped included."""
        return super().now_s() + self.skipped_s


class Watcher:
    """Makes the calls of one case: each within its deadline, each reading traced."""

    def __init__(self, bench: Bench, virtual: RunningBench, clock: SkippingClock, deadline_s: float) -> None:
        self.bench = bench
        self.clock = clock
        self.virtual = virtual
        self.laboratory = virtual.bench.laboratory
        self.traced = self.stale = self.hangs = 0
        self.slowest_s = 0.0
        self._deadline_s = deadline_s

    def call(self, act: Callable[[], object]) -> str:
        """Return what a call refused with, empty where it returned."""
        raised: list[BaseException] = []

        def run() -> None:
            try:
                act()
            except BaseException as error:  # noqa: BLE001 - told in the caller's thread
                raised.append(error)

        began_s = time.perf_counter()
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        thread.join(self._deadline_s + MARGIN_S)
        self.slowest_s = max(self.slowest_s, time.perf_counter() - began_s)
        if thread.is_alive():
            self.hangs += 1
            raise _HungError(f"no return within {self._deadline_s:g} s")
        if not raised:
            return ""
        if isinstance(raised[0], DeviceError):
            return raised[0].detail
        raise _WrongError(f"{type(raised[0]).__name__}: {raised[0]}") from raised[0]

    def must(self, act: Callable[[], object]) -> None:
        """Make a call that has no reason to be refused."""
        if refused := self.call(act):
            raise _WrongError(f"refused: {refused}")

    def look(self) -> None:
        """Let the bench look at its instruments, as its server does every second or so."""
        self.clock.skipped_s += WATCH_S
        self.must(self.bench.watch)

    def apply(self, volts: NDArray[np.float64]) -> None:
        """Hold `volts`, and make sure that the world does."""
        self.bench.apply(volts)
        self.holds(volts)

    def holds(self, volts: NDArray[np.float64]) -> None:
        """Raise where the heaters in the world do not stand at `volts`."""
        held = np.array(self.virtual.state()["heater_v"])
        if np.abs(held - volts).max() > _STEP_V:
            raise _WrongError(f"the heaters stand at {held.round(3).tolist()}, not at {volts.round(3).tolist()}")

    def evaluate(self) -> None:
        """Read every sample at every setting, and trace every reading."""
        before = int(self.virtual.state()["measurements"])
        readings = self.bench.evaluate(_SETTINGS_V, _LIGHT, self.bench.describe().stages[0].name)
        self.stale += self._stale_in(readings, before)

    def _stale_in(self, readings: Readings, before: int) -> int:
        """Return how many readings were not the last measurement of their setting and sample after number `before`."""
        entries = self.virtual.call(lambda: [entry for entry in self.laboratory.log if entry.sequence > before])
        full_scale_a = self.laboratory.full_scale_a[0]
        stale = 0
        for setting, volts in enumerate(_SETTINGS_V):
            for sample, light in enumerate(_LIGHT):
                here = [entry.sequence for entry in entries if self._is_of(entry, volts, light)]
                self.traced += readings.values.shape[2]
                for amps in readings.values[setting, sample]:
                    stale += not here or stamped_sequence(float(amps), full_scale_a) != here[-1] % STAMPS
        return stale

    def _is_of(self, entry: Measurement, volts: NDArray[np.float64], light: NDArray[np.float32]) -> bool:
        shone = np.abs(np.sin(0.5 * np.pi / self.laboratory.v_pi * entry.modulator_v))
        return bool(np.abs(entry.heater_v - volts).max() < _STEP_V and np.abs(shone - light).max() < _STEP_V)

    def is_safe(self) -> bool:
        """Return whether, in the world, the heaters stand at 0 V and the light is out."""
        state = self.virtual.state()
        return not any(state["heater_v"]) and not any(state["modulator_v"]) and not state["laser"]["is_on"]


def run_case(way: Way, virtual: RunningBench, fault: str, phase: Phase, *, lasting: bool, locks: Path) -> Case:
    """Return how one fault ended."""
    folder = virtual.addresses.station.parent
    clock = SkippingClock()
    bench = open_bench(timed(load_station(virtual.addresses.station)), partial(open_table, folder), clock=clock, locks=locks)
    watcher = Watcher(bench, virtual, clock, way.deadline_s)
    outcome = safe = told = ""
    try:
        watcher.must(lambda: watcher.apply(_BASE_V))
        watcher.must(watcher.evaluate)
        strike(way, virtual, fault, phase, lasting=lasting)
        told = happens(watcher, way, phase)
        if told:
            safe = stopped(watcher, told, way.struck[phase], fault)
        lift(virtual)
        if told:
            if safe != AT_ONCE:
                recovered(watcher)
                safe = safe or LATER
            for latched in bench.status().faults:
                watcher.must(partial(bench.clear_fault, latched.name))
        watcher.must(lambda: watcher.apply(_NEXT_V))
        watcher.must(watcher.evaluate)
        watcher.must(lambda: watcher.holds(_NEXT_V))
        outcome = STOPPED if told else CONTINUED
    except _HungError as hung:
        outcome, told = "hang", str(hung)
    except _WrongError as wrong:
        outcome, told = "wrong", f"{wrong} (told before: {told or 'nothing'})"
    finally:
        lift(virtual)
        if outcome != "hang":
            watcher.must(bench.close)
    struck = way.struck[phase]
    times = "lasting" if lasting else "once"
    seconds = round(watcher.slowest_s, 3)
    return Case(
        way.transport, fault, times, phase, struck, outcome, safe, told, seconds, watcher.hangs, watcher.traced, watcher.stale
    )


def timed(station: Station) -> Station:
    """Return `station` with instruments that must answer soon, and a look at them only when the clock is moved."""
    instruments = tuple(table.model_copy(update={"timeout_s": TIMEOUT_S}) for table in station.instruments)
    return station.model_copy(update={"instruments": instruments, "watch_s": WATCH_S})


def strike(way: Way, virtual: RunningBench, fault: str, phase: Phase, *, lasting: bool) -> None:
    """Plan the fault for the next message of the phase, or let it happen now where nobody is spoken to."""
    instrument = way.struck[phase]
    details: dict[str, Any] = {"delay_s": LATE_S, "code": way.codes[phase]}
    if way.is_modbus and phase == "apply":
        virtual.inject(instrument, "disconnect", now=True)  # found anew, it is set up anew
    if lasting:
        virtual.inject(instrument, fault, count=LASTING, **details)
    elif phase == "idle" and fault in {"disconnect", "reset", "error"} and not way.is_modbus:
        virtual.inject(instrument, fault, now=True, **details)
    else:
        virtual.inject(instrument, fault, match=way.match.get(phase, ""), **details)


def happens(watcher: Watcher, way: Way, phase: Phase) -> str:
    """Do what the fault strikes; return the sentence that it was refused with, empty where all went well."""
    bench = watcher.bench
    if phase == "idle":
        watcher.look()
        return "; ".join(fault.detail for fault in bench.status().faults) or watcher.call(lambda: watcher.holds(_BASE_V))
    if phase == "apply":
        refused = watcher.call(lambda: watcher.apply(_NEXT_V))
        if not way.is_modbus:
            return refused
    return watcher.call(watcher.evaluate)


def stopped(watcher: Watcher, told: str, instrument: str, fault: str) -> str:
    """Return AT_ONCE or UNCONFIRMED where all is safe in the world after a clean stop; nothing where a source is out of reach.

    Raises
    ------
    _WrongError
        No plain sentence, the bench says of itself that it is safe and is not or cannot know, or a source that hears is driven.
    """
    if instrument not in told or len(told) > 400 or "\n" in told or "Traceback" in told:
        raise _WrongError("that is no plain sentence about the instrument")
    if watcher.bench.status().safe:
        if watcher.is_safe():
            return AT_ONCE
        raise _WrongError("the bench says that it is safe, and is not")
    end_s = time.perf_counter() + ON_THE_WAY_S
    while not (safe := watcher.is_safe()) and time.perf_counter() < end_s:
        time.sleep(0.01)
    if not safe and fault in HEARD:
        raise _WrongError("the source hears, and its heaters are driven")
    if "nothing confirms" not in told and (fault in HEARD or "could not be made safe" not in told):
        raise _WrongError("the sentence does not say that the source may not be safe")
    return UNCONFIRMED if safe else ""


def recovered(watcher: Watcher) -> None:
    """Look at a bench whose fault was lifted, as its server does; _WrongError where it is not safe then, or does not know."""
    watcher.look()
    if not (watcher.is_safe() and watcher.bench.status().safe):
        raise _WrongError("it is not safe although every instrument answers again")


def lift(virtual: RunningBench) -> None:
    """Forget the faults that have not struck yet."""
    virtual.call(lambda: [unit.faults.clear() for unit in virtual.bench.units.values()])


def cases(*, small: bool) -> Iterator[Case]:
    """Yield every case once it has ended."""
    for way in WAYS:
        with running(load_chip("ideal", ports=4, stages=1, seed=0), way.choices, stamped=True) as virtual:
            for lasting, fault, phase in product((False,) if small else (False, True), FAULTS[:-1] if small else FAULTS, PHASES):
                with tempfile.TemporaryDirectory() as folder:  # a case that hangs keeps its claims
                    yield run_case(way, virtual, fault, phase, lasting=lasting, locks=Path(folder))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--small", action="store_true", help="only faults that strike once, without the instruments' own errors")
    options = parser.parse_args(arguments)
    logging.getLogger("drivers").setLevel(logging.CRITICAL)  # the table tells of every fault
    began_s = time.perf_counter()
    done: list[Case] = []
    if not options.json:
        print("| transport | fault | strikes | phase | instrument | outcome | heaters safe | seconds |\n" + "|---" * 8 + "|")
    for case in cases(small=options.small):
        done.append(case)
        if not options.json:
            words = (case.transport, case.fault, case.times, case.phase, case.instrument, case.outcome, case.safe)
            print("|", " | ".join(words), f"| {case.seconds:.2f} |", flush=True)
            if not case.good:
                print(f"  {case}", file=sys.stderr)
    hangs, stale = sum(case.hangs for case in done), sum(case.stale for case in done)
    seconds = round(time.perf_counter() - began_s, 1)
    if options.json:
        print(json.dumps({"cases": [asdict(case) for case in done], "hangs": hangs, "stale": stale, "seconds": seconds}))
    else:
        traced = sum(case.readings for case in done)
        print(f"\n{len(done)} cases, {hangs} hangs, {stale} of {traced} readings stale, {seconds:g} s")
        counted = Counter(case.safe or CONTINUED for case in done)
        print("heaters safe: " + "; ".join(f"{counted[words]} {words}" for words in (CONTINUED, AT_ONCE, UNCONFIRMED, LATER)))
    return 0 if all(case.good for case in done) else 1


if __name__ == "__main__":
    sys.exit(main())
