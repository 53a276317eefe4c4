"""Instruments in memory that record every call: sixteen heaters, four modulators, eight detectors, a laser.

`FakeLab` is the chip that connects them: detector p reads (1 + mean squared drive / 100) × power of input p.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from photonloop.drivers.bench.bench_clock import BenchClock, WallClock
from photonloop.drivers.bench.bench_device import Bench
from photonloop.drivers.bench.bench_opening import open_bench
from photonloop.drivers.instrument import ChannelLimits, Identity, Instrument
from photonloop.drivers.station.schema import InstrumentTable, LimitsTable, Station
from photonloop.protocols.errors import DeviceError

V_PI = 5.0


class FakeClock:
    """A clock that advances only by waits, or if a test sets `time_s`."""

    def __init__(self) -> None:
        self.time_s = 0.0
        self.on_wait: Callable[[], None] = lambda: None

    def now_s(self) -> float:
        return self.time_s

    def wait_until(self, time_s: float, stopped: Callable[[], bool]) -> bool:
        self.on_wait()
        if stopped():
            return False
        self.time_s = max(self.time_s, time_s)
        return True

    def wake(self) -> None:
        pass


class SignallingClock(WallClock):
    """Real time, with events that are set when a wait begins and when waits are woken up."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting = threading.Event()
        self.woken = threading.Event()

    def wait_until(self, time_s: float, stopped: Callable[[], bool]) -> bool:
        self.waiting.set()
        return super().wait_until(time_s, stopped)

    def wake(self) -> None:
        super().wake()
        self.woken.set()


@dataclass
class Faulty:
    """Calls of one method that fail: `times` calls, after the first `after` ones."""

    method: str
    error: Exception
    after: int = 0
    times: int = 1_000_000


@dataclass
class FakeInstrument:
    """The methods of every instrument, with failures on demand."""

    name: str
    clock: BenchClock
    calls: list[str] = field(default_factory=list)
    faults: list[Faulty] = field(default_factory=list)
    before: Callable[[str], None] = lambda method: None
    closed: bool = False
    serial: str = ""

    def called(self, method: str) -> None:
        self.calls.append(method)
        self.before(method)
        for fault in self.faults:
            if fault.method in {method, "*"}:
                fault.after -= 1
                if fault.after < 0 and fault.times > 0:
                    fault.times -= 1
                    raise fault.error

    def identify(self) -> Identity:
        self.called("identify")
        return Identity("Fake", type(self).__name__, self.serial or f"SN-{self.name}")

    def check(self) -> None:
        self.called("check")

    def close(self) -> None:
        self.called("close")
        self.closed = True


@dataclass
class FakeSource(FakeInstrument):
    channels: int = 16
    hardware: ChannelLimits = field(default_factory=lambda: ChannelLimits(min_v=0.0, max_v=12.0, max_a=0.024, bits=16))
    volts: np.ndarray = field(default_factory=lambda: np.zeros(16))
    written: list[tuple[float, dict[int, float]]] = field(default_factory=list)
    written_limits: dict[int, ChannelLimits] = field(default_factory=dict)
    ohm: float = 1000.0

    def limits(self, channel: int) -> ChannelLimits:
        return self.written_limits.get(channel, self.hardware)

    def set_limits(self, limits: Mapping[int, ChannelLimits]) -> None:
        self.called("set_limits")
        self.written_limits = dict(limits)

    def set_volts(self, volts: Mapping[int, float]) -> None:
        self.called("set_volts")
        for channel, value in volts.items():
            assert channel in self.written_limits, "a channel was written before its limits"
            assert self.written_limits[channel].min_v <= value <= self.written_limits[channel].max_v
        self.written.append((self.clock.now_s(), dict(volts)))
        for channel, value in volts.items():
            self.volts[channel] = value

    def safe(self) -> None:
        self.called("safe")
        self.volts[:] = 0.0


@dataclass
class ReadableSource(FakeSource):
    """A source that reads back voltages and currents."""

    def read_volts(self, channels: Sequence[int]) -> np.ndarray:
        self.called("read_volts")
        return self.volts[list(channels)]

    def read_amps(self, channels: Sequence[int]) -> np.ndarray:
        self.called("read_amps")
        return self.volts[list(channels)] / self.ohm


@dataclass
class FakeReadout(FakeInstrument):
    channels: int = 8
    unit: str = "V"
    full_scale: float = 10.0
    sample_s: float = 1e-4
    light: Callable[[], np.ndarray] = lambda: np.zeros(8)

    def read(self, channels: Sequence[int]) -> np.ndarray:
        self.called("read")
        return self.light()[list(channels)]


