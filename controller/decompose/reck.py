"""Decomposition of a unitary matrix for the triangular mesh of Reck et al., Phys. Rev. Lett. 73, 58 (1994)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from photonloop.controller.decompose.mesh_phases import MeshPhases, phases_with_output_screen
from photonloop.controller.decompose.nulling import null_right_of_two
from photonloop.controller.decompose.unitarity import TOLERANCE, checked_unitary


def reck_phases(unitary: ArrayLike, tolerance: float = TOLERANCE) -> MeshPhases:
    """Return the phases with which a triangular mesh, apex at mode 0, has the transfer matrix `unitary`.

    The elements above the main diagonal are nulled row by row, each row from the right, by columns. Row k is nulled by
    the diagonal of interferometers that rises from the last two modes to modes k and k + 1. What is left is a diagonal
    of phases at the outputs.

    Parameters
    ----------
    unitary
        Transfer matrix from input to output fields, shape (n, n), n ≥ 2.
    tolerance
        Largest distance from the nearest unitary matrix that is accepted.

    Returns
    -------
    MeshPhases
        n(n − 1)/2 interferometers by column, then top mode: the tops of column c are n − 2 − d, n − d, … ≤ n − 2 with
        d = min(c, 2n − 4 − c).

    Raises
    ------
    ValueError
        The matrix is not square, not finite or not unitary.

    Examples
    --------
    >>> reck_phases([[0, 1], [1, 0]]).theta
    array([0.])
    """
    work = checked_unitary(unitary, tolerance)
    n = len(work)
    first = [null_right_of_two(work, row, top) for row in range(n - 1) for top in range(n - 2, row - 1, -1)]
    return phases_with_output_screen(first, np.diag(work), [])
