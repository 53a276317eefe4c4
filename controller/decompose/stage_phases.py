"""Phases as channels of a stage, for a target matrix, and the transfer matrix of an ideal mesh for such phases."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from photonloop.controller.decompose.clements import clements_phases
from photonloop.controller.decompose.mesh_phases import MeshPhases
from photonloop.controller.decompose.reck import reck_phases
from photonloop.controller.decompose.stage_layout import StageLayout, check_topology, rows_by_topology, stage_layout
from photonloop.controller.decompose.svd import svd_phases
from photonloop.protocols.device import StageDescription

DECOMPOSITIONS: dict[str, Callable[[ArrayLike], MeshPhases]] = {
    "clements": clements_phases,
    "reck": reck_phases,
    "svd": svd_phases,
}
"""Functions from a target matrix to the phases of a mesh, by the name of the topology."""


def stage_phases(stage: StageDescription, matrix: ArrayLike) -> NDArray[np.float64]:
    """Return phases [rad] in [0, 2π), shape (channels,), with which an ideal stage has the transfer matrix `matrix`.

    If the stage has no group gamma, the rows of the resulting matrix have other phases than those of `matrix`, which
    does not change any reading of this stage.

    Parameters
    ----------
    stage
        A stage of topology "clements", "reck" or "svd" with its layout.
    matrix
        Transfer matrix from input to output fields, shape (ports, ports): unitary, or of norm ≤ 1 for topology "svd".

    Raises
    ------
    ConfigError
        The topology is another one or unknown, or the layout is missing or not that of the topology.
    ValueError
        The size of the matrix is not that of the stage, or the mesh cannot have this matrix.
    """
    check_topology(stage)
    layout = stage_layout(stage)
    rows = rows_by_topology(stage, layout)
    if np.shape(matrix) != (stage.ports, stage.ports):
        raise ValueError(
            f"the matrix has shape {np.shape(matrix)}, but stage {stage.name} has {stage.ports} ports: "
            f"give a matrix of shape ({stage.ports}, {stage.ports})"
        )
    found = DECOMPOSITIONS[stage.topology](matrix)
    phases = np.zeros(stage.channels)
    phases[layout.theta[rows]] = found.theta
    phases[layout.phi[rows]] = found.phi
    if layout.gamma.size:
        phases[layout.gamma] = found.gamma
    return phases


def mesh_matrix(
    stage: StageDescription,
    phases: ArrayLike,
    coupler_errors: ArrayLike | None = None,
    loss_db: ArrayLike | None = None,
) -> NDArray[np.complex128]:
    """Return the transfer matrix of a stage from its description and phases, in double precision, column by column.

    Parameters
    ----------
    stage
        A stage with a layout, of any topology.
    phases
        Phases [rad] of the channels, shape (…, channels).
    coupler_errors
        Angle errors [rad] of the first and the second coupler of each row of the layout, shape (interferometers, 2):
        angle = π/4 + error, B = [[cos, i sin], [i sin, cos]]. None: ideal couplers.
    loss_db
        Insertion loss [dB] of each row of the layout, equal in both arms: a number, or shape (interferometers,).

    Returns
    -------
    complex128 array
        From input fields to output fields, shape (…, ports, ports).

    Raises
    ------
    ConfigError
        The layout is missing, or it contradicts the ports, channels or groups of the stage.
    ValueError
        The number of phases is not the number of channels.
    """
    layout, phases = stage_layout(stage), np.asarray(phases, np.float64)
    if phases.shape[-1:] != (stage.channels,):
        raise ValueError(
            f"phases have shape {phases.shape}, but stage {stage.name} has {stage.channels} channels: "
            f"the last axis must have length {stage.channels}"
        )
    matrices = interferometer_matrices(phases[..., layout.theta], phases[..., layout.phi], coupler_errors, loss_db)
    fields = np.broadcast_to(np.eye(stage.ports, dtype=np.complex128), (*phases.shape[:-1], stage.ports, stage.ports)).copy()
    for column in np.unique(layout.column):
        _pass_column(layout, matrices, layout.column == column, fields)
    if layout.gamma.size:
        fields *= np.exp(1j * phases[..., layout.gamma, np.newaxis])
    return fields


def interferometer_matrices(
    theta: NDArray[np.float64],
    phi: NDArray[np.float64],
    coupler_errors: ArrayLike | None = None,
    loss_db: ArrayLike | None = None,
) -> NDArray[np.complex128]:
    """Return B₂ · diag(e^{iθ}, 1) · B₁ · diag(e^{iφ}, 1), shape (…, interferometers, 2, 2).

    Parameters
    ----------
    theta, phi
        Phases [rad], shape (…, interferometers).
    coupler_errors, loss_db
        As for `mesh_matrix`.
    """
    error = np.zeros(2) if coupler_errors is None else np.asarray(coupler_errors, np.float64)
    transmission = 10.0 ** (-np.asarray(0.0 if loss_db is None else loss_db, np.float64) / 20.0)
    internal, external = np.exp(1j * theta), np.exp(1j * phi)
    cos_1, cos_2 = np.cos(np.pi / 4 + error[..., 0]), np.cos(np.pi / 4 + error[..., 1])
    sin_1, sin_2 = np.sin(np.pi / 4 + error[..., 0]), np.sin(np.pi / 4 + error[..., 1])
    matrices = np.empty((*np.shape(theta), 2, 2), np.complex128)
    matrices[..., 0, 0] = (cos_2 * cos_1 * internal - sin_2 * sin_1) * external
    matrices[..., 0, 1] = 1j * (cos_2 * sin_1 * internal + sin_2 * cos_1)
    matrices[..., 1, 0] = 1j * (sin_2 * cos_1 * internal + cos_2 * sin_1) * external
    matrices[..., 1, 1] = cos_2 * cos_1 - sin_2 * sin_1 * internal
    matrices *= transmission[..., np.newaxis, np.newaxis]
    return matrices


def _pass_column(
    layout: StageLayout, matrices: NDArray[np.complex128], here: NDArray[np.bool_], fields: NDArray[np.complex128]
) -> None:
    """Propagate `fields`, shape (…, ports, inputs), through one column in place."""
    pairs, alone = here & ~layout.attenuates, here & layout.attenuates
    top = layout.top[pairs]
    upper, lower = fields[..., top, :], fields[..., top + 1, :]
    m = matrices[..., pairs, :, :, np.newaxis]
    fields[..., top, :] = m[..., 0, 0, :] * upper + m[..., 0, 1, :] * lower
    fields[..., top + 1, :] = m[..., 1, 0, :] * upper + m[..., 1, 1, :] * lower
    fields[..., layout.top[alone], :] *= matrices[..., alone, 0, 0, np.newaxis]
