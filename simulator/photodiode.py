"""Detector noise. Double precision; `kernels.detect` is the fast twin."""

from __future__ import annotations

from simulator.parameters import PhotodiodeParameters

BOLTZMANN_J_PER_K = 1.380649e-23
ELEMENTARY_CHARGE_C = 1.602176634e-19


def thermal_variance_a2(diode: PhotodiodeParameters, load_ohm: float) -> float:
    """Return the variance [A²] of Johnson noise, 4kT·B/R."""
    return 4.0 * BOLTZMANN_J_PER_K * diode.temperature_k * diode.bandwidth_hz / load_ohm


def shot_variance_a(diode: PhotodiodeParameters) -> float:
    """Return the variance of shot noise divided by the current, dark current included, 2q·B [A]."""
    return 2.0 * ELEMENTARY_CHARGE_C * diode.bandwidth_hz
