"""Voltage sources: quantisation, integral nonlinearity, slow changes and noise.

Double precision; `kernels.powers` is the compiled version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import DacParameters


def lsb_v(dac: DacParameters) -> float:
    """Return the LSB [V] of a converter over [0, range_v], or 0 if it is continuous."""
    return dac.range_v / (2**dac.bits - 1) if dac.bits else 0.0


def quantised_v(drive_v: NDArray[np.float64], lsb_v: float) -> NDArray[np.float64]:
    """Return the nearest multiple of `lsb_v` [V], with halves rounded up, or the drive itself if `lsb_v` is 0."""
    return np.floor(drive_v / lsb_v + 0.5) * lsb_v if lsb_v > 0 else drive_v


def inl_coefficients(dac: DacParameters, shape: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the coefficients `bow` [1/V] and `twist` [1/V²] of `output_v` for the channels' fabricated curves.

    Parameters
    ----------
    dac
        Parameters of the sources; `inl_lsb` bounds the deviation.
    shape
        Random numbers, uniform in [-1, 1], shape (channels, 2). The first is the weight of the bow, and the second
        gives the sign of the twist, whose weight is the rest.

    Notes
    -----
    With x = code / full scale, the deviation is inl_lsb · LSB · 4x(1-x) · (a + b(2x-1)) with |a| + |b| = 1. It vanishes
    at both ends of the range, as the integral nonlinearity of a data sheet does by definition, and never exceeds
    inl_lsb.
    """
    a = shape[:, 0]
    b = (1.0 - np.abs(a)) * np.sign(shape[:, 1])
    most_v = 4.0 * dac.inl_lsb * lsb_v(dac) / dac.range_v**2
    return most_v * (a - b), 2.0 * most_v / dac.range_v * b


def output_v(
    volts: NDArray[np.float64], range_v: float, bow: NDArray[np.float64], twist: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the output [V] of a source for a code of nominally v = `volts`: v + v (range - v) (bow + twist · v)."""
    return volts + volts * (range_v - volts) * (bow + twist * volts)


def changed_v(volts: NDArray[np.float64], gain: NDArray[np.float64], added_v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the output [V] of sources with the relative gain `gain` and the slow noise `added_v` [V]."""
    return volts * gain + added_v


def setting_noise_v(dac: DacParameters) -> float:
    """Return the nominal noise of a source [V]: the standard deviation of its output between settings."""
    return dac.noise_v
