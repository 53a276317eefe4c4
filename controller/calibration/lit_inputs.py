"""Powers at the outputs with one input lit at a time, and with all inputs dark."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.setting_reader import SettingReader

Array = NDArray[np.float64]


@dataclass(frozen=True)
class LitReadings:
    """Readings with single lit inputs, and with none.

    Parameters
    ----------
    inputs
        Amplitudes: one row per lit input, then one with all inputs at 0, shape (rows, ports).
    readings
        Mean readings, shape (settings, rows, taps).
    """

    inputs: Array
    readings: Array

    @property
    def dark(self) -> Array:
        """Readings with all inputs at 0: dark level, and light that the modulators let through, (settings, taps)."""
        return self.readings[:, -1]

    @property
    def lit(self) -> Array:
        """Readings with each lit input, less `dark`, shape (settings, lit inputs, taps)."""
        return self.readings[:, :-1] - self.readings[:, -1:]


def read_lit(reader: SettingReader, nominal: Array, ports: list[int], repeats: int = 1) -> LitReadings:
    """Read settings with each of `ports` lit alone, and with all inputs dark.

    Parameters
    ----------
    reader
        Reads settings.
    nominal
        Nominal heater phases [rad], shape (settings, channels).
    ports
        Inputs to be lit, one after another.
    repeats
        Samples of each. If there are several, the first is left out and the others are averaged: detectors may keep a
        share of the sample before it.
    """
    rows = np.zeros((len(ports) + 1, reader.stage.ports), np.float32)
    rows[np.arange(len(ports)), ports] = 1.0
    found = reader.read(nominal, np.repeat(rows, repeats, axis=0)).readings
    # A reading that cannot be used is most likely saturated.
    found = np.nan_to_num(found, nan=reader.full_scale)
    mean = found.reshape(len(nominal), len(rows), repeats, -1)[:, :, min(1, repeats - 1) :].mean(axis=2)
    return LitReadings(rows.astype(np.float64), mean)