@dataclass
class FakeLaser(FakeInstrument):
    lit: bool = False
    set_w: float = 0.0
    set_nm: float = 0.0

    def on(self) -> None:
        self.called("on")
        self.lit = True

    def off(self) -> None:
        self.called("off")
        self.lit = False

    def is_on(self) -> bool:
        self.called("is_on")
        return self.lit

    def set_power_w(self, power_w: float) -> None:
        self.called("set_power_w")
        self.set_w = power_w

    def power_w(self) -> float:
        self.called("power_w")
        return self.set_w

    def set_wavelength_nm(self, wavelength_nm: float) -> None:
        self.called("set_wavelength_nm")
        self.set_nm = wavelength_nm

    def wavelength_nm(self) -> float:
        return self.set_nm


@dataclass
class FakeSwitch(FakeInstrument):
    channels: int = 4
    has_dark: bool = True
    history: list[int | None] = field(default_factory=list)

    def select(self, channel: int | None) -> None:
        self.called("select")
        self.history.append(channel)

    def selected(self) -> int | None:
        self.called("selected")
        return self.history[-1] if self.history else None

    def fail_once(self, method: str) -> None:
        self.faults.append(Faulty(method, silence(), times=1))


class FakeLab:
    """A chip of two stages: heater source with readback, modulator source without, readout in volts, laser."""

    def __init__(self, clock: BenchClock, source: type[FakeSource] = ReadableSource) -> None:
        self.heaters = source("heaters", clock)
        self.modulators = FakeSource("modulators", clock, channels=4, hardware=ChannelLimits(-10.0, 10.0), volts=np.zeros(4))
        self.daq = FakeReadout("daq", clock, light=self.readings)
        self.laser = FakeLaser("laser", clock)
        self.extra: dict[str, FakeInstrument] = {}
        self.threads: set[str] = set()

    def readings(self) -> np.ndarray:
        amplitudes = np.abs(np.sin(np.pi * self.modulators.volts / (2 * V_PI))) * (self.laser.set_w > 0 and self.laser.lit)
        squares = self.heaters.volts**2
        return np.outer((1 + squares[:8].sum() / 800, 1 + squares[8:].sum() / 800), amplitudes**2).ravel()

    def opener(self, table: InstrumentTable) -> Instrument:
        return self.instruments()[table.name]

    def instruments(self) -> dict[str, Any]:
        return {"heaters": self.heaters, "modulators": self.modulators, "daq": self.daq, "laser": self.laser, **self.extra}


def tables() -> dict[str, Any]:
    """Return the station file of `FakeLab`: two stages of four ports and eight heaters."""
    return {
        "name": "fake-bench",
        "settle_s": 1e-4,
        "heater": {"resistance_ohm": 1000.0, "pi_power_w": 0.02},
        "limits": {"max_v": 9.0, "max_a": 0.02, "max_w": 0.05, "total_w": 0.4},
        "capacity": {"max_batch": 256, "max_settings": 16, "max_readings": 2**13, "max_loaded_bytes": 2**20},
        "instruments": [
            {"name": n, "driver": "fake", "address": f"fake::{n}"} for n in ("heaters", "modulators", "daq", "laser")
        ],
        "stages": [
            {
                "name": f"mesh{n}",
                "ports": 4,
                "heaters": {
                    "instrument": "heaters",
                    "channels": list(range(8 * n, 8 * n + 8)),
                    "groups": {"theta": [0, 4], "phi": [4, 8]},
                },
                "detectors": {"instrument": "daq", "channels": list(range(4 * n, 4 * n + 4)), "ampere_per_unit": 1e-4},
            }
            for n in range(2)
        ],
        "inputs": {"instrument": "modulators", "channels": [0, 1, 2, 3], "curve": {"kind": "mach-zehnder", "v_pi": V_PI}},
        "laser": {"instrument": "laser", "power_w": 0.01, "wavelength_nm": 1550},
    }


def bench_of(
    lab: FakeLab, clock: BenchClock, locks: Path, change: Callable[[dict[str, Any]], object] = lambda t: None, **limits: float
) -> Bench:
    """Open the bench of `lab` with the station file `tables`, changed by `change`, and limits of a device string."""
    stated = tables()
    change(stated)
    return open_bench(
        Station.model_validate(stated), lab.opener, limits=LimitsTable.model_validate(limits), clock=clock, locks=locks
    )


def silence(code: str = "transport", outcome: str = "unknown") -> DeviceError:
    return DeviceError(code, "no answer to VOLT 1 within 0.5 s", outcome=outcome)  # pyright: ignore[reportArgumentType]


class Gate:
    """Blocks a fake instrument in one method until the test sets `opened`."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, method: str) -> None:
        if method == self.method:
            self.reached.set()
            assert self.opened.wait(20)
