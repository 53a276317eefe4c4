"""Reader of the settings of a calibration by columns, all with the same inputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.setting_reader import SettingReader
from photonloop.controller.calibration.twin_misfit import Observations

Array = NDArray[np.float64]


class ScanReader:
    """Reads all settings of a calibration by columns with the same inputs.

    Parameters
    ----------
    reader
        Reads settings.
    inputs
        Amplitudes, shape (samples, ports).

    Attributes
    ----------
    phases
        Nominal heater phases of all settings read so far [rad], shape (settings, channels).
    readings
        What was read, shape (settings, samples, taps); NaN: saturated or flagged.
    column
        The column that each setting scanned: later columns were in bar. Shape (settings,).
    bounds
        Bounds of the nominal heater phases.
    """

    def __init__(self, reader: SettingReader, inputs: NDArray[np.float32]) -> None:
        self.inputs = inputs.astype(np.float64)
        self.phases = np.empty((0, reader.stage.channels))
        self.readings = np.empty((0, len(inputs), reader.stage.tap_ports))
        self.column = np.empty(0, np.int64)
        self.bounds = reader.bounds
        self.reader = reader

    def __call__(self, phases: Array, column: int, kept: NDArray[np.int64]) -> Array:
        """Return the readings at nominal heater phases, (settings, channels); saturated ones are full scale.

        If the settings exceed the total power, all heaters but those of the channels `kept` take less.
        """
        phases = _cooled(phases, kept, self.bounds.total)
        read = self.reader.read(phases, self.inputs)
        readings = read.readings
        self.phases = np.concatenate((self.phases, read.phases))
        self.readings = np.concatenate((self.readings, readings))
        self.column = np.append(self.column, np.full(len(phases), column))
        return np.nan_to_num(readings, nan=self.reader.full_scale)

    def observations(self, which: NDArray[np.int64] | slice) -> Observations:
        """Return some of the settings and what was read at them."""
        return Observations(self.phases[which], self.inputs, self.readings[which])


def _cooled(phases: Array, kept: NDArray[np.int64], total: float) -> Array:
    """Return the phases with those of other channels scaled by one number, so that no setting exceeds `total`."""
    other = np.setdiff1d(np.arange(phases.shape[1]), kept)
    fixed, free = phases[:, kept].sum(axis=1), phases[:, other].sum(axis=1)
    share = float(np.min((total - fixed) / np.maximum(free, 1e-12)))
    if not 0 < share < 1:
        return phases
    scaled = phases.copy()
    scaled[:, other] *= share * (1 - 1e-9)
    return scaled
