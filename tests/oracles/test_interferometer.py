"""Phases that the `interferometer` package computes for a matrix give that matrix in our meshes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.linalg import dft
from scipy.stats import unitary_group
from support.flawed_mesh import places

from photonloop.simulator.physics.mesh import Mesh, clements, reck, svd, transfer_matrix

interferometer = pytest.importorskip("interferometer", reason="needs the extra oracles")

SIZES = pytest.mark.parametrize("n", [2, 3, 4, 5, 8, 13, 16])
SHAPES = pytest.mark.parametrize(
    ("build", "decompose"),
    [(clements, interferometer.square_decomposition), (reck, interferometer.triangle_decomposition)],
)

Matrix = NDArray[np.complex128]
Decompose = Callable[[Matrix], Any]


def target(name: str, n: int) -> Matrix:
    if name == "haar":
        return np.asarray(unitary_group.rvs(n, random_state=n), np.complex128)
    if name == "permutation":
        return np.eye(n, dtype=np.complex128)[np.random.default_rng(n).permutation(n)]
    return np.asarray(dft(n, scale="sqrtn") if name == "dft" else np.eye(n), np.complex128)


def played(mesh: Mesh, found: Any) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """θ, φ and γ of our mesh for a decomposition into T(ϑ, ϕ) = [[e^{iϕ} cos ϑ, -sin ϑ], [e^{iϕ} sin ϑ, cos ϑ]].

    At θ = π - 2ϑ and φ = ϕ + π our interferometer is e^{iχ}·T with χ = θ/2 - π/2. That e^{iχ} is carried on to the
    outputs: unequal phases in front of an interferometer go into its φ, what both modes have in common passes it
    unchanged.
    """
    theta, phi = np.zeros(mesh.interferometers), np.zeros(mesh.interferometers)
    owed, uses, place = np.zeros(mesh.ports), [0] * mesh.ports, places(mesh)
    for splitter in found.BS_list:
        top = int(splitter.mode1) - 1
        k = place[top, uses[top]]
        uses[top] += 1
        theta[mesh.theta[k]] = np.pi - 2 * splitter.theta
        phi[mesh.phi[k]] = splitter.phi + np.pi + owed[top] - owed[top + 1]
        owed[top : top + 2] = owed[top + 1] - theta[mesh.theta[k]] / 2 + np.pi / 2
    return theta, phi, np.asarray(found.output_phases, np.float64) + owed


@SHAPES
@SIZES
@pytest.mark.parametrize("name", ["haar", "identity", "permutation", "dft"])
def test_decomposition_gives_the_matrix(build: Callable[[int], Mesh], decompose: Decompose, n: int, name: str) -> None:
    wanted, mesh = target(name, n), build(n)
    np.testing.assert_allclose(transfer_matrix(mesh, *played(mesh, decompose(wanted))), wanted, atol=1e-12)


@SIZES
@pytest.mark.parametrize("kind", ["complex", "real", "singular"])
def test_svd_gives_any_matrix_of_norm_one(n: int, kind: str) -> None:
    """U, V† by Clements. An attenuator at θ = 2 arcsin σ multiplies by σ·i·e^{i(θ/2 + φ)}; φ has V†'s output phases."""
    rng = np.random.default_rng(n)
    matrix = rng.standard_normal((n, n)) + (1j * rng.standard_normal((n, n)) if kind == "complex" else 0)
    if kind == "singular":
        matrix[0] = matrix[1]
    matrix /= np.linalg.norm(matrix, 2)
    u, sigma, vh = np.linalg.svd(matrix)
    half = clements(n)
    v_theta, v_phi, v_gamma = played(half, interferometer.square_decomposition(vh.astype(np.complex128)))
    u_theta, u_phi, u_gamma = played(half, interferometer.square_decomposition(u.astype(np.complex128)))
    theta = 2 * np.arcsin(np.minimum(sigma, 1.0))
    phi = v_gamma - theta / 2 - np.pi / 2
    found = transfer_matrix(svd(n), np.concatenate((v_theta, u_theta, theta)), np.concatenate((v_phi, u_phi, phi)), u_gamma)
    np.testing.assert_allclose(found, matrix, atol=1e-12)
