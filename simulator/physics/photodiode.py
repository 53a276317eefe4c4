"""Photodiodes and their amplifiers: saturation, thermal noise, shot noise, and memory between samples.

Double precision; `kernels.detect` and `kernels.convert_settings` are the compiled versions.

An amplifier with memory is a one-pole low-pass filter. Its noise bandwidth B is that of a corner frequency of 2B/π, so
its time constant is 1/(4B), and after a sample time T it keeps the share a = e^{-4BT} of its previous output:

    y[t] = (1 - a) x[t] + a y[t-1],   y[0] = x[0]

White noise x of variance σ²(1 + a)/(1 - a) gives y the variance σ² and the autocorrelation a^k.
"""

from __future__ import annotations

import math

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


def kept_share(diode: PhotodiodeParameters, sample_s: float) -> float:
    """Return the share a of its previous output that the amplifier keeps after a sample; 0 without memory.

    `sample_s` is the time of a sample [s].
    """
    return math.exp(-4.0 * diode.bandwidth_hz * sample_s) if diode.has_memory and diode.bandwidth_hz > 0 else 0.0


def white_excess(kept: float) -> float:
    """Return the variance of white noise in front of the amplifier's filter relative to that behind it."""
    return (1.0 + kept) / (1.0 - kept)


def filtered_a(current_a: NDArray[np.float64], kept: float) -> NDArray[np.float64]:
    """Return the output [A] of an amplifier that has settled at the first sample; samples along the first axis."""
    output_a = np.array(current_a, np.float64)
    for t in range(1, output_a.shape[0]) if kept > 0 else ():
        output_a[t] = (1.0 - kept) * output_a[t] + kept * output_a[t - 1]
    return output_a


def back_filtered(by_output: NDArray[np.float64], kept: float) -> NDArray[np.float64]:
    """Return the derivatives of a loss by the input of `filtered_a`, given those by its output, same shape."""
    carried = np.array(by_output, np.float64)
    if kept == 0:
        return carried
    for t in range(carried.shape[0] - 2, -1, -1):
        carried[t] += kept * carried[t + 1]
    carried[1:] *= 1.0 - kept
    return carried
