"""Photodiodes: saturation, thermal noise and shot noise. Double precision; `kernels.detect` is the compiled version."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import PhotodiodeParameters

BOLTZMANN_J_PER_K = 1.380649e-23
ELEMENTARY_CHARGE_C = 1.602176634e-19


def compressed_a(current_a: NDArray[np.float64], saturation_a: float) -> NDArray[np.float64]:
    """Return the current [A] of a saturating diode, i / (1 + i/i_sat) with i_sat = `saturation_a`; 0: linear.

    The simplest law that is linear at low power and bounded at high power, as measured. At i = i_sat the current is
    half of i.
    """
    return current_a / (1.0 + current_a / saturation_a) if saturation_a > 0 else current_a


def thermal_variance_a2(diode: PhotodiodeParameters, load_ohm: float) -> float:
    """Return the variance [A²] of thermal (Johnson) noise, 4kT·B/R."""
    return 4.0 * BOLTZMANN_J_PER_K * diode.temperature_k * diode.bandwidth_hz / load_ohm


def shot_variance_a(diode: PhotodiodeParameters) -> float:
    """Return the variance of shot noise per current, 2q·B [A]. The current includes the dark current."""
    return 2.0 * ELEMENTARY_CHARGE_C * diode.bandwidth_hz
