"""Powers at the outputs with one input lit at a time, less those with all inputs dark."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.setting_reader import SettingReader

Array = NDArray[np.float64]


class LitPowers(NamedTuple):
    """Readings with single lit inputs.

    Parameters
    ----------
    lit
        Readings with each lit input, less `dark`, shape (settings, lit inputs, taps).
    dark
        Readings with all inputs at amplitude 0: dark current, and light that the modulators do not block, shape
        (settings, taps).
    """

    lit: Array
    dark: Array


def read_lit(reader: SettingReader, nominal: Array, ports: list[int], repeats: int = 1) -> LitPowers:
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
    return LitPowers(mean[:, :-1] - mean[:, -1:], mean[:, -1])
