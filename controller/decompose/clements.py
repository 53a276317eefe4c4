"""Decomposition of a unitary matrix for the rectangular mesh of Clements et al., Optica 3, 1460 (2016)."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from photonloop.controller.decompose.mesh_phases import Interferometer, MeshPhases, phases_with_output_screen
from photonloop.controller.decompose.nulling import null_left_of_two, null_lower_of_two
from photonloop.controller.decompose.unitarity import TOLERANCE, checked_unitary


def clements_phases(unitary: ArrayLike, tolerance: float = TOLERANCE) -> MeshPhases:
    """Return the phases with which a rectangular mesh has the transfer matrix `unitary`.

    The diagonals below the main diagonal are nulled from the lower left corner: the first, third, … by columns, which
    gives interferometers from the input side of the mesh, the others by rows, from its output side.

        · · · ·      the order in which the elements of a 4 × 4 matrix are nulled:
        6 · · ·      2 and 3 by rows, the others by columns
        2 5 · ·
        1 3 4 ·

    What is left is a diagonal of phases, which is moved to the outputs.

    Parameters
    ----------
    unitary
        Transfer matrix from input to output fields, shape (n, n), n ≥ 2.
    tolerance
        Largest distance from the nearest unitary matrix that is accepted.

    Returns
    -------
    MeshPhases
        n(n − 1)/2 interferometers by column, then top mode: the tops of column c are c mod 2, c mod 2 + 2, … ≤ n − 2.

    Raises
    ------
    ValueError
        The matrix is not square, not finite or not unitary.

    Examples
    --------
    >>> clements_phases([[1, 0], [0, 1]]).theta / np.pi
    array([1.])
    """
    work = checked_unitary(unitary, tolerance)
    n = len(work)
    first: list[Interferometer] = []
    last: list[Interferometer] = []
    for i in range(n - 1):
        for j in range(i + 1):
            if i % 2 == 0:
                first.append(null_left_of_two(work, row=n - 1 - j, top=i - j))
            else:
                last.append(null_lower_of_two(work, column=j, top=n - 2 - i + j))
    return phases_with_output_screen(first, np.diag(work), last[::-1])
