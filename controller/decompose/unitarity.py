"""Distance of a matrix from the unitary matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

TOLERANCE = 1e-8
"""Largest distance from the nearest unitary matrix, and largest excess of a norm over 1, that decompositions accept."""


def unitarity_error(matrix: ArrayLike) -> float:
    """Return ‖M†M − 1‖ in the spectral norm, the largest |σ² − 1| of the singular values σ of a square matrix."""
    return float(np.abs(_singular_values(matrix) ** 2 - 1.0).max())


def distance_from_unitary(matrix: ArrayLike) -> float:
    """Return ‖M − U‖ in the spectral norm, the largest |σ − 1|, with U the unitary matrix nearest to a square M."""
    return float(np.abs(_singular_values(matrix) - 1.0).max())


def nearest_unitary(matrix: ArrayLike) -> NDArray[np.complex128]:
    """Return the unitary factor of the polar decomposition, the unitary matrix nearest to `matrix` in unitary norms.

    Source: Fan and Hoffman, Proc. Amer. Math. Soc. 6, 111 (1955).

    Parameters
    ----------
    matrix
        Shape (n, n), finite. If it is singular, the nearest unitary matrix is not unique, and one of them is returned.
    """
    left, _, right = np.linalg.svd(np.asarray(matrix, np.complex128))
    return left @ right


def checked_square(matrix: ArrayLike) -> NDArray[np.complex128]:
    """Return a copy of `matrix` as complex128, shape (n, n) with n ≥ 2.

    Raises
    ------
    ValueError
        The matrix is not square, has fewer than two rows, or contains NaN or infinity.
    """
    square = np.array(matrix, np.complex128)
    if square.ndim != 2 or square.shape[0] != square.shape[1]:
        raise ValueError(f"the matrix has shape {square.shape}, but it must be square: one row per output, one column per input")
    if len(square) < 2:
        raise ValueError(f"the matrix has {len(square)} rows, but a mesh has at least 2 modes: give a matrix of at least 2 × 2")
    if not np.isfinite(square).all():
        row, column = (int(index) for index in np.argwhere(~np.isfinite(square))[0])
        raise ValueError(f"element ({row}, {column}) of the matrix is {square[row, column]}, but all elements must be finite")
    return square


def checked_unitary(matrix: ArrayLike, tolerance: float = TOLERANCE) -> NDArray[np.complex128]:
    """Return a copy of a unitary `matrix` as complex128, shape (n, n) with n ≥ 2.

    Raises
    ------
    ValueError
        As `checked_square`, or the distance from the nearest unitary matrix exceeds `tolerance`.
    """
    square = checked_square(matrix)
    distance = distance_from_unitary(square)
    if distance > tolerance:
        raise ValueError(
            f"the matrix has a distance of {distance:.3g} from the nearest unitary matrix, but at most {tolerance:g} is allowed: "
            "decompose `nearest_unitary(matrix)` instead, or use a mesh of topology 'svd'"
        )
    return square


def _singular_values(matrix: ArrayLike) -> NDArray[np.floating]:
    return np.linalg.svd(np.asarray(matrix, np.complex128), compute_uv=False)
