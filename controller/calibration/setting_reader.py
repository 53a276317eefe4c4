"""Reader of settings of one stage for a calibration, which keeps everything that was read.

Settings are given as nominal heater phases [rad] and converted to volts. Readings that cannot be used are NaN: those of
a saturated detector, and those that the device flagged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.exclusions import Exclusions
from photonloop.controller.calibration.twin_misfit import Observations
from photonloop.controller.learning.variables import stage_bounds, to_drive
from photonloop.protocols.device import DeviceDescription, Drive, Inputs, LoadedRows, Readings

Array = NDArray[np.float64]

INPUTS_NAME = "photonloop.calibration"
"""Name under which the inputs are loaded."""

SATURATED = 1 - 1e-6
"""Share of full scale from which a reading counts as saturated: readings are in single precision."""


NOTHING = Exclusions()


class ReadableDevice(Protocol):
    """The part of `PhotonicDevice` that a calibration uses to read settings."""

    def describe(self) -> DeviceDescription:
        """As in `PhotonicDevice`."""
        ...

    def load_inputs(self, name: str, inputs: Inputs) -> None:
        """As in `PhotonicDevice`."""
        ...

    def evaluate(self, drives: Drive, inputs: Inputs | LoadedRows, stage: str) -> Readings:
        """As in `PhotonicDevice`."""
        ...


@dataclass(frozen=True)
class SettingsRead:
    """Settings of one call of `SettingReader.read`, and what was read at them.

    Parameters
    ----------
    phases
        Nominal heater phases [rad], shape (settings, channels).
    inputs
        Amplitudes, shape (samples, ports).
    readings
        Readings, shape (settings, samples, taps). NaN: saturated or flagged.
    time_s
        Clock of the device at each setting [s], shape (settings,).
    flags
        Flags of the device, shape (settings, taps).
    """

    phases: Array
    inputs: NDArray[np.float32]
    readings: Array
    time_s: Array
    flags: NDArray[np.uint32]

    def observations(self) -> Observations:
        """Return what a fit of the twin needs."""
        return Observations(self.phases, self.inputs.astype(np.float64), self.readings)


class SettingReader:
    """Reads settings of one stage.

    Parameters
    ----------
    device, stage_name
        The device, and the stage to be read.
    record
        Called with everything that was read, in the order of reading.
    exclusions
        Defects of the stage: some channels stay at 0 V, some readings are NaN, and exchanged wires and fibres are
        exchanged back.

    Attributes
    ----------
    description, stage
        Descriptions of the device and of the stage.
    bounds
        Bounds of the nominal heater phases.
    done
        Everything that was read, in the order of reading.
    exclusions
        As given.
    """

    def __init__(
        self,
        device: ReadableDevice,
        stage_name: str,
        record: Callable[[SettingsRead], None] | None = None,
        exclusions: Exclusions = NOTHING,
    ) -> None:
        self._device = device
        self.exclusions = exclusions
        self.description = exclusions.device(device.describe(), stage_name)
        self.stage = self.description.stages[self.description.stage_index(stage_name)]
        self.bounds = stage_bounds(self.description, self.stage, 0.0)
        self.done: list[SettingsRead] = []
        self._record, self._loaded = record, np.empty((0, 0), np.float32)

    @property
    def full_scale(self) -> float:
        """Reading at which the detectors of the stage saturate."""
        return self.description.readout.full_scale[self.description.stage_index(self.stage.name)]

    @property
    def settings(self) -> int:
        """Number of settings read so far."""
        return sum(len(part.phases) for part in self.done)

    def read(self, phases: Array, inputs: NDArray[np.floating]) -> SettingsRead:
        """Read settings.

        Parameters
        ----------
        phases
            Nominal heater phases [rad], shape (settings, channels).
        inputs
            Amplitudes, shape (samples, ports). Equal inputs of successive calls are loaded once.

        Raises
        ------
        ValueError
            The phases exceed the limits of the stage.
        """
        phases = self.exclusions.phases(phases)
        self._check(phases)
        self._load(np.asarray(inputs, np.float32))
        limits, rows = self.description.limits, np.arange(len(inputs))
        batch = min(limits.max_batch, len(inputs))
        at_once = max(1, min(limits.max_settings, limits.max_readings // (batch * self.stage.tap_ports)))
        parts = [self._evaluate(phases[start : start + at_once], rows, batch) for start in range(0, len(phases), at_once)]
        values = np.concatenate([part[0] for part in parts])
        if self.description.readout.bits:
            size = np.abs(values) if self.description.readout.signed else values
            values[size >= self.full_scale * SATURATED] = np.nan
        flags = np.concatenate([part[2] for part in parts])
        values[np.broadcast_to((flags != 0)[:, np.newaxis], values.shape)] = np.nan
        values = self.exclusions.readings(values)
        read = SettingsRead(phases, self._loaded, values, np.concatenate([part[1] for part in parts]), flags)
        self.done.append(read)
        if self._record is not None:
            self._record(read)
        return read

    def _evaluate(self, phases: Array, rows: NDArray[np.int64], batch: int) -> tuple[Array, Array, NDArray[np.uint32]]:
        drives = to_drive(phases, self.description.drive)
        parts = [
            self._device.evaluate(drives, LoadedRows(INPUTS_NAME, rows[start : start + batch]), self.stage.name)
            for start in range(0, len(rows), batch)
        ]
        values = np.concatenate([part.values for part in parts], axis=1).astype(np.float64)
        return values, parts[0].time_s, np.bitwise_or.reduce([part.flags for part in parts])

    def _load(self, inputs: NDArray[np.float32]) -> None:
        if not np.array_equal(inputs, self._loaded):
            self._device.load_inputs(INPUTS_NAME, np.asarray(self.exclusions.inputs(inputs), np.float32))
            self._loaded = inputs

    def _check(self, phases: Array) -> None:
        # Projected settings reach the total up to rounding; the device has a margin beyond it (`POWER_SHARE`).
        if phases.max() > self.bounds.high.min() or phases.sum(axis=1).max() > self.bounds.total * (1 + 1e-9):
            raise ValueError(
                f"a scan needs {phases.max():.3g} rad per heater and {phases.sum(axis=1).max():.4g} rad together, but the limits "
                f"of stage {self.stage.name} are {self.bounds.high.min():.3g} rad and {self.bounds.total:.4g} rad: raise them"
            )
