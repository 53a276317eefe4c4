"""Volts to phases: the converter's step, heater power, phase. Double precision; `kernels.phasors` is the fast twin."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dac_step_v(bits: int, range_v: float) -> float:
    """Return the step [V] of a converter of `bits` over [0, range_v]; 0 for a continuous one."""
    return range_v / (2**bits - 1) if bits else 0.0


def quantised_v(drive_v: NDArray[np.float64], step_v: float) -> NDArray[np.float64]:
    """Return the voltages [V] that the converter puts out: the nearest multiple of `step_v`, halves upward."""
    return np.floor(drive_v / step_v + 0.5) * step_v if step_v > 0 else drive_v


def phase_rad(
    volts: NDArray[np.float64], resistance_ohm: float, pi_power_w: NDArray[np.float64], offset_rad: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return phase = offset + π · (V²/R) / P_π [rad]."""
    return offset_rad + np.pi * volts**2 / (resistance_ohm * pi_power_w)
