"""Transfer matrices from powers alone: every setting is read with many inputs of known amplitudes, several lit at once.

With real amplitudes b at the inputs, whose phases are steady, the power at output k is the quadratic form

    P_k = bᵀ G_k b,   G_k = Re u_k Re u_kᵀ + Im u_k Im u_kᵀ

with the row u_k of the transfer matrix. G_k follows by linear least squares from n (n + 1)/2 + 1 or more inputs, and
u_k from its two largest eigenvalues, up to a phase and complex conjugation. Which rows are conjugated follows from
their orthogonality. What is left unknown are phases at the outputs and conjugation of the whole matrix; phases at the
inputs are part of it.

References
----------
.. [1] S. Rahimi-Keshari et al., "Direct characterization of linear-optical networks", Optics Express 21, 13450 (2013):
   matrices from powers with two inputs lit at a time.
.. [2] R. Sinkhorn, Annals of Mathematical Statistics 35, 876 (1964): balancing of rows and columns.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

Array = NDArray[np.float64]
Complex = NDArray[np.complex128]

BALANCING_STEPS = 30

MISSING = 0.1
"""Rows shorter than this, relative to their median, come from a detector without a signal."""

FITTED_SETTINGS = 8
"""Settings from which leak and compression are found."""


@dataclass(frozen=True)
class PowerLaw:
    """From requested amplitudes and readings to amplitudes at the mesh and powers.

    Parameters
    ----------
    leak
        Field of an input at amplitude 0, relative to that at 1.
    compression
        Saturation of the detectors, as in `TwinParameters`, divided by full scale.
    """

    leak: float
    compression: float

    def amplitudes(self, requested: Array) -> Array:
        """Return the amplitudes at the mesh."""
        return np.sqrt(self.leak**2 + (1 - self.leak**2) * requested**2)

    def powers(self, readings: Array) -> Array:
        """Return what the readings would be without saturation."""
        return readings / np.maximum(1 - self.compression * readings, 0.1)


def power_law(readings: Array, requested: Array, full_scale: float) -> PowerLaw:
    """Return the leak and the compression for which the readings follow quadratic forms best."""
    some = np.nan_to_num(readings[:FITTED_SETTINGS]).swapaxes(0, 1).reshape(len(requested), -1)

    def misfit(values: Array) -> float:
        law = PowerLaw(float(values[0]), float(values[1]) / full_scale)
        powers = law.powers(some)
        basis = np.linalg.qr(_design(law.amplitudes(requested))).Q
        left = powers - basis @ (basis.T @ powers)
        return float(np.sum(left**2) / np.sum(powers**2))

    found: Any = minimize(misfit, (0.06, 1.0), method="Nelder-Mead", bounds=((0.0, 0.15), (0.0, 10.0)), options={"maxfev": 120})
    return PowerLaw(float(found.x[0]), float(found.x[1]) / full_scale)


def retrieved_matrices(readings: Array, inputs: Array) -> Complex:
    """Return the unitary matrices that are closest to the readings.

    Parameters
    ----------
    readings
        Readings, shape (settings, samples, ports): dark readings may be included. A row that is NaN or dark for all
        settings is found as the complement of the others; no more than one may be missing.
    inputs
        Amplitudes at the mesh, shape (samples, ports).

    Returns
    -------
        Shape (settings, ports, ports).

    Raises
    ------
    ValueError
        There are fewer inputs than unknowns.
    """
    forms = quadratic_forms(readings, inputs)
    values, vectors = np.linalg.eigh(forms)
    real, imaginary = (np.sqrt(np.maximum(values[..., k], 0.0))[..., np.newaxis] * vectors[..., k] for k in (-1, -2))
    return np.array([_unitary(_same_side(rows)) for rows in real + 1j * imaginary])


def quadratic_forms(readings: Array, inputs: Array) -> Array:
    """Return G, shape (settings, outputs, ports, ports), by least squares; a constant takes up dark readings."""
    samples, ports = inputs.shape
    upper, design = np.triu_indices(ports), _design(inputs)
    if samples < design.shape[1]:
        raise ValueError(f"{samples} inputs determine no matrix of {ports} ports: read at least {design.shape[1]}")
    inverse = np.linalg.pinv(design)
    found = (inverse @ np.nan_to_num(readings)).swapaxes(1, 2)[..., :-1]
    forms = np.zeros((*found.shape[:2], ports, ports))
    forms[..., upper[0], upper[1]] = found
    return 0.5 * (forms + forms.swapaxes(-1, -2))


def _design(inputs: Array) -> Array:
    """Return the products of all pairs of amplitudes and a constant, shape (samples, unknowns)."""
    upper = np.triu_indices(inputs.shape[1])
    return np.concatenate((inputs[:, upper[0]] * inputs[:, upper[1]], np.ones((len(inputs), 1))), axis=1)


def _same_side(rows: Complex) -> Complex:
    """Return the rows of one matrix, some of them conjugated, so that they are as orthogonal as possible."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(lengths > 0, lengths, 1.0)
    preference = np.abs(unit @ unit.T) ** 2 - np.abs(unit @ unit.conj().T) ** 2
    np.fill_diagonal(preference, 0.0)
    conjugated = np.linalg.eigh(preference)[1][:, -1] < 0
    return np.where(conjugated[:, np.newaxis], rows.conj(), rows)


def _unitary(rows: Complex) -> Complex:
    """Return the nearest unitary matrix after the gains of rows and columns have been made equal."""
    lengths = np.linalg.norm(rows, axis=1)
    missing = lengths < MISSING * np.median(lengths)
    rows = np.where(missing[:, np.newaxis], 0.0, rows)
    for _ in range(BALANCING_STEPS):
        # The columns of an incomplete matrix have no known length.
        for axis in (1,) if missing.any() else (1, 0):
            lengths = np.linalg.norm(rows, axis=axis, keepdims=True)
            rows = rows / np.where(lengths > 0, lengths, 1.0)
    left, _, right = np.linalg.svd(rows)
    return left @ right
