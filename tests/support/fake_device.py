"""A minimal device for tests: readings are proportional to squared drives, and tests control its timing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

import numpy as np

from photonloop.protocols.device import (
    DeviceDescription,
    DeviceStatus,
    Drive,
    DriveDescription,
    Fault,
    Inputs,
    LimitsDescription,
    LoadedRows,
    Readback,
    Readings,
    ReadoutDescription,
    StageDescription,
)
from photonloop.protocols.errors import DeviceError
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
from photonloop.protocols.server.device_server import DeviceServer

Serve = Callable[..., DeviceServer]
"""Type of the fixture `serve`, which starts a server in a thread: device, address, and fields of `ServerOptions`."""


def fake_description(
    *, inputs_at_once: Literal["many", "one"] = "many", light_switch: bool = True, **limits: float
) -> DeviceDescription:
    """Description of two stages with four ports and eight channels each."""
    bounds: dict[str, float] = {
        "voltage_v": 5.0,
        "total_power_w": 0.3,
        "max_batch": 512,
        "max_settings": 256,
        "max_readings": 2**20,
        "max_loaded_bytes": 2**22,
    }
    stages = tuple(
        StageDescription(
            name=f"mesh{n + 1}",
            topology="unknown",
            ports=4,
            first_channel=8 * n,
            channels=8,
            groups={"theta": (0, 4), "phi": (4, 8)},
            tap_ports=4,
        )
        for n in range(2)
    )
    return DeviceDescription(
        name="fake",
        kind="simulator",
        input_ports=4,
        inputs_at_once=inputs_at_once,
        light_switch=light_switch,
        reads_back=True,
        phases_settable=False,
        stages=stages,
        drive=DriveDescription(min_v=0.0, max_v=6.0, settle_s=1e-3, resistance_ohm=1000.0, pi_power_w=0.02),
        readout=ReadoutDescription(full_scale=(1.0, 1.0), sample_s=1e-6),
        limits=LimitsDescription.model_validate({**bounds, **limits}),
        clock="virtual",
    )


class FakeDevice:
    """A device without physics: reading of port p = mean squared drive × squared input amplitude of port p.

    `before_setting` is called before every setting, so that a test can block or sleep there. `calls` lists the
    operations that reached the device. If `wait_ends` is given, a `wait` lasts until it is set, or until `cancel` or
    `safe`; `waiting` is set while it lasts.
    """

    def __init__(
        self, description: DeviceDescription | None = None, before_setting: Callable[[int], None] = lambda setting: None
    ) -> None:
        self.description = description or fake_description()
        self.before_setting = before_setting
        self.held = np.zeros(self.description.channels)
        self.loaded = LoadedInputs(self.description.limits.max_loaded_bytes)
        self.calls: list[str] = []
        self.evaluations = 0
        self.clock_s = 0.0
        self.faults: dict[str, Fault] = {}
        self.health: dict[str, str | float] = {}
        self.safe_error: Exception | None = None
        self.light = not self.description.light_switch
        self.wait_ends: threading.Event | None = None
        self.waiting = threading.Event()
        self._stays_dark = False
        self._stop = threading.Event()
        self._running = False
        self._closed = False

    def describe(self) -> DeviceDescription:
        return self.description

    def apply(self, drive: Drive) -> None:
        self.calls.append("apply")
        self.held = check_held_drive(self.description, drive).copy()

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        self.calls.append("load_inputs")
        self.loaded.load(name, check_inputs(self.description, inputs).copy())

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        self.calls.append("evaluate")
        self._check_open()
        volts = check_settings(self.description, stage, drives, self.held)
        if isinstance(inputs, LoadedRows):
            light: Inputs = self.loaded.rows(inputs)
        else:
            light = check_inputs(self.description, inputs)
        check_size(self.description, stage, len(volts), len(light))
        self.light = not self._stays_dark
        power = np.abs(light).astype(np.float64) ** 2 * self.light
        time_s = np.empty(len(volts))
        self._stop.clear()
        self._running = True
        try:
            for setting in range(len(volts)):
                self.before_setting(setting)
                if self._stop.is_set():
                    raise DeviceError("interlock", f"the evaluation was stopped before setting {setting}")
                self.clock_s += 1e-3
                time_s[setting] = self.clock_s
                self.evaluations += 1
        finally:
            self._running = False
        values = np.mean(volts**2, axis=1)[:, None, None] * power[None]
        return Readings(values.astype(np.float32), time_s, np.zeros((len(volts), values.shape[2]), np.uint32))

    def set_light(self, on: bool) -> None:
        self.calls.append("set_light")
        self._check_open()
        check_light_switch(self.description)
        self.light, self._stays_dark = on, not on

    def wait(self, seconds: float) -> None:
        self.calls.append("wait")
        self._check_open()
        seconds = check_wait(seconds)
        if self.wait_ends is not None:
            self._stop.clear()
            self._running = True
            self.waiting.set()
            wait_until(lambda: self._stop.is_set() or (self.wait_ends is not None and self.wait_ends.is_set()), 20)
            self.waiting.clear()
            self._running = False
            if self._stop.is_set():
                raise DeviceError("interlock", "the wait was stopped")
        self.clock_s += seconds

    def readback(self) -> Readback:
        self.calls.append("readback")
        self._check_open()
        amperes = self.held / self.description.drive.resistance_ohm
        amperes[-1] = np.nan
        return Readback(self.held.copy(), amperes)

    def status(self) -> DeviceStatus:
        return DeviceStatus(
            clock_s=self.clock_s,
            safe=not self.held.any() and not (self.description.light_switch and self.light),
            light=self.light if self.description.light_switch else None,
            busy=self._running,
            heater_power_w=heater_power_w(self.description, self.held),
            evaluations=self.evaluations,
            faults=tuple(self.faults.values()),
            health=self.health,
        )

    def cancel(self) -> None:
        if self._running:
            self._stop.set()

    def safe(self) -> None:
        self.calls.append("safe")
        self.cancel()
        if self.safe_error is not None:
            raise self.safe_error
        self.held = np.zeros(self.description.channels)
        self.light, self._stays_dark = not self.description.light_switch, False

    def clear_fault(self, name: str) -> None:
        if self.faults.pop(name, None) is None:
            raise DeviceError("bad_request", f"no fault {name!r} is latched")

    def close(self) -> None:
        self.safe()
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise DeviceError("device", "the fake is closed")


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    """Poll until `condition` is true; fail the test after `timeout_s`."""
    until_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < until_s, "timed out"
        time.sleep(0.002)


class Gate:
    """Blocks a `FakeDevice` at one setting until the test sets `opened`."""

    def __init__(self, at_setting: int = 0) -> None:
        self.at_setting = at_setting
        self.reached = threading.Event()
        self.opened = threading.Event()

    def __call__(self, setting: int) -> None:
        if setting == self.at_setting:
            self.reached.set()
            assert self.opened.wait(20)
