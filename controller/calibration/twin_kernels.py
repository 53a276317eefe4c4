"""Compiled passes of light through a mesh, forward and backward. `mesh_fields` is the interface.

Arrays are float64. Fields have shape (settings, ports, 2, columns): real and imaginary parts are separate rows, so that
the loops over the last axis are vector instructions. A matrix is a row of eight numbers: real and imaginary parts of
M₀₀, M₀₁, M₁₀, M₁₁. Interferometers are in the order of light. An attenuator multiplies its mode `top` by M₀₀.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Sums may be reordered and fused. NaN and infinity keep their meaning.
FAST = {"reassoc", "contract", "arcp", "nsz"}

Floats = NDArray[np.float64]


@njit(cache=True, nogil=True, fastmath=FAST)
def propagate(matrices: Floats, top: NDArray[np.int64], alone: NDArray[np.bool_], fields: Floats, kept: Floats) -> None:
    """Propagate `fields` through all interferometers, in place.

    `kept`, shape (settings, interferometers, 2, 2, columns), receives the fields that enter each of them. If it has no
    settings, nothing is kept.
    """
    settings, columns, keep = fields.shape[0], fields.shape[3], kept.shape[0] > 0
    for s in range(settings):
        for k in range(top.size):
            t = top[k]
            a, b, c, d = matrices[s, k, 0], matrices[s, k, 1], matrices[s, k, 2], matrices[s, k, 3]
            e, f, g, h = matrices[s, k, 4], matrices[s, k, 5], matrices[s, k, 6], matrices[s, k, 7]
            upper_r, upper_i = fields[s, t, 0], fields[s, t, 1]
            if alone[k]:
                if keep:
                    kept[s, k, 0] = fields[s, t]
                    kept[s, k, 1] = 0.0
                for j in range(columns):
                    ur, ui = upper_r[j], upper_i[j]
                    upper_r[j] = a * ur - b * ui
                    upper_i[j] = a * ui + b * ur
                continue
            if keep:
                kept[s, k, 0] = fields[s, t]
                kept[s, k, 1] = fields[s, t + 1]
            lower_r, lower_i = fields[s, t + 1, 0], fields[s, t + 1, 1]
            for j in range(columns):
                ur, ui, lr, li = upper_r[j], upper_i[j], lower_r[j], lower_i[j]
                upper_r[j] = a * ur - b * ui + c * lr - d * li
                upper_i[j] = a * ui + b * ur + c * li + d * lr
                lower_r[j] = e * ur - f * ui + g * lr - h * li
                lower_i[j] = e * ui + f * ur + g * li + h * lr


@njit(cache=True, nogil=True, fastmath=FAST)
def propagate_back(
    matrices: Floats,
    top: NDArray[np.int64],
    alone: NDArray[np.bool_],
    slopes: Floats,
    kept: Floats,
    by_matrix: Floats,
    kept_slopes: Floats,
) -> None:
    """Propagate `slopes` of a loss by output fields back to the input fields, in place, with conjugate transposes.

    `by_matrix`, shape as `matrices`, receives Σ slope · conj(field) over the columns, if `kept` has settings.
    `kept_slopes`, shape (settings, interferometers, 2, 2, columns), receives the slopes behind each interferometer, if
    it has settings. For an attenuator only the first row is defined in both.
    """
    columns, sums, keep = slopes.shape[3], kept.shape[0] > 0, kept_slopes.shape[0] > 0
    for s in range(slopes.shape[0]):
        for k in range(top.size - 1, -1, -1):
            t = top[k]
            low = t if alone[k] else t + 1
            if keep:
                kept_slopes[s, k, 0] = slopes[s, t]
                kept_slopes[s, k, 1] = slopes[s, low]
            if sums:
                for i in range(1 if alone[k] else 2):
                    gr, gi = slopes[s, t + i, 0], slopes[s, t + i, 1]
                    xr, xi, yr, yi = kept[s, k, 0, 0], kept[s, k, 0, 1], kept[s, k, 1, 0], kept[s, k, 1, 1]
                    s0 = s1 = s2 = s3 = 0.0
                    for j in range(columns):
                        s0 += gr[j] * xr[j] + gi[j] * xi[j]
                        s1 += gi[j] * xr[j] - gr[j] * xi[j]
                        s2 += gr[j] * yr[j] + gi[j] * yi[j]
                        s3 += gi[j] * yr[j] - gr[j] * yi[j]
                    by_matrix[s, k, 4 * i], by_matrix[s, k, 4 * i + 1] = s0, s1
                    by_matrix[s, k, 4 * i + 2], by_matrix[s, k, 4 * i + 3] = s2, s3
            a, b, c, d = matrices[s, k, 0], matrices[s, k, 1], matrices[s, k, 2], matrices[s, k, 3]
            e, f, g, h = matrices[s, k, 4], matrices[s, k, 5], matrices[s, k, 6], matrices[s, k, 7]
            upper_r, upper_i = slopes[s, t, 0], slopes[s, t, 1]
            if alone[k]:
                for j in range(columns):
                    ur, ui = upper_r[j], upper_i[j]
                    upper_r[j] = a * ur + b * ui
                    upper_i[j] = a * ui - b * ur
                continue
            lower_r, lower_i = slopes[s, t + 1, 0], slopes[s, t + 1, 1]
            for j in range(columns):
                ur, ui, lr, li = upper_r[j], upper_i[j], lower_r[j], lower_i[j]
                upper_r[j] = a * ur + b * ui + e * lr + f * li
                upper_i[j] = a * ui - b * ur + e * li - f * lr
                lower_r[j] = c * ur + d * ui + g * lr + h * li
                lower_i[j] = c * ui - d * ur + g * li - h * lr
