"""The exact gradient of a loss on the output fields of a mesh, by the adjoint method, in double precision.

    fields in ──▶ column 0 ──▶ column 1 ──▶ … ──▶ screen ──▶ fields out ──▶ loss
                                                                  │
    fields in ◀── column 0⁻¹ ◀─ column 1⁻¹ ◀─ … ◀── screen⁻¹ ◀────┘           fields at each column
    slopes    ◀── column 0ᵀ ◀── column 1ᵀ ◀── … ◀── screenᵀ ◀── slopes out    derivative of the loss by the fields there

One forward pass and one backward pass. The fields at the columns are not stored: columns are invertible, also with
coupler errors and loss, so the backward pass recomputes them from the output. Only for attenuators, which may transmit
nothing, the fields that enter them are stored.

A slope is ∂L/∂E with E and its complex conjugate taken as independent, so dL = 2 Re Σ slope · dE.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.physics.mesh import Elements, Mesh, columns, pass_column

Fields = NDArray[np.complex128]
"""Fields or slopes, shape (ports, samples)."""


class ForwardFields(NamedTuple):
    """Fields behind a mesh, (ports, samples), and fields that entered its attenuators, (attenuators, samples)."""

    fields: Fields
    attenuated: Fields


class MeshGradient(NamedTuple):
    """Gradient of a loss on the output fields of a mesh.

    Parameters
    ----------
    theta, phi, gamma
        Derivatives with respect to the phases [1/rad]; θ and φ are indexed by `mesh.theta` and `mesh.phi`.
    slopes
        Slopes with respect to the fields that enter the mesh, shape (ports, samples).
    fields
        The fields that enter the mesh, shape (ports, samples).
    """

    theta: NDArray[np.float64]
    phi: NDArray[np.float64]
    gamma: NDArray[np.float64]
    slopes: Fields
    fields: Fields


def forward(mesh: Mesh, parts: Elements, fields: Fields) -> ForwardFields:
    """Return the output fields of a mesh for input `fields`, and what `backward` needs."""
    fields, matrices, attenuated = fields.astype(np.complex128), parts.matrices, []
    for column in columns(mesh):
        attenuated.append(fields[mesh.top[column.alone]])
        pass_column(mesh, matrices, column, fields)
    return ForwardFields(_screened(fields, parts.screen), np.concatenate(attenuated))


def backward(mesh: Mesh, parts: Elements, transmitted: ForwardFields, slopes: Fields) -> MeshGradient:
    """Return the gradient of a loss whose slopes with respect to the output fields are `slopes`."""
    by_gamma = _real_parts(1j * transmitted.fields, slopes)[: mesh.gammas]
    fields, slopes = _screened(transmitted.fields, 1.0 / parts.screen), _screened(slopes, parts.screen)
    matrices, by_element = parts.matrices, parts.theta_slopes
    inverses, transposed = parts.inverses, matrices.transpose(0, 2, 1)
    theta, phi = np.zeros(mesh.interferometers), np.zeros(mesh.interferometers)
    left = len(transmitted.attenuated)
    for column in reversed(columns(mesh)):
        behind = slopes.copy()
        pass_column(mesh, inverses, column, fields)
        pass_column(mesh, transposed, column, slopes)
        left -= column.alone.size
        fields[mesh.top[column.alone]] = transmitted.attenuated[left : left + column.alone.size]
        for here, modes in ((column.pairs, 2), (column.alone, 1)):
            rows = mesh.top[here, np.newaxis] + np.arange(modes)
            change = by_element[here, :modes, :modes] @ fields[rows]
            theta[mesh.theta[here]] = _real_parts(change, behind[rows]).sum(axis=1)
            phi[mesh.phi[here]] = _real_parts(1j * fields[mesh.top[here]], slopes[mesh.top[here]])
    return MeshGradient(theta, phi, by_gamma, slopes, fields)


def _screened(fields: Fields, screen: NDArray[np.complex128]) -> Fields:
    return screen[:, np.newaxis] * fields if screen.size else fields.copy()


def _real_parts(changes: Fields, slopes: Fields) -> NDArray[np.float64]:
    """Return 2 Re Σ slope · change over the samples, the last axis."""
    return 2.0 * np.einsum("...b,...b->...", changes, slopes).real
