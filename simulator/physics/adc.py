"""ADCs: noise, quantisation and full scale. Double precision; `kernels.detect` has the compiled version.

Zero offset, offset drift and noise are given in LSB, so a continuous converter (`bits` 0) has none of them.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.parameters import AdcParameters


def code_a(adc: AdcParameters, span_a: float) -> float:
    """Return the LSB [A] of a converter whose range is `span_a` wide, or 0 if it is continuous."""
    return span_a / (2**adc.bits - 1) if adc.bits else 0.0


def noise_a(adc: AdcParameters, code_a: float) -> float:
    """Return the standard deviation [A] of a converter's noise before quantisation."""
    return adc.noise_lsb * code_a


def reading_noise_a(adc: AdcParameters, code_a: float) -> float:
    """Return the standard deviation [A] that noise and quantisation of a converter add to a reading.

    The error of quantisation is uniform in one LSB (variance LSB²/12) if the noise in front of it exceeds about half an
    LSB (Widrow and Kollár 2008).
    """
    return code_a * math.sqrt(adc.noise_lsb**2 + 1.0 / 12.0)


def converted_a(
    current_a: NDArray[np.float64], code_a: float, full_scale_a: float = np.inf, *, is_signed: bool = False
) -> NDArray[np.float64]:
    """Return the readings [A] of currents at the input of a converter: clipped, and a multiple of `code_a`.

    Parameters
    ----------
    current_a
        Currents [A] of any shape.
    code_a
        LSB [A]; 0: continuous.
    full_scale_a
        Highest reading [A].
    is_signed
        If True, the lowest reading is -full_scale_a, otherwise code 0. A continuous converter has no lowest reading.
    """
    clipped = np.clip(current_a, -full_scale_a if is_signed else -np.inf, full_scale_a)
    if code_a == 0:
        return clipped
    code = np.floor(clipped / code_a + 0.5)
    return (code if is_signed else np.maximum(code, 0.0)) * code_a
