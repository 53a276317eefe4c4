"""Voltage sources: the converter's steps and their integral nonlinearity. Double precision; `kernels.powers` is the fast twin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import DacParameters


def lsb_v(dac: DacParameters) -> float:
    """Return the step [V] of the converter over [0, range_v]; 0 for a continuous one."""
    return dac.range_v / (2**dac.bits - 1) if dac.bits else 0.0


def quantised_v(drive_v: NDArray[np.float64], step_v: float) -> NDArray[np.float64]:
    """Return the nearest multiple of `step_v` [V], halves upward; the drive itself where the step is 0."""
    return np.floor(drive_v / step_v + 0.5) * step_v if step_v > 0 else drive_v


def inl_coefficients(dac: DacParameters, shape: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return `bow` [1/V] and `twist` [1/V²] of `output_v` for the fabricated shapes of the channels.

    Parameters
    ----------
    dac
        Its `inl_lsb` bounds the deviation.
    shape
        Uniform in [-1, 1], (channels, 2): weight of the bow; sign of the twist, which has the rest of the weight.

    With x = code / full scale, the deviation is inl_lsb steps · 4x(1-x) · (a + b(2x-1)), where |a| + |b| = 1: it vanishes at both
    ends of the range, as the integral nonlinearity of a data sheet does by definition, and never exceeds inl_lsb.
    """
    a = shape[:, 0]
    b = (1.0 - np.abs(a)) * np.sign(shape[:, 1])
    most_v = 4.0 * dac.inl_lsb * lsb_v(dac) / dac.range_v**2
    return most_v * (a - b), 2.0 * most_v / dac.range_v * b


def output_v(
    volts: NDArray[np.float64], range_v: float, bow: NDArray[np.float64], twist: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return what the source puts out [V] where its code means `volts`: v + v (range - v) (bow + twist · v)."""
    return volts + volts * (range_v - volts) * (bow + twist * volts)
