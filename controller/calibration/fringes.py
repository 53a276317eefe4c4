"""Fits of fringes: the power behind an interferometer while one of its heaters is swept.

    power = A + B · cos(offset + y),   y = phase of the heater at nominal phase x and scale κ

`column_scans.HeaterCurve` has y. For a given y the fit is linear in A, B cos(offset) and B sin(offset). Arrays have one
row per heater that is swept.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.calibration.column_scans import HeaterCurve

Array = NDArray[np.float64]

KAPPA_SIGMA = 0.04
"""Standard deviation of κ before a sweep, as in `twin_parameters.nominal_prior`."""

KAPPA_STEPS = 61
"""Values of κ that a fit tries."""

SHARE_SIGMA = 0.03
"""Error of a share of power assumed for the weight of this prior: noise, and light from elsewhere."""


class Cosines(NamedTuple):
    """Best A + B · cos(offset + y) for each row: A, B ≥ 0, offset [rad], and the values that it has."""

    mean: Array
    amplitude: Array
    offset_rad: Array
    fitted: Array

    @property
    def visibility(self) -> Array:
        """B / A, between 0 and 1 for a power."""
        return self.amplitude / np.maximum(np.abs(self.mean), 1e-300)


class ScaledFringes(NamedTuple):
    """Best cosines with a κ for each row, and the sum of squares that they leave unexplained."""

    cosines: Cosines
    kappa: Array
    unexplained: Array


def fit_cosines(y: Array, values: Array) -> Cosines:
    """Fit each row of `values` at phases `y` [rad], both of shape (rows, points); NaN values are left out."""
    usable = np.isfinite(values)
    basis = np.stack((np.ones_like(y), np.cos(y), np.sin(y)), axis=-1)
    weighted = basis * usable[..., np.newaxis]
    matrix = np.swapaxes(weighted, -1, -2) @ weighted + 1e-12 * np.eye(3)
    right = np.swapaxes(weighted, -1, -2) @ np.where(usable, values, 0.0)[..., np.newaxis]
    found = np.linalg.solve(matrix, right)[..., 0].astype(np.float64)
    fitted = (basis @ found[..., np.newaxis])[..., 0]
    return Cosines(found[..., 0], np.hypot(found[..., 1], found[..., 2]), np.arctan2(-found[..., 2], found[..., 1]), fitted)


def fit_scaled(x: Array, rest: Array, sign: Array, values: Array, curve: HeaterCurve) -> ScaledFringes:
    """Fit each row with a κ of its own, near 1.

    Parameters
    ----------
    x
        Nominal phases of the swept heaters [rad], shape (rows, points).
    rest
        Phases from everything else, as crosstalk [rad], same shape.
    sign
        1 for heaters on the upper arm, -1 on the lower one, shape (rows,).
    values
        Shares of power, shape (rows, points).
    curve
        Curve of the heaters.
    """
    kappas = 1 + KAPPA_SIGMA * np.linspace(-3, 3, KAPPA_STEPS)
    costs = np.stack([_cost(x, rest, sign, values, curve, np.full(len(x), kappa)) for kappa in kappas], axis=1)
    best = np.clip(costs.argmin(axis=1), 1, KAPPA_STEPS - 2)
    rows = np.arange(len(x))
    before, at, after = (costs[rows, best + shift] for shift in (-1, 0, 1))
    bend = before - 2 * at + after
    step = np.clip(np.where(bend > 0, 0.5 * (before - after) / np.where(bend > 0, bend, 1.0), 0.0), -1.0, 1.0)
    kappa = kappas[best] + step * (kappas[1] - kappas[0])
    y = sign[:, np.newaxis] * curve.phase(kappa[:, np.newaxis] * x) + rest
    cosines = fit_cosines(y, values)
    return ScaledFringes(cosines, kappa, np.nansum((cosines.fitted - values) ** 2, axis=1))


def _cost(x: Array, rest: Array, sign: Array, values: Array, curve: HeaterCurve, kappa: Array) -> Array:
    y = sign[:, np.newaxis] * curve.phase(kappa[:, np.newaxis] * x) + rest
    unexplained = np.nansum((fit_cosines(y, values).fitted - values) ** 2, axis=1)
    return unexplained + (SHARE_SIGMA * (kappa - 1) / KAPPA_SIGMA) ** 2
