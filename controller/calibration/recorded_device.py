"""A device whose readings are recorded, and replayed if they were recorded before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.reading_record import ReadingRecord, digest
from photonloop.controller.learning.network import evaluation_size
from photonloop.controller.stopping import Stop
from photonloop.protocols.device import DeviceDescription, DeviceStatus, Drive, Inputs, LoadedRows, Readback, Readings

SINGLE_NAME = "photonloop.calibration.inputs"
"""Name under which inputs are loaded that are given as an array."""


class HeldDevice(Protocol):
    """The part of `ReconnectingDevice` that a calibration uses."""

    description: DeviceDescription

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """As in `PhotonicDevice`."""
        ...

    def apply(self, drive: Drive) -> None:
        """As in `PhotonicDevice`."""
        ...

    def evaluate(self, drives: Drive, rows: LoadedRows, stage: str) -> Readings:
        """As in `PhotonicDevice`."""
        ...

    def set_light(self, on: bool) -> None:
        """As in `PhotonicDevice`."""
        ...

    def wait(self, seconds: float) -> None:
        """As in `PhotonicDevice`."""
        ...

    def readback(self) -> Readback:
        """As in `PhotonicDevice`."""
        ...

    def status(self) -> DeviceStatus:
        """As in `PhotonicDevice`."""
        ...


class RecordedDevice:
    """A device that records what it reads.

    As long as answers are replayed, nothing is sent to the device: inputs, light and held drive are only noted. They
    are sent before the first request that is not recorded.

    Parameters
    ----------
    device
        The device.
    record
        The recorded answers.
    stop
        A request to stop takes effect after the present answer is recorded.
    on_read
        Called after each evaluation with the number of its settings, and whether it was replayed.
    """

    def __init__(
        self,
        device: HeldDevice,
        record: ReadingRecord,
        stop: Stop | None = None,
        on_read: Callable[[int, bool], None] = lambda *_: None,
    ) -> None:
        self._device, self._record, self._stop, self._on_read = device, record, stop or Stop(), on_read
        self._inputs: dict[str, Inputs] = {}
        self._drive: Drive | None = None
        self._light: bool | None = None
        self._sent_inputs: dict[str, Inputs] = {}
        self._sent_drive: Drive | None = None
        self._sent_light: bool | None = None

    def describe(self) -> DeviceDescription:
        """Return the description of the device."""
        return self._device.description

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """Load inputs under a name, before the next request that is not recorded."""
        self._inputs[name] = inputs

    def apply(self, drive: Drive) -> None:
        """Hold a drive."""
        self._drive = drive.copy()
        self._send()

    def set_light(self, on: bool) -> None:
        """Switch the light."""
        self._light = on
        self._send()

    def wait(self, seconds: float) -> None:
        """Let time pass on the device's clock; no time passes during a replay."""
        if not self._record.replays:
            self._send()
            with self._stop.deferred():
                self._device.wait(seconds)

    def readback(self) -> Readback:
        """Return the measured voltages and currents at the held drive."""

        def measure() -> dict[str, NDArray[Any]]:
            self._send()
            found = self._device.readback()
            return {"volts": found.volts, "amperes": found.amperes}

        with self._stop.deferred():
            found = self._record.answer(digest("readback", *self._state()), ("volts", "amperes"), measure)
        return Readback(found["volts"], found["amperes"])

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """Return readings, in several evaluations if one would be too large or take too long."""
        if not isinstance(inputs, LoadedRows):
            self.load_inputs(SINGLE_NAME, inputs)
            inputs = LoadedRows(SINGLE_NAME, np.arange(len(inputs)))
        description, rows = self.describe(), inputs.rows
        settings, samples = evaluation_size(description, description.stages[description.stage_index(stage)], len(rows))
        found: list[Readings] = []
        for start in range(0, len(drives), settings):
            some, replayed = drives[start : start + settings], self._record.replays
            by_rows = [LoadedRows(inputs.name, rows[first : first + samples]) for first in range(0, len(rows), samples)]
            parts = [self._evaluate(some, part, stage) for part in by_rows]
            values = np.concatenate([part.values for part in parts], axis=1)
            found.append(Readings(values, parts[0].time_s, np.bitwise_or.reduce([part.flags for part in parts])))
            self._on_read(len(some), replayed)
        return Readings(
            np.concatenate([part.values for part in found]),
            np.concatenate([part.time_s for part in found]),
            np.concatenate([part.flags for part in found]),
        )

    def status(self) -> DeviceStatus:
        """Return the present status, which is not recorded."""
        with self._stop.deferred():
            return self._device.status()

    def _evaluate(self, drives: Drive, rows: LoadedRows, stage: str) -> Readings:
        def measure() -> dict[str, NDArray[Any]]:
            self._send()
            found = self._device.evaluate(drives, rows, stage)
            return {"values": found.values, "time_s": found.time_s, "flags": found.flags}

        request = digest(stage, drives, self._inputs[rows.name][rows.rows], *self._state())
        with self._stop.deferred():
            found = self._record.answer(request, ("values", "time_s", "flags"), measure)
        return Readings(found["values"], found["time_s"], found["flags"])

    def _state(self) -> tuple[str, Drive]:
        """Return what else a reading depends on: the light and the held drive."""
        return f"light {self._light}", np.empty(0) if self._drive is None else self._drive

    def _send(self) -> None:
        """Send inputs, light and held drive as far as they have changed, unless the next answer is recorded."""
        if self._record.replays:
            return
        with self._stop.deferred():
            for name, inputs in self._inputs.items():
                if self._sent_inputs.get(name) is not inputs:
                    self._device.load_inputs(name, inputs)
                    self._sent_inputs[name] = inputs
            if self._light is not None and self._light != self._sent_light:
                self._device.set_light(self._light)
                self._sent_light = self._light
            if self._drive is not None and self._drive is not self._sent_drive:
                self._device.apply(self._drive)
                self._sent_drive = self._drive
