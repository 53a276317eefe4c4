"""Decomposition of any matrix of norm ≤ 1 for a mesh of two rectangles and attenuators.

Source: Miller, Photonics Research 1, 1 (2013).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from photonloop.controller.decompose.clements import clements_phases
from photonloop.controller.decompose.mesh_phases import MeshPhases, wrapped
from photonloop.controller.decompose.unitarity import TOLERANCE, checked_square


def svd_phases(matrix: ArrayLike, tolerance: float = TOLERANCE) -> MeshPhases:
    """Return the phases with which a mesh V†, attenuators Σ, U has the transfer matrix `matrix` = U·Σ·V†.

    V† and U are rectangular meshes. An attenuator multiplies its mode by i e^{iθ/2} e^{iφ} sin θ/2, so a singular value
    σ is set by θ = 2 arcsin σ. V† has no output phases of its own; φ of the attenuators has them.

    Parameters
    ----------
    matrix
        Transfer matrix from input to output fields, shape (n, n), n ≥ 2, largest singular value ≤ 1.
    tolerance
        Largest excess of the largest singular value over 1 that is accepted; such singular values are set to 1.

    Returns
    -------
    MeshPhases
        The interferometers of V†, the attenuators by mode, the interferometers of U, n² in all. V† and U are each
        ordered by column, then top mode. `gamma` has the output phases of U.

    Raises
    ------
    ValueError
        The matrix is not square or not finite, or its largest singular value exceeds 1.

    Examples
    --------
    >>> svd_phases([[0.5, 0], [0, 0]]).theta / np.pi
    array([1.        , 0.33333333, 0.        , 1.        ])
    """
    square = checked_square(matrix)
    left, sigma, right = np.linalg.svd(square)
    if sigma[0] > 1 + tolerance:
        raise ValueError(
            f"the largest singular value of the matrix is {sigma[0]:.6g}, but attenuators allow at most 1: "
            f"divide the matrix by {sigma[0]:.6g}"
        )
    before, after = clements_phases(right), clements_phases(left)
    theta = 2 * np.arcsin(np.minimum(sigma, 1.0))
    phi = np.where(theta > 0, before.gamma - theta / 2 - np.pi / 2, 0.0)
    return MeshPhases(
        theta=np.concatenate((before.theta, theta, after.theta)),
        phi=np.concatenate((before.phi, wrapped(phi), after.phi)),
        gamma=after.gamma,
    )
