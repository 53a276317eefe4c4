"""Elimination steps: multiply a matrix in place by one interferometer so that one of its elements becomes 0.

M(θ, φ) = i e^{iθ/2} [[e^{iφ} sin θ/2, cos θ/2], [e^{iφ} cos θ/2, −sin θ/2]]

An element that is 0 already gives the bar state, θ = π, so sparse matrices give meshes of bar and cross states.
"""

from __future__ import annotations

import cmath
import math

import numpy as np
from numpy.typing import NDArray

from photonloop.controller.decompose.mesh_phases import Interferometer

_NEGLIGIBLE = 1e-14
"""Modulus below which an element of a unitary matrix counts as 0."""

Matrix = NDArray[np.complex128]


def null_left_of_two(matrix: Matrix, row: int, top: int) -> Interferometer:
    """Null element (row, top) by columns top and top + 1: replace `matrix` by matrix · M†, and return M."""
    left, right = matrix[row, top : top + 2]
    theta, phi = _theta(kept=right, nulled=left), math.pi + cmath.phase(left) - cmath.phase(right)
    matrix[:, top : top + 2] @= _matrix(theta, phi).conj().T
    return Interferometer(top, theta, phi)


def null_right_of_two(matrix: Matrix, row: int, top: int) -> Interferometer:
    """Null element (row, top + 1) by columns top and top + 1: replace `matrix` by matrix · M†, and return M."""
    left, right = matrix[row, top : top + 2]
    theta, phi = _theta(kept=left, nulled=right), cmath.phase(left) - cmath.phase(right)
    matrix[:, top : top + 2] @= _matrix(theta, phi).conj().T
    return Interferometer(top, theta, phi)


def null_lower_of_two(matrix: Matrix, column: int, top: int) -> Interferometer:
    """Null element (top + 1, column) by rows top and top + 1: replace `matrix` by M · matrix, and return M."""
    upper, lower = matrix[top : top + 2, column]
    theta, phi = _theta(kept=upper, nulled=lower), cmath.phase(lower) - cmath.phase(upper)
    matrix[top : top + 2] = _matrix(theta, phi) @ matrix[top : top + 2]
    return Interferometer(top, theta, phi)


def _theta(kept: complex, nulled: complex) -> float:
    if abs(nulled) <= _NEGLIGIBLE:
        return math.pi
    if abs(kept) <= _NEGLIGIBLE:
        return 0.0
    return 2 * math.atan2(abs(kept), abs(nulled))


def _matrix(theta: float, phi: float) -> Matrix:
    sine = 1.0 if theta == math.pi else math.sin(theta / 2)
    cosine = 0.0 if theta == math.pi else math.cos(theta / 2)
    common, external = 1j * cmath.exp(0.5j * theta), cmath.exp(1j * phi)
    return np.array(
        [[common * external * sine, common * cosine], [common * external * cosine, -common * sine]],
        np.complex128,
    )
