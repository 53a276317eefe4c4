"""Memory of detectors: an amplifier of limited bandwidth keeps a share of its output from one sample to the next.

A one-pole low-pass filter with the kept share a turns the values x of successive samples of a setting into

    y[t] = (1 - a) x[t] + a y[t-1],   y[0] = x[0]

since the detector has settled when the first sample is read. A share of 1 % is large for weak readings: the sample
before may have been a hundred times as strong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import lfilter

Array = NDArray[np.float64]


def with_memory(values: Array, kept: float) -> Array:
    """Return the output of the filter; samples along the second last axis, in the order in which they are read."""
    if kept == 0 or values.shape[-2] < 2:
        return values
    return np.asarray(lfilter([1 - kept], [1.0, -kept], values, axis=-2, zi=kept * values[..., :1, :])[0])


def without_memory(output: Array, kept: float) -> Array:
    """Return the values in front of the filter from its output: the inverse of `with_memory`."""
    values = output.copy()
    values[..., 1:, :] = (output[..., 1:, :] - kept * output[..., :-1, :]) / (1 - kept)
    return values


def memory_adjoint(slopes: Array, kept: float) -> Array:
    """Return the derivatives of a loss by the values in front of the filter from those by its output, same shape."""
    if kept == 0 or slopes.shape[-2] < 2:
        return slopes
    carried = np.asarray(lfilter([1.0], [1.0, -kept], slopes[..., ::-1, :], axis=-2))[..., ::-1, :].copy()
    carried[..., 1:, :] *= 1 - kept
    return carried


def memory_change(values: Array, output: Array, kept: float) -> Array:
    """Return the derivative of the filter's `output` for `values` by the kept share, same shape."""
    change = np.zeros_like(output)
    change[..., 1:, :] = output[..., :-1, :] - values[..., 1:, :]
    return np.asarray(lfilter([1.0], [1.0, -kept], change, axis=-2))
