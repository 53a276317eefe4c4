"""Phases of all arms of a mesh, as phases of its interferometers and of its output screen.

Heat changes the phase of both arms of an interferometer, and of modes outside interferometers. With upper and lower
phases θt, θb, φt, φb an interferometer multiplies the fields by

    e^{i(θb + φb)} · M(θt - θb, φt - φb)          M(θ, φ): its matrix with phases in the upper arm only (`mesh`)

The common phase is pushed towards the outputs. Each mode has a running phase ψ. An interferometer on modes a and b has
the effective phases θt - θb and φt - φb + ψa - ψb, and both its outputs have the running phase ψb + φb + θb. A mode
outside interferometers adds its own phases to ψ. Behind the last column, ψ adds to γ. An attenuator has no light in the
lower arm of its φ: its effective phases are θt - θb and φt + ψ, and its output has the running phase θb. This is an
identity, no approximation. `kernels.find_running_phases` is the compiled version.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from photonloop.simulator.physics.mesh import Mesh, columns


def effective_phases(mesh: Mesh, heated_rad: NDArray[np.float64], others_rad: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the effective phases [rad] of a mesh, shape (channels,), for `mesh.transfer_matrix`.

    Parameters
    ----------
    mesh
        The mesh.
    heated_rad
        Phases of the arms with heaters [rad], shape (channels,).
    others_rad
        Phases of all segments [rad] in the order of `crosstalk.Segments`, shape (segments,). Those of segments with
        heaters do not matter.
    """
    n, at, lone = mesh.interferometers, _at_modes(mesh, others_rad), others_rad[others_rad.size - int(mesh.attenuates.sum()) :]
    effective, running = heated_rad.copy(), np.zeros(mesh.ports)
    for number, column in enumerate(columns(mesh)):
        before, after = at[2 * number], at[2 * number + 1]
        top = mesh.top[column.pairs]
        effective[mesh.theta[column.pairs]] -= after[top + 1]
        effective[n + mesh.phi[column.pairs]] += running[top] - running[top + 1] - before[top + 1]
        behind = running + before + after
        behind[top] = behind[top + 1]
        mode = mesh.top[column.alone]
        effective[mesh.theta[column.alone]] -= lone[: mode.size]
        effective[n + mesh.phi[column.alone]] += running[mode]
        behind[mode] = lone[: mode.size]
        running, lone = behind, lone[mode.size :]
    effective[2 * n :] += running[: mesh.gammas]
    return effective


def effective_phases_transposed(mesh: Mesh, by_effective: NDArray[np.float64], segments: int) -> NDArray[np.float64]:
    """Return derivatives by `others_rad`, (segments,), from those by the effective phases, (channels,)."""
    n = mesh.interferometers
    found = np.zeros(segments)
    at, left = _at_modes(mesh, found), segments
    by_running = np.zeros(mesh.ports)
    by_running[: mesh.gammas] = by_effective[2 * n :]
    for number, column in reversed(list(enumerate(columns(mesh)))):
        by_before, by_after = by_running.copy(), by_running.copy()
        top = mesh.top[column.pairs]
        by_theta, by_phi = by_effective[mesh.theta[column.pairs]], by_effective[n + mesh.phi[column.pairs]]
        by_common = by_running[top] + by_running[top + 1]
        by_before[top + 1], by_after[top + 1] = by_common - by_phi, by_common - by_theta
        by_before[top] = by_after[top] = 0.0
        mode = mesh.top[column.alone]
        left -= mode.size
        found[left : left + mode.size] = by_running[mode] - by_effective[mesh.theta[column.alone]]
        by_before[mode] = by_after[mode] = 0.0
        by_running[top], by_running[top + 1] = by_phi, by_common - by_phi
        by_running[mode] = by_effective[n + mesh.phi[column.alone]]
        at[2 * number], at[2 * number + 1] = by_before, by_after
    return found


def _at_modes(mesh: Mesh, segments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the part of `segments` on the lattice as a view, shape (half columns, ports)."""
    return segments[: segments.size - int(mesh.attenuates.sum())].reshape(-1, mesh.ports)
